"""The area under the ROC curve (AUROC) with its interval, and the difference of two on the same images.

DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic curves",
Biometrics 1988, by midranks in O(N log N) (Sun and Xu, IEEE Signal Processing Letters 2014). Several images of one patient are
summed before their spread is taken (Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997); with one
image a patient that is DeLong's variance.

An image's placement is the share of images of the other kind that it is ranked rightly against. A mean over positives, or over
negatives, of placements is the AUROC, so that means over seeds and differences of networks are the same of placements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error, 95 % interval and two-sided p-value against ``null``.

    Interval and p are None where the error cannot be told: fewer than two patients of a kind, or images ranked without a fault.
    """

    value: float
    error: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def placements(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The placement (N,) of each image, in [0, 1]; ``truth`` (N,) says which are positive. ValueError without both kinds."""
    truth, scores = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise ValueError(f"{positives} positive and {negatives} negative images; an AUROC needs both")
    pooled, placed = _midranks(scores), np.empty(len(scores))
    placed[truth] = (pooled[truth] - _midranks(scores[truth])) / negatives
    placed[~truth] = 1 - (pooled[~truth] - _midranks(scores[~truth])) / positives
    return placed


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def auroc(truth: np.ndarray, scores: np.ndarray, units: Sequence[str] | None = None) -> Estimate:
    """The AUROC of scores (N,), its interval cut to [0, 1], p against 0.5. ``units`` name the patient of each image."""
    return of_placements(truth, placements(truth, scores), units)


def difference(truth: np.ndarray, first: np.ndarray, second: np.ndarray, units: Sequence[str] | None = None) -> Estimate:
    """First's AUROC minus second's on the same images, p against no difference."""
    return of_placements(truth, placements(truth, first) - placements(truth, second), units, paired=True)


def of_placements(truth: np.ndarray, placed: np.ndarray, units: Sequence[str] | None = None, paired: bool = False) -> Estimate:
    """The estimate from placements (N,), or from a mean of several, or, ``paired``, from a difference of two."""
    truth = np.asarray(truth, dtype=bool)
    return _estimate(float(placed[truth].mean()), variance(truth, placed, units), paired)


def mean_of_placements(truths: np.ndarray, placed: np.ndarray, units: Sequence[str] | None = None, paired: bool = False) -> Estimate:
    """The estimate of the mean over labels from truths (N, L) and placements (N, L): each label counts the same.

    The labels share their images, so that each patient's share in the mean is summed over the labels before its spread is taken.
    """
    truths = np.asarray(truths, dtype=bool)
    shares, means = np.zeros(len(truths)), []
    for truth, column in zip(truths.T, placed.T):
        means.append(column[truth].mean())
        shares += np.where(truth, column - column[truth].mean(), column - column[~truth].mean()) / _side_sizes(truth)
    summed = _by_unit(shares / truths.shape[1], units)
    count = len(summed)
    return _estimate(float(np.mean(means)), count / (count - 1) * float((summed**2).sum()) if count > 1 else None, paired)


def variance(truth: np.ndarray, placed: np.ndarray, units: Sequence[str] | None = None) -> float | None:
    """The variance of the mean placement; None with fewer than two patients that have, or lack, the finding."""
    value = placed[truth].mean()
    sides = [np.where(side, placed - value, 0.0) for side in (truth, ~truth)]  # (N,) each
    totals = [_by_unit(side, units) for side in sides]  # (patients,) each
    held = [int((_by_unit(side.astype(float), units) > 0).sum()) for side in (truth, ~truth)]
    if min(held) < 2:
        return None
    sizes = int(truth.sum()), int((~truth).sum())
    own = sum(n / (n - 1) * float((total**2).sum()) / size**2 for n, total, size in zip(held, totals, sizes))
    patients = len(totals[0])
    return max(0.0, own + 2 * patients / (patients - 1) * float((totals[0] * totals[1]).sum()) / (sizes[0] * sizes[1]))


def _side_sizes(truth: np.ndarray) -> np.ndarray:
    """How many images are of each image's own kind, (N,)."""
    return np.where(truth, truth.sum(), (~truth).sum())


def _by_unit(values: np.ndarray, units: Sequence[str] | None) -> np.ndarray:
    """Sums (patients,) over each patient's images; the values themselves where patients are not told."""
    if units is None:
        return values
    _, place = np.unique(np.asarray(units), return_inverse=True)
    return np.bincount(place, weights=values)


def _estimate(value: float, spread: float | None, paired: bool) -> Estimate:
    from scipy.stats import norm

    null, bounds = (0.0, (-1.0, 1.0)) if paired else (0.5, (0.0, 1.0))
    error = float(np.sqrt(spread)) if spread is not None else None
    if not error or error < 1e-12:
        return Estimate(value, error)
    half = float(norm.ppf(0.975)) * error
    low, high = (float(np.clip(bound, *bounds)) for bound in (value - half, value + half))
    return Estimate(value, error, low, high, float(2 * norm.sf(abs(value - null) / error)))
