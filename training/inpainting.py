"""Inpainting: the masks that a U-Net of 9 input channels learns to fill, and what it reads of each.

That is what ComfyUI's InpaintModelConditioning and diffusers' inpainting pipeline give it: the mask, rounded in the latents'
resolution, and the latents of the image with mid-grey in the mask's place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..data.image import check_image, hash_image, read_image, read_mask, transform_box
from ..data.problems import Problems
from ..data.record import Record
from ..errors import ConfigError, DataError, listing
from ..files import hash_json
from .cache import FORMAT, Store, open_store, present
from .draws import generator
from .mask_shapes import random_mask, whole
from .objective import ObjectiveOptions
from .options import TrainOptions
from .sampler import SCALE

if TYPE_CHECKING:
    from .base import Base

GREY = 0.5


def check_inpainting(objective: ObjectiveOptions, base: Base, parts: set[str], records: Sequence[Record]) -> None:
    """Raise ConfigError for an objective that the base or the trained parts do not allow, DataError for records without masks."""
    kind = objective.inpainting
    if objective.inflate and base.channels != 4:
        raise ConfigError(f"inflate is on, and {base.ref} takes {base.channels} channels already. Switch inflate off")
    if objective.inflate and kind == "off":
        raise ConfigError("inflate is on and inpainting is off: the new channels would never be told of a mask. Set inpainting to "
                          "random, given or lesion, or switch inflate off")
    if kind != "off" and base.channels == 4 and not objective.inflate:
        raise ConfigError(f"inpainting is {kind!r}, and {base.ref} takes 4 channels: it cannot be told of a mask. Switch inflate on "
                          "to widen it to 9, choose an inpainting checkpoint, or set inpainting to off")
    if kind != "off" and "vae" in parts:
        raise ConfigError(f"inpainting is {kind!r} and the autoencoder is trained, whose latents of the masked images would change "
                          "under it. Train other parts, or set inpainting to off")
    if kind == "random" and not objective.mask_shapes:
        raise ConfigError("inpainting is 'random' and mask_shapes is empty; name at least one of: box, stroke, blob")
    lacking = [record.image for record in records if record.mask is None and not (kind == "lesion" and record.boxes)]
    if kind in ("given", "lesion") and lacking:
        what = "a mask" if kind == "given" else "a mask or boxes"
        raise DataError(f"inpainting is {kind!r}, and {len(lacking)} of {len(records)} records do not have {what}: {listing(lacking)}"
                        ". Give them one, leave them out, or set inpainting to random")


# -- masks


def make_mask(record: Record, shape: tuple[int, int], objective: ObjectiveOptions, options: TrainOptions, *words: object) -> Tensor:
    """What is to be filled of a record's image (1, H, W), of 0 and 1; ``words`` and the seed decide what is random.

    Raises DataError for a mask of another size, or one that marks nothing.
    """
    source = generator(options.seed, "mask", *words)
    if objective.inpainting == "random":
        return random_mask(shape, objective, source)
    mask = _marked(record, shape, options)
    if not mask.any():
        raise DataError(f"{record.mask or record.image}: nothing is marked in what is left of the image. Set fit to pad, put the mask "
                        "right, or leave the record out")
    return _grown(mask, whole(0, max(shape) // 8, source)) if objective.inpainting == "lesion" else mask


def _marked(record: Record, shape: tuple[int, int], options: TrainOptions) -> Tensor:
    """A record's mask, or its boxes where it has none."""
    if record.mask is None:
        return _boxed(record, shape, options)
    mask = read_mask(record.mask, options.size, options.fit)
    if tuple(mask.shape[1:]) != shape:
        raise DataError(f"{record.mask} is {mask.shape[2]} x {mask.shape[1]}, and its image {shape[1]} x {shape[0]}")
    return mask


def _boxed(record: Record, shape: tuple[int, int], options: TrainOptions) -> Tensor:
    mask, stored = torch.zeros(1, *shape), check_image(record.image)
    for box in record.boxes:
        placed = transform_box(box, stored, options.size, options.fit)
        if placed is not None:
            right, bottom = math.ceil(placed.x + placed.width), math.ceil(placed.y + placed.height)
            mask[:, int(placed.y):bottom, int(placed.x):right] = 1
    return mask


def _grown(mask: Tensor, margin: int) -> Tensor:
    """The mask with a margin of this many pixels."""
    wide = functional.max_pool2d(mask, (1, 2 * margin + 1), 1, (0, margin))
    return functional.max_pool2d(wide, (2 * margin + 1, 1), 1, (margin, 0))


# -- what the U-Net reads


def condition(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mask (1, h, w) in the latents' resolution, and the image (3, H, W) with mid-grey in the mask's place."""
    height, width = mask.shape[-2:]
    small = functional.interpolate(mask[None], (height // SCALE, width // SCALE), mode="bilinear")[0].round()
    return small, torch.where(mask > GREY, torch.tensor(GREY), image)


class Inputs:
    """What an inpainting U-Net reads besides the noisy latents, by image, its mirroring and its variant of the mask."""

    def __init__(self, store: Store, keys: Mapping[tuple[int, int, int], str]):
        self.store, self.keys = store, dict(keys)

    def batch(self, indices: Sequence[int], flipped: Sequence[bool], variants: Sequence[int]) -> Tensor:
        """Mask and latents of the masked image (B, 5, h, w)."""
        return torch.stack([present(self.store, self.keys[index, int(flip), variant])["channels"]
                            for index, flip, variant in zip(indices, flipped, variants, strict=True)])


def variants(objective: ObjectiveOptions) -> int:
    """How many masks there are of each image; 0 without an inpainting objective."""
    return {"off": 0, "given": 1}.get(objective.inpainting, objective.mask_variants)


@torch.no_grad()
def cache_inputs(base: Base, records: Sequence[Record], unmarked: int, shape: tuple[int, ...], folder: Path | None, *,
                 objective: ObjectiveOptions, options: TrainOptions,
                 on_progress: Callable[[int, int], None] | None = None) -> Inputs:
    """Encode every masked image that is not in the cache yet, for latents of a shape (4, h, w).

    The last ``unmarked`` records are images of the class: where masks are not random, all of them is to be filled. Raises DataError
    naming every record whose mask cannot be used.
    """
    store, weights = open_store(folder, base.vae, "autoencoder")
    keys, problems, size = {}, Problems("masks"), (shape[-2] * SCALE, shape[-1] * SCALE)
    for number, record in enumerate(records):
        all_of_it = objective.inpainting != "random" and number >= len(records) - unmarked
        for variant in range(variants(objective)):
            try:
                mask = torch.ones(1, *size) if all_of_it else make_mask(record, size, objective, options, number, variant)
            except DataError as error:
                problems.add(record.image, str(error))
                break
            for flip in (False, True) if options.flips else (False,):
                keys[number, int(flip), variant] = key = _key(record, mask, weights, options, flip)
                if not problems.found and store.read(key) is None:
                    store.write(key, {"channels": _encode(base, record, mask, options, flip)})
        if on_progress is not None:
            on_progress(number + 1, len(records))
    problems.check(len(records))
    return Inputs(store, keys)


def _key(record: Record, mask: Tensor, weights: str, options: TrainOptions, flip: bool) -> str:
    image = hash_image(record.image) if weights else str(record.image)  # in memory there are no weights to tell apart, nor other runs
    marked = hashlib.sha256(mask.to(torch.uint8).numpy().tobytes()).hexdigest()
    return hash_json([FORMAT, "inpainting", image, marked, weights, options.size, options.fit, flip])


def _encode(base: Base, record: Record, mask: Tensor, options: TrainOptions, flip: bool) -> Tensor:
    image = read_image(record.image, options.size, options.fit)
    small, hidden = condition(image, mask)
    if flip:
        small, hidden = small.flip(-1), hidden.flip(-1)
    return torch.cat([small, base.encode_images(hidden[None])[0].float().cpu()])

