"""The small base that ships with the package, and the scripts that made it.

`architecture` holds its configurations and its file layout; `autoencoder` and `pretrain` train it on the procedural images of
`world` and the captioned scenes of `scenes`. README.md beside this file is the recipe. Importing this package imports nothing heavy.
"""

import os
from pathlib import Path

FILE = Path(os.environ.get("MEDTUNE_EMBEDDED_BASE") or Path(__file__).with_name("medtune-embedded.safetensors"))
"""The embedded base: one float16 safetensors file in LDM layout. Another file of this architecture, such as one just trained and not
yet put in place, can stand in by the environment variable MEDTUNE_EMBEDDED_BASE."""
