"""Which image of a set another image resembles most, also after a small shift, other brightness or contrast, or saving as JPEG.

Thumbnails give a few candidates, and the correlation of larger pictures over shifts decides between them. What a copy is, is set by
the data: see ``threshold.py``. Pixel correlation as a sign of memorised radiographs: Akbar, Wang and Eklund 2023, "Beware of diffusion
models for synthesizing medical images"; Dar et al. 2024, "Unconditional latent diffusion models memorize patient imaging data".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...config import option
from ...data.record import Record
from ..extractor import EXTRACTORS
from ..features import Features, extract
from .texture import shifted_correlation, texture

SIDE, FINE, COARSE = 256, 1.5, 6.0  # pixels
REACH = 3  # pixels of SIDE, in any direction: 6 of an image of 512
BLOCK = 256  # images compared at once
KEPT = 256  # textures in memory
MOST_NULL = 500  # images of other patients from which the threshold is set


@dataclass(frozen=True)
class CopyOptions:
    """What counts as a copy, and how closely it is looked for."""

    false_alarms: float = option(0.001, "Chance that an image of another patient is taken for a copy.", above=0, high=0.5, step=0.001)
    mirrored: bool = option(False, "Look for mirrored copies, too.")
    candidates: int = option(3, "Images that are compared closely with each, those whose thumbnails are most alike.", low=1, high=100,
                             advanced=True)


@dataclass(frozen=True)
class Match:
    """Of image ``index``, the ``other`` that it resembles most: their correlation from -1 to 1, the shift (down, right) in pixels of
    the image as read, whether it is mirrored, and whether both are the same file."""

    index: int
    other: int
    correlation: float
    shift: tuple[int, int] = (0, 0)
    mirrored: bool = False
    same_file: bool = False


def thumbnails(records: Sequence[Record], *, on_progress: Callable[[int, int], None] | None = None, **read: object) -> Features:
    """The features in which copies are looked for; ``read`` are further arguments of ``extract``."""
    kind = EXTRACTORS["thumbnail"]
    return extract(records, kind.prepare(kind.Config(), ()), on_progress=on_progress, **read)


def find_matches(images: Features, others: Features, options: CopyOptions | None = None, *, apart: bool = False,
                 on_progress: Callable[[int, int], None] | None = None) -> list[Match | None]:
    """The best match of each image; with ``apart`` among other patients' images alone, and None where there are none.

    Both are ``thumbnails``. An image without a patient is its own.
    """
    options = options or CopyOptions()
    places = {digest: place for place, digest in reversed(list(enumerate(others.hashes)))}
    units = [_patients(features) for features in (images, others)] if apart else None
    look = _Textures(images, others)
    found: list[Match | None] = []
    for start in range(0, len(images), BLOCK):
        likeness, mirrored = _likeness(images.values[start:start + BLOCK], others.values, options.mirrored)
        for row, index in enumerate(range(start, start + len(likeness))):
            same = places.get(images.hashes[index]) if not apart else None
            if units is not None:
                likeness[row, units[1] == units[0][index]] = -np.inf
            found.append(Match(index, same, 1.0, same_file=True) if same is not None
                         else look.best(index, _first(likeness[row], options.candidates), mirrored[row]))
            if on_progress is not None:
                on_progress(index + 1, len(images))
    return found


def null_correlations(images: Features, others: Features, options: CopyOptions | None = None,
                      on_progress: Callable[[int, int], None] | None = None) -> list[float]:
    """The best correlation of images with those of other patients, for the threshold; of 500 at most, chosen by chance."""
    some = np.sort(np.random.default_rng(0).permutation(len(images))[:MOST_NULL])
    matches = find_matches(images.pick(some), others, options, apart=True, on_progress=on_progress)
    return [match.correlation for match in matches if match is not None]


def _likeness(images: NDArray, others: NDArray, mirrored: bool) -> tuple[NDArray, NDArray]:
    """Products of thumbnails (B, N), the larger of both ways round where mirrored ones count, and whether that is the mirrored."""
    plain = images @ others.T
    if not mirrored:
        return plain, np.zeros(plain.shape, bool)
    side = round(images.shape[1] ** 0.5)
    turned = images.reshape(-1, side, side)[:, :, ::-1].reshape(images.shape) @ others.T
    return np.maximum(plain, turned), turned > plain


def _first(likeness: NDArray, count: int) -> list[int]:
    """The places of the largest values that are allowed."""
    order = np.argsort(-likeness, kind="stable")[:count]
    return [int(place) for place in order if likeness[place] > -np.inf]


def _patients(features: Features) -> NDArray:
    """Patients by name; an image without one, and one that is known by its file alone, has the file's."""
    return np.array([record.patient if record.patient is not None else f"file {digest}"
                     for record, digest in zip(features.records, features.hashes)])


class _Textures:
    """Larger pictures of images, read when they are asked for."""

    def __init__(self, images: Features, others: Features):
        self.scale = images.size / SIDE
        self.images, self.others = images, others
        self._of_other = lru_cache(KEPT)(lambda place: _texture(others, place))

    def best(self, index: int, places: list[int], mirrored: NDArray) -> Match | None:
        """The match of an image among candidates."""
        if not places:
            return None
        image = _texture(self.images, index)
        matches = [self._compare(index, image, place, bool(mirrored[place])) for place in places]
        return max(matches, key=lambda match: match.correlation)

    def _compare(self, index: int, image: NDArray, place: int, mirrored: bool) -> Match:
        value, shift = shifted_correlation(image[:, ::-1] if mirrored else image, self._of_other(place), REACH)
        down, right = (round(pixels * self.scale) for pixels in shift)
        return Match(index, place, value, (down, right), mirrored)


def _texture(features: Features, index: int) -> NDArray:
    return texture(features.image(index)[None], SIDE, FINE, COARSE)[0].numpy()
