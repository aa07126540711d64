"""Nearest neighbours among real and generated features, computed once for all metrics that ask about the same two sets."""

from __future__ import annotations

import hashlib
import weakref
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..features import Features
from ..metric import Metric, Undefined

ROUNDING = 64 * np.finfo(np.float64).eps
"""What is left of the squared distance of equal features, as a share of their squared lengths."""
BLOCK = 1024  # rows of distances computed at once


class BallMetric(Metric):
    """A figure of which images lie in balls around images of the other kind; ``config.k`` tells their radius.

    The balls are around the real images, or around the generated ones where ``around_fake`` says so.
    """

    around_fake: ClassVar[bool] = False

    @abstractmethod
    def share(self, across: np.ndarray, radii: np.ndarray) -> float:
        """The figure from the squared distances of centres to images (N, M) and the balls' squared radii (N,)."""

    def figure(self, real: Features, fake: Features) -> float:
        across, within = self._distances(real, fake)
        return self.share(across, Balls.of(within, self.config.k, self._kind).radii)

    def without(self, real: Features, fake: Features, real_groups: np.ndarray,
                fake_groups: np.ndarray) -> tuple[list[float], list[float]]:
        centres, others = (fake_groups, real_groups) if self.around_fake else (real_groups, fake_groups)
        across, within = self._distances(real, fake)
        balls = Balls.of(within, self.config.k, self._kind, int(np.bincount(centres).max()))
        of_centres = [self.share(across[centres != group], balls.without(centres, group)[centres != group])
                      for group in range(centres.max() + 1)]
        of_others = [self.share(across[:, others != group], balls.radii) for group in range(others.max() + 1)]
        return (of_others, of_centres) if self.around_fake else (of_centres, of_others)

    def _distances(self, real: Features, fake: Features) -> tuple[np.ndarray, np.ndarray]:
        """Of centres to the other images, and among the centres."""
        found = Distances.of(real.values, fake.values)
        return (found.across.T, found.fake) if self.around_fake else (found.across, found.real)

    @property
    def _kind(self) -> str:
        return "generated" if self.around_fake else "real"


@dataclass(frozen=True)
class Distances:
    """Squared distances (N, M) across, and those within each set, (N, N) and (M, M), where an image has none to itself."""

    across: np.ndarray
    real: np.ndarray
    fake: np.ndarray

    @classmethod
    def of(cls, real: np.ndarray, fake: np.ndarray) -> Distances:
        """The distances of features (N, D) and (M, D); they are kept as long as those are."""
        key = _digest(real) + _digest(fake)
        if key not in _KEPT:
            _KEPT[key] = cls._measure(real.astype(np.float64), fake.astype(np.float64))
            for values in (real, fake):
                weakref.finalize(values, _KEPT.pop, key, None)
        return _KEPT[key]

    @classmethod
    def _measure(cls, real: np.ndarray, fake: np.ndarray) -> Distances:
        centre = real.mean(0)
        real, fake = real - centre, fake - centre  # less is lost where the features lie far from zero
        within = [squared_distances(values, values) for values in (real, fake)]
        for distances in within:
            np.fill_diagonal(distances, np.inf)
        return cls(squared_distances(real, fake), *within)


_KEPT: dict[str, Distances] = {}


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The squared distance (N, M) float32 of each pair of features (N, D), (M, D); 0 where rounding is all that is left of it."""
    found = np.empty((len(x), len(y)), np.float32)
    lengths_x, lengths_y = (x * x).sum(1)[:, None], (y * y).sum(1)
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        lengths = lengths_x[rows] + lengths_y
        block = lengths - 2 * (x[rows] @ y.T)
        block[block < ROUNDING * lengths] = 0
        found[rows] = block
    return found


@dataclass(frozen=True)
class Balls:
    """Balls around each image, as far as its k-th nearest neighbour of the same set: ``radii`` (N,), squared.

    ``near`` and ``who`` (N, K) are the squared distances and the places of the nearest, in order, so many that k are left
    without any one group of images.
    """

    radii: np.ndarray
    near: np.ndarray
    who: np.ndarray
    k: int

    @classmethod
    def of(cls, within: np.ndarray, k: int, kind: str, largest: int = 0) -> Balls:
        """The balls of a set with squared distances (N, N); ``largest`` is the size of the largest group to be left out.

        Undefined where there are not enough images.
        """
        if len(within) <= k:
            raise Undefined(f"{len(within)} {kind} images; {k} nearest neighbours need at least {k + 1}")
        count = min(k + largest, len(within) - 1)
        who = np.argpartition(within, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(within, who, 1), axis=1, kind="stable")
        who = np.take_along_axis(who, order, 1)
        near = np.take_along_axis(within, who, 1)
        return cls(near[:, k - 1], near, who, k)

    def without(self, groups: np.ndarray, group: int) -> np.ndarray:
        """The squared radii (N,) when a group's images are no neighbours; Undefined where fewer than k others are left."""
        there = (groups[self.who] != group).cumsum(1)  # how many of the nearest are left, so far
        if (there[groups != group, -1] < self.k).any():
            raise Undefined(f"fewer than {self.k + 1} images are left")
        places = (there < self.k).sum(1).clip(max=self.near.shape[1] - 1)
        return np.take_along_axis(self.near, places[:, None], 1)[:, 0]


def _digest(values: np.ndarray) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(values), digest_size=16)
    digest.update(repr((values.shape, values.dtype.str)).encode())
    return digest.hexdigest()
