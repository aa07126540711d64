"""What is made ready before the first step: latents, text states, masks. Each encoder is on the device only while it works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.record import Record
from ..files import cache_folder
from . import inpainting
from .cache import Latents, TextStates, blank_channels, cache_latents, cache_text
from .images import Images, find_images
from .objective import ObjectiveOptions
from .options import TrainOptions
from .region import Regions, find_regions

if TYPE_CHECKING:
    from .base import Base


@dataclass(frozen=True)
class Prepared:
    """What batches are made of.

    ``pictures`` are latents, or the images where the autoencoder is trained; ``text`` is None where the text encoder is; ``blank`` is
    what an inpainting U-Net reads besides the latents where there are no ``inputs``, on the device; the last ``of_class`` records are
    images of the class.
    """

    records: Sequence[Record]
    of_class: int
    pictures: Latents | Images
    text: TextStates | None = None
    inputs: inpainting.Inputs | None = None
    regions: Regions | None = None
    blank: Tensor | None = None


def prepare(base: Base, records: Sequence[Record], class_records: Sequence[Record], prompts: Sequence[str], *, parts: set[str],
            options: TrainOptions, objective: ObjectiveOptions, device: torch.device,
            on_progress: Callable[[int, int], None]) -> Prepared:
    """Encode what is not in the cache yet, with the parts that are not trained; ``prompts`` are to be had beside the captions.

    Raises DataError naming each image or mask that cannot be used.
    """
    folder = cache_folder() / "training" if options.cache == "disk" else None
    shown, of_class = [*records, *class_records], len(class_records)
    if base.vae is not None:
        base.vae.to(device)
    place = {"size": options.size, "fit": options.fit}
    if "vae" in parts:
        pictures = find_images(shown, **place, on_progress=on_progress)
    else:
        pictures = cache_latents(base, shown, folder, **place, flips=options.flips, posterior=options.posterior,
                                 on_progress=on_progress)
    blank, inputs, regions, text = blank_channels(base, pictures.shape), None, None, None
    if inpainting.variants(objective):
        inputs = inpainting.cache_inputs(base, shown, of_class, pictures.shape, folder, objective=objective, options=options,
                                         on_progress=on_progress)
    if "vae" not in parts:
        base.vae.to("cpu")
    if objective.masked:
        regions = find_regions(shown, pictures.shape, objective.outside_weight, **place)
    if "text_encoder" not in parts:
        if base.text_encoder is not None:
            base.text_encoder.to(device)
        text = cache_text(base, [*(record.caption for record in shown), *prompts], folder)
        base.text_encoder.to("cpu")
    return Prepared(shown, of_class, pictures, text, inputs, regions, None if blank is None else blank.to(device))
