"""Images -> features, each image once: what was computed before is read from a cache that survives any interruption."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

TEXTS = 64  # captions embedded at once


@dataclass(frozen=True)
class Features:
    """Features (N, D) float32 of images, with the images' records (or none) and the extractor they come from.

    ``texts`` (N, D) are the captions' features where the extractor reads text; ``size`` and ``fit`` say how the images were read.
    """

    values: np.ndarray
    records: tuple[Record, ...] = ()
    extractor: Extractor | None = None
    hashes: tuple[str, ...] = ()
    texts: np.ndarray | None = None
    size: int = 512
    fit: str = "crop"

    @property
    def extractor_id(self) -> str:
        return self.extractor.id if self.extractor is not None else ""

    def __len__(self) -> int:
        return len(self.values)

    def pick(self, indices: Sequence[int] | np.ndarray) -> Features:
        """The features of some of the images."""
        indices = np.asarray(indices, dtype=int)
        return replace(self, values=self.values[indices], records=tuple(self.records[i] for i in indices) if self.records else (),
                       hashes=tuple(self.hashes[i] for i in indices) if self.hashes else (),
                       texts=self.texts[indices] if self.texts is not None else None)

    def units(self) -> list[str]:
        """What is drawn as one: the images of a patient; a generated image with its prompt and seed; else each image by itself.

        Images that several arms drew from the same prompts and seeds so belong together.
        """
        if not self.records:
            return [f"image {index}" for index in range(len(self))]
        drawn = Counter((record.caption, record.seed) for record in self.records)
        return [f"patient {record.patient}" if record.patient is not None
                else f"{record.caption} #{record.seed}" if record.seed is not None and drawn[record.caption, record.seed] == 1
                else f"image {index}" for index, record in enumerate(self.records)]

    def image(self, index: int) -> torch.Tensor:
        """One of the images, (3, H, W) float32 in [0, 1], as the extractor was given it."""
        return read_image(self.records[index].image, self.size, self.fit)


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
    return Features(np.stack([values[digest] for digest in hashes]), tuple(records), extractor, tuple(hashes),
                    _texts(records, extractor, cache), size, fit)


def _texts(records: Sequence[Record], extractor: Extractor, cache: str | Path | None) -> np.ndarray | None:
    """Features (N, D) of the captions, each computed once; None for an extractor that does not read text."""
    if not extractor.reads_text:
        return None
    names = [hashlib.sha256(record.caption.encode()).hexdigest() for record in records]
    captions = {name: record.caption for name, record in zip(names, records)}
    with FeatureCache(cache, f"{extractor.id}-text") as known:
        values = known.get(list(captions))
        missing = [name for name in captions if name not in values]
        for start in range(0, len(missing), TEXTS):
            part = missing[start:start + TEXTS]
            with torch.inference_mode():
                computed = extractor.text_features([captions[name] for name in part]).float().cpu().numpy()
            fresh = dict(zip(part, computed))
            known.put(fresh)
            values.update(fresh)
    return np.stack([values[name] for name in names])


def _compute(records: list[Record], extractor: Extractor, size: int, fit: str) -> np.ndarray:
    images = torch.stack([read_image(record.image, size, fit) for record in records])
    with torch.inference_mode():
        values = extractor.features(images).float().cpu().numpy()
    broken = [record.image for record, finite in zip(records, np.isfinite(values).all(axis=1)) if not finite]
    if broken:
        raise DataError(f"{extractor.name} gives features that are not finite for {len(broken)} images: {listing(broken)}; "
                        "look at these images and leave them out")
    return values
