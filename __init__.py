"""MedTune: fine-tune diffusion models on medical images, sample from them, and score the result.

The folder is a ComfyUI custom node and, installed, the package `medtune`. Importing it costs nothing: ComfyUI calls
`comfy_entrypoint`, which imports the nodes; everything else imports what it needs.
"""

__version__ = "0.1.0"

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls for the pack's nodes; also registers the embedded base with ComfyUI's model loader."""
    from .nodes import host, load

    host.register_base()
    host.register_weights()
    return host.extension(load())
