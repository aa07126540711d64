"""Latents and text states that were made elsewhere -> records to train on, with those tensors in the cache.

The images of the records are the decoded latents: to look at, and to address the entries by. Training finds every entry, and
encodes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.image import hash_image
from ..data.image_set import ImageSet
from ..data.record import Record
from ..errors import ConfigError
from ..files import cache_folder, hash_json
from .cache import FORMAT, DiskStore, hash_weights
from .options import TrainOptions

if TYPE_CHECKING:
    from .base import Base


def prepare_records(base: Base, latents: Sequence[Tensor], states: Sequence[Tensor], options: TrainOptions,
                    folder: Path) -> list[Record]:
    """Records for `train` with these very options, from latents (4, h, w) in the U-Net's scale and text states (77, d).

    Raises ConfigError for options that would have the images encoded again.
    """
    if options.cache != "disk" or options.flips or options.posterior != "mode":
        raise ConfigError(f"cache is {options.cache!r}, flips {options.flips}, posterior {options.posterior!r}; "
                          "encoded images need cache disk, no flips, posterior mode")
    store = DiskStore(cache_folder() / "training")
    vae, text = hash_weights(base.vae), hash_weights(base.text_encoder)
    digests = [hashlib.sha256(latent.numpy().tobytes() + state.numpy().tobytes()).hexdigest()
               for latent, state in zip(latents, states)]
    images = ImageSet(folder / hash_json([digests, vae])[:12])
    for index, (latent, state) in enumerate(zip(latents, states)):
        if index == len(images.records):
            with torch.no_grad():
                images.append(base.decode_latents(latent[None])[0].cpu(), f"encoded {digests[index][:16]}")
        record = images.records[index]
        key = [FORMAT, "latents", hash_image(record.image), vae, options.size, options.fit, options.posterior, False]
        store.write(hash_json(key), {"mean": latent.contiguous()})
        store.write(hash_json([FORMAT, "text", record.caption, text]), {"states": state.contiguous()})
    return images.records
