"""Images -> features, each image once: what was computed before is read from a cache that survives any interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.image import hash_image, read_image
from ..data.record import Record
from ..errors import DataError, listing
from .feature_cache import FeatureCache

if TYPE_CHECKING:
    from .extractor import Extractor


@dataclass(frozen=True)
class Features:
    """Features (N, D) float32 of images, with the images' records (or none) and the extractor they come from."""

    values: np.ndarray
    records: tuple[Record, ...] = ()
    extractor: Extractor | None = None
    hashes: tuple[str, ...] = ()

    @property
    def extractor_id(self) -> str:
        return self.extractor.id if self.extractor is not None else ""

    def __len__(self) -> int:
        return len(self.values)

    def pick(self, indices: Sequence[int]) -> Features:
        """The features of some of the images."""
        indices = list(indices)
        return Features(self.values[indices], tuple(self.records[i] for i in indices) if self.records else (), self.extractor,
                        tuple(self.hashes[i] for i in indices) if self.hashes else ())

    def patients(self) -> list[str]:
        """The patient of each image; an image without one is its own patient."""
        named = [record.patient for record in self.records] or [None] * len(self)
        return [f"patient {patient}" if patient is not None else f"image {index}" for index, patient in enumerate(named)]


def extract(records: Sequence[Record], extractor: Extractor, cache: str | Path | None = None, *, size: int = 512, fit: str = "crop",
            batch: int = 16, on_progress: Callable[[int, int], None] | None = None) -> Features:
    """Features of every record's image.

    All images, real and generated, go the same way: read at ``size`` by ``fit``, then resized by the extractor. ``cache`` is a folder;
    without one nothing is kept. Raises DataError for images that cannot be read and for features that are not finite.
    """
    if not records:
        raise DataError("no images to extract features from; check the data set and its split")
    hashes = [hash_image(record.image) for record in records]
    with FeatureCache(cache, f"{extractor.id}-{size}-{fit}") as known:
        values = known.get(hashes)
        first: dict[str, int] = {}
        for index, digest in enumerate(hashes):
            first.setdefault(digest, index)
        missing = [index for digest, index in first.items() if digest not in values]
        for start in range(0, len(missing), batch):
            indices = missing[start:start + batch]
            computed = _compute([records[index] for index in indices], extractor, size, fit)
            fresh = {hashes[index]: vector for index, vector in zip(indices, computed)}
            known.put(fresh)
            values.update(fresh)
            if on_progress is not None:
                on_progress(len(records) - len(missing) + start + len(indices), len(records))
    return Features(np.stack([values[digest] for digest in hashes]), tuple(records), extractor, tuple(hashes))


def _compute(records: list[Record], extractor: Extractor, size: int, fit: str) -> np.ndarray:
    images = torch.stack([read_image(record.image, size, fit) for record in records])
    with torch.inference_mode():
        values = extractor.features(images).float().cpu().numpy()
    broken = [record.image for record, finite in zip(records, np.isfinite(values).all(axis=1)) if not finite]
    if broken:
        raise DataError(f"{extractor.name} gives features that are not finite for {len(broken)} images: {listing(broken)}; "
                        "look at these images and leave them out")
    return values
