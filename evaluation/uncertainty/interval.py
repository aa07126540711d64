"""Intervals by the delete-a-group jackknife over patients.

Each group of patients is left out in turn, of the real and of the generated images; the spread of the figures tells how far the
figure would move with other images of the same kind and number. Unlike the bootstrap it never shows a metric the same image
twice, which would lower the diversity that Frechet distance and Vendi score measure. The figure's dependence on the number of
images (its bias) stays in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...files import hash_json

FEWEST_GROUPS = 4
ROUNDING = 1e-12  # of a figure: what moves it less does not move it


def assign_groups(patients: Sequence[str], count: int) -> np.ndarray:
    """The group (N,) of each image, each patient's images in one group, all groups of about one size; at most ``count`` groups."""
    sizes: dict[str, int] = {}
    for patient in patients:
        sizes[patient] = sizes.get(patient, 0) + 1
    shuffled = [sorted(sizes)[i] for i in np.random.default_rng(0).permutation(len(sizes))]
    filled = np.zeros(max(1, min(count, len(sizes))), dtype=int)
    group = {}
    for patient in sorted(shuffled, key=lambda patient: -sizes[patient]):  # stable: equal sizes stay shuffled
        group[patient] = int(filled.argmin())
        filled[group[patient]] += sizes[patient]
    return np.array([group[patient] for patient in patients])


@dataclass(frozen=True)
class Groups:
    """The group of each image; the ``key`` is one for sets that hold the same patients in the same groups."""

    each: np.ndarray
    key: str

    @classmethod
    def of(cls, units: Sequence[str], count: int) -> Groups:
        """Groups of images by patient, or by whatever else belongs together."""
        each = assign_groups(units, count)
        return cls(each, hash_json(sorted(zip(units, each.tolist())))[:16])


def spread(without: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """(standard error, degrees of freedom) of a figure from its values with each group left out, a sequence for each set of images.

    None where a set has too few groups.
    """
    if any(len(values) < FEWEST_GROUPS for values in without):
        return None
    variance = sum((len(values) - 1) * np.var(values) for values in map(np.asarray, without))
    return float(np.sqrt(variance)), min(len(values) for values in without) - 1


def interval(value: float, without: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """The 95 % interval (low, high) around a figure; (None, None) with too few groups, or where leaving out none of them moves it.

    A figure that nothing moves, such as a share of 0, is uncertain all the same: by how much, the jackknife cannot say.
    """
    found = spread(without)
    if found is None or found[0] <= ROUNDING * abs(value):
        return None, None
    half = quantile(found[1]) * found[0]
    return value - half, value + half


def quantile(degrees: int, share: float = 0.975) -> float:
    """Student's t below which the share of draws lies."""
    from scipy.stats import t

    return float(t.ppf(share, degrees))
