"""Pairs of a generated and a training image, ranked by their distance in features or by their pixels' correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..features import Features
from .copies import Match
from .neighbours import Neighbours


@dataclass(frozen=True)
class Pair:
    """A generated and a training image, by their distance in features or by their pixels' correlation; ``n`` are the images compared.

    ``shift`` (down, right) in pixels and ``mirrored`` say how the generated one lies over the other; ``copy``: it counts as one.
    """

    fake: Path
    train: Path
    measure: str
    value: float
    n: tuple[int, int]
    held_out_distance: float | None = None
    shift: tuple[int, int] = (0, 0)
    mirrored: bool = False
    copy: bool = False
    same_file: bool = False

    def to_json(self) -> dict[str, Any]:
        """The pair as JSON values."""
        return asdict(self) | {"fake": str(self.fake), "train": str(self.train), "n": list(self.n), "shift": list(self.shift)}


def nearest_pairs(found: Neighbours, train: Features, fake: Features, count: int) -> list[Pair]:
    """The pairs that are nearest in features."""
    order = np.argsort(found.to_train.distances, kind="stable")[:count]
    return [Pair(fake.records[i].image, train.records[found.to_train.places[i]].image, "distance", float(found.to_train.distances[i]),
                 (len(fake), len(train)), held_out_distance=float(found.to_held.distances[i]),
                 same_file=fake.hashes[i] == train.hashes[found.to_train.places[i]]) for i in order]


def alike_pairs(matches: Sequence[Match], copied: np.ndarray, train: Features, fake: Features, count: int) -> list[Pair]:
    """The pairs whose pixels correlate most."""
    order = sorted(matches, key=lambda match: (-match.correlation, not match.same_file))[:count]
    return [Pair(fake.records[match.index].image, train.records[match.other].image, "correlation", match.correlation,
                 (len(fake), len(train)), shift=match.shift, mirrored=match.mirrored, copy=bool(copied[match.index]),
                 same_file=match.same_file) for match in order]


def rows(found: Neighbours, matches: Sequence[Match], copied: np.ndarray, features: Mapping[str, Features]) -> list[dict[str, Any]]:
    """One row a generated image: its nearest images by features, the ratio among equally many, and its most alike by pixels."""
    train, held_out, fake = (features[name].records for name in ("train", "held_out", "fake"))
    ratios = found.ratios()
    return [{"fake": str(record.image), "caption": record.caption, "seed": record.seed,
             "train": str(train[found.to_train.places[i]].image), "train_distance": float(found.to_train.distances[i]),
             "held_out": str(held_out[found.to_held.places[i]].image), "held_out_distance": float(found.to_held.distances[i]),
             "ratio": float(ratios[i]) if np.isfinite(ratios[i]) else None, "alike": str(train[matches[i].other].image),
             "correlation": matches[i].correlation, "shift": list(matches[i].shift), "mirrored": matches[i].mirrored,
             "copy": bool(copied[i]), "same_file": matches[i].same_file} for i, record in enumerate(fake)]
