"""Masked loss: how much each place of an image's latents counts, from the record's mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..data.image import read_mask
from ..data.problems import Problems
from ..data.record import Record
from ..errors import DataError
from .objective import ObjectiveOptions
from .sampler import SCALE


class Regions:
    """The weights of a data set's images, by index. ``shares`` are the mask's share (1, h, w) of each place, or None for no mask."""

    def __init__(self, shares: Sequence[Tensor | None], outside: float, shape: Sequence[int]):
        self.shares, self.outside = list(shares), outside
        self.whole = torch.ones(1, *shape[-2:])

    def batch(self, indices: Sequence[int], flipped: Sequence[bool]) -> Tensor:
        """Weights (B, 1, h, w): 1 within the mask, ``outside`` around it, and between them along its edge."""
        weights = []
        for index, flip in zip(indices, flipped, strict=True):
            share = self.shares[index]
            share = self.whole if share is None else share.flip(-1) if flip else share
            weights.append(self.outside + (1 - self.outside) * share)
        return torch.stack(weights)


def find_regions(records: Sequence[Record], shape: Sequence[int], outside: float, *, size: int = 512, fit: str = "crop") -> Regions:
    """Read each mask, for latents of a shape (4, h, w).

    Raises DataError naming every mask that cannot be read, has another size than the images, or leaves nothing that counts.
    """
    shares, problems = [], Problems("masks")
    for record in records:
        share = None
        if record.mask is not None:
            try:
                share = _share(record, shape, outside, size, fit)
            except DataError as error:
                problems.add(record.mask, str(error))
        shares.append(share)
    problems.check(len(records), "Put them right, leave these records out, or switch masked off.")
    return Regions(shares, outside, shape)


def _share(record: Record, shape: Sequence[int], outside: float, size: int, fit: str) -> Tensor:
    mask = read_mask(record.mask, size, fit)
    if mask.shape[-2:] != (shape[-2] * SCALE, shape[-1] * SCALE):
        sides = f"{shape[-1] * SCALE} x {shape[-2] * SCALE}"
        raise DataError(f"{record.mask} is {mask.shape[-1]} x {mask.shape[-2]}, and its image {sides}")
    if not outside and not mask.any():
        raise DataError(f"{record.mask} marks nothing of what is left of the image, and what lies outside has no weight")
    return functional.avg_pool2d(mask, SCALE)


def check_masks(objective: ObjectiveOptions, records: Sequence[Record]) -> list[str]:
    """What to say of records without a mask. Raises DataError where not one has any."""
    if not objective.masked:
        return []
    without = sum(record.mask is None for record in records)
    if without == len(records):
        raise DataError(f"masked is on, and none of the {without} records has a mask. Give the data set masks, or switch masked off")
    return [f"{without} of {len(records)} records have no mask and count whole"] if without else []
