"""A small picture of each image's texture as its features: no network, no weights, the same on every machine.

Two features' product is the correlation of the two pictures, so that near-duplicates, also of other brightness and contrast, lie
close together. It says where pixels agree and nothing of what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.record import Record
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts
from ..privacy.texture import inner, texture, unit

SIDE, FINE, COARSE = 64, 1.0, 4.0  # pixels


@dataclass(frozen=True)
class ThumbnailConfig:
    """There is nothing to choose."""


@EXTRACTORS.register("thumbnail")
class Thumbnail(Extractor):
    """Textures of 64 x 64 pixels without their margins, of mean 0 and length 1: (N, 3136); 0 for a constant image."""

    name = "thumbnail"
    facts = ExtractorFacts(
        title="Thumbnails",
        says="a small picture of edges and markings, for finding copies and near-duplicates",
        paper="none: a difference of Gaussians",
        needs="nothing",
    )
    Config = ThumbnailConfig

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> Thumbnail:
        return cls()

    @property
    def id(self) -> str:
        return f"{self.name}-1-{SIDE}px-{FINE:g}-{COARSE:g}"

    def features(self, images: Tensor) -> Tensor:
        return unit(inner(texture(images, SIDE, FINE, COARSE)))
