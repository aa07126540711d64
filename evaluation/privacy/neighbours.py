"""The nearest training image and the nearest held-out image of each generated one, in the features of any extractor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import option
from ...errors import DataError
from ..features import Features
from ..metric import check_pair

BLOCK = 512  # images compared at once
DISTANCES = ("euclidean", "cosine")


@dataclass(frozen=True)
class NeighbourOptions:
    """How nearness is measured."""

    distance: str = option("euclidean", "Distance of two images' features. The figures are ratios and shares: no scale matters.",
                           choices=DISTANCES)
    repeats: int = option(2000, "Draws of the bootstrap.", low=100, high=100_000, advanced=True)
    seed: int = option(0, "Seed of the subsets of equal size and of the bootstrap.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class Nearest:
    """For each of some images the place (N,) of the nearest of others, and its distance (N,)."""

    places: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of generated and of held-out ones.

    ``to_train`` and ``held_to_train`` are among all training images; ``to_part`` and ``to_held`` among equally many of both sets,
    ``n`` each, with places in the whole sets.
    """

    to_train: Nearest
    held_to_train: Nearest
    to_part: Nearest
    to_held: Nearest
    n: int

    def ratios(self) -> np.ndarray:
        """Distance to the nearest training image over that to the nearest held-out image (M,), among equally many; NaN for 0/0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.to_part.distances / self.to_held.distances


def find_neighbours(train: Features, held_out: Features, fake: Features, options: NeighbourOptions | None = None) -> Neighbours:
    """The nearest neighbours, of features of one extractor. DataError where a set is empty or they are of different spaces."""
    options = options or NeighbourOptions()
    for name, features in (("training", train), ("held-out", held_out), ("generated", fake)):
        if not len(features):
            raise DataError(f"there are no {name} images; give some")
        check_pair(features, fake)
    values = {name: prepared(features.values, options.distance) for name, features in
              (("train", train), ("held_out", held_out), ("fake", fake))}
    n = min(len(train), len(held_out))
    parts = {name: np.sort(np.random.default_rng([options.seed, number]).permutation(len(values[name]))[:n])
             for number, name in enumerate(("train", "held_out"))}
    to_train = nearest(values["fake"], values["train"])
    return Neighbours(to_train, nearest(values["held_out"], values["train"]), _among(values["fake"], values["train"], parts["train"]),
                      _among(values["fake"], values["held_out"], parts["held_out"]), n)


def prepared(values: np.ndarray, distance: str) -> np.ndarray:
    """Features (N, D) whose Euclidean distances are those asked for; cosine distances are 1 - cosine, half the square of these."""
    values = values.astype(np.float64)
    if distance == "euclidean":
        return values
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-30)


def nearest(images: np.ndarray, others: np.ndarray, apart: bool = False) -> Nearest:
    """The nearest of others (M, D) to each image (N, D), by Euclidean distance; with ``apart`` not the one at its own place."""
    squares = (others**2).sum(1)
    places = []
    for start in range(0, len(images), BLOCK):
        gaps = squares - 2 * images[start:start + BLOCK] @ others.T  # but for each image's own square
        if apart:
            rows = np.arange(len(gaps))
            gaps[rows, start + rows] = np.inf
        places.append(gaps.argmin(1))
    found = np.concatenate(places)
    return Nearest(found, np.linalg.norm(images - others[found], axis=1))  # anew: the difference of squares is rough near 0


def _among(images: np.ndarray, others: np.ndarray, some: np.ndarray) -> Nearest:
    found = nearest(images, others[some])
    return Nearest(some[found.places], found.distances)
