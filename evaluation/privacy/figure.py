"""One figure of what generated images give away of the training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..metric import Weighted
from ..uncertainty.bootstrap import bootstrap


@dataclass(frozen=True)
class PrivacyFigure:
    """``value`` with its 95 % interval, or null with the ``reason``; ``expected`` is the value where nothing was memorised, or None
    where that is not known; ``n`` are the numbers of images that it comes from, by set."""

    name: str
    title: str
    says: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    expected: float | None = None
    n: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The figure as JSON values."""
        return asdict(self) | {"n": dict(self.n)}


def bounds(figure: Weighted, first: Sequence[str], second: Sequence[str], value: float, *, share: bool = False,
           repeats: int = 2000, seed: int = 0) -> tuple[float | None, float | None]:
    """The percentile bootstrap's interval over patients of both sets.

    A ``share`` of 0 or 1 is the same in every draw: its interval ends where so extreme a share would come up in one of 40 repeats,
    with as many independent images of the second set as it has patients.
    """
    low, high = bootstrap(figure, first, second, repeats=repeats, seed=seed)
    if low is None or not share or value not in (0, 1):
        return low, high
    reach = 1 - 0.025 ** (1 / len(set(second)))
    return (low, max(high, reach)) if value == 0 else (min(low, 1 - reach), high)


def over_patients(figure: PrivacyFigure, weighted: Weighted, first: Sequence[str], second: Sequence[str], *, repeats: int = 2000,
                  seed: int = 0) -> PrivacyFigure:
    """A share with the value that it has when each image counts once, and its interval over patients of both sets."""
    value = float(weighted(np.ones((1, len(first))), np.ones((1, len(second))))[0])
    low, high = bounds(weighted, first, second, value, share=True, repeats=repeats, seed=seed)
    return replace(figure, value=value, low=low, high=high)


def chance_below(first: np.ndarray, second: np.ndarray) -> Weighted:
    """The chance that one of the second values (M,) is below one of the first (N,), ties counting half, by how often each counts."""
    ordered = np.sort(first)
    order = np.argsort(first, kind="stable")
    below, upto = (np.searchsorted(ordered, second, side) for side in ("left", "right"))

    def figure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        total = np.pad(a[:, order].cumsum(1), ((0, 0), (1, 0)))  # (B, N + 1)
        above = total[:, -1:] - 0.5 * (total[:, below] + total[:, upto])  # (B, M)
        return (b * above).sum(1) / (total[:, -1] * b.sum(1))

    return figure


def quantile_of(values: np.ndarray, share: float) -> Weighted:
    """The quantile of values (M,) as a function of how often each counts, the second weights (B, M)."""
    order = np.argsort(values, kind="stable")

    def figure(_: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return weighted_quantile(values[order], counts[:, order], share)

    return figure


def weighted_quantile(ordered: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """The quantile (B,) of ordered values (M,), each counted as often as (B, M) says: the first that the share does not exceed."""
    total = counts.cumsum(1)
    return ordered[(total < share * total[:, -1:] - 1e-9).sum(1)]
