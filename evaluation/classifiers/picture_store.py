"""Images as a classifier reads them, each decoded once and kept as bytes for all the networks that learn from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...data.image import read_image
from ...data.record import Record
from .in_domain import COMMON_SIZE
from .network import LearningOptions, resize

MOST = 4 * 2**30
"""Bytes of images that are kept; what comes after is decoded each time."""


class Pictures:
    """The images of records by index: (B, 1 or 3, size, size) float32 in [0, 1]."""

    def __init__(self, records: Sequence[Record], options: LearningOptions):
        self.records, self.options, self.kept = tuple(records), options, {}
        self.room = MOST // ((3 if options.colour else 1) * options.size**2)

    def __len__(self) -> int:
        return len(self.records)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return torch.stack([self._bytes(int(index)) for index in indices]).float() / 255

    def _bytes(self, index: int) -> Tensor:
        found = self.kept.get(index)
        if found is None:
            image = read_image(self.records[index].image, COMMON_SIZE, self.options.fit)
            found = (resize(image[None], self.options)[0] * 255).round().clamp(0, 255).to(torch.uint8)
            if len(self.kept) < self.room:
                self.kept[index] = found
        return found
