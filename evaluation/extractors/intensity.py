"""Grey-level histograms of images: the space of the metric "intensity". They need no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.record import Record
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts

LEVELS = 256


@dataclass(frozen=True)
class IntensityConfig:
    """There is nothing to choose."""


@EXTRACTORS.register("intensity")
class Intensity(Extractor):
    """The share of an image's pixels at each grey level, the mean of its channels."""

    name = "intensity"
    facts = ExtractorFacts(
        title="Grey-level histogram",
        says="the share of an image's pixels at each of 256 grey levels",
        paper="Swain and Ballard 1991, Color Indexing",
        needs="nothing",
    )
    Config = IntensityConfig
    id = f"intensity-{LEVELS}"

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> Intensity:
        return cls()

    def features(self, images: Tensor) -> Tensor:
        levels = (images.mean(1) * (LEVELS - 1)).round().long().clamp(0, LEVELS - 1).flatten(1)  # (N, H W)
        counts = torch.stack([torch.bincount(row, minlength=LEVELS) for row in levels])
        return counts.float() / levels.shape[1]
