"""Intervals by the bootstrap over patients: percentile, and bias-corrected and accelerated (BCa, Efron 1987).

Patients are drawn with replacement, all images of one together, real and generated ones apart; a figure is given as a function of
how often each image counts, so that all draws are computed at once. It is for figures that are means, or ratios of means, over
images or pairs: drawing an image twice makes a set less diverse, and a Frechet distance or a Vendi score of it means another thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

FEWEST = 4  # patients below which no interval is given
BLOCK = 256  # draws computed at once


def bootstrap(figure: Callable[[np.ndarray, np.ndarray], np.ndarray], real: Sequence[str], fake: Sequence[str], *,
              repeats: int = 2000, kind: str = "percentile", value: float | None = None,
              without: Sequence[Sequence[float]] = (), seed: int = 0, level: float = 0.95) -> tuple[float | None, float | None]:
    """The interval (low, high) of a figure; (None, None) where either set has fewer than four patients.

    ``figure`` takes weights (B, N) and (B, M), how often each image counts, and gives (B,). ``real`` and ``fake`` name the patient
    of each image. "bca" needs the figure's ``value`` and its values with each group left out, of real and of generated images.
    """
    draws = draw(figure, real, fake, repeats, seed)
    if draws is None:
        return None, None
    tail = (1 - level) / 2
    shares = (tail, 1 - tail) if kind == "percentile" else _bca_shares(draws, value, without, tail)
    low, high = np.quantile(draws, shares)
    return float(low), float(high)


def draw(figure: Callable[[np.ndarray, np.ndarray], np.ndarray], real: Sequence[str], fake: Sequence[str], repeats: int,
         seed: int = 0) -> np.ndarray | None:
    """The figures (repeats,) of as many draws, without those that are not finite; None where there is no interval to be had."""
    if min(len(set(real)), len(set(fake))) < FEWEST:
        return None
    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, repeats, BLOCK):
        count = min(BLOCK, repeats - start)
        found.append(figure(weights(real, count, generator), weights(fake, count, generator)))
    values = np.concatenate(found)
    values = values[np.isfinite(values)]
    return values if len(values) > repeats // 2 else None


def weights(units: Sequence[str], count: int, generator: np.random.Generator) -> np.ndarray:
    """How often each image counts in each of ``count`` draws of patients with replacement: (count, N)."""
    _, place = np.unique(np.asarray(units), return_inverse=True)
    patients = int(place.max()) + 1
    drawn = generator.multinomial(patients, np.full(patients, 1 / patients), size=count)
    return drawn[:, place].astype(np.float64)


def _bca_shares(draws: np.ndarray, value: float, without: Sequence[Sequence[float]], tail: float) -> tuple[float, float]:
    """The shares of the draws that bound a BCa interval."""
    from scipy.stats import norm

    below = np.clip(np.mean(draws < value) + np.mean(draws == value) / 2, 1 / (len(draws) + 1), len(draws) / (len(draws) + 1))
    bias, acceleration = norm.ppf(below), _acceleration(without)
    ends = bias + norm.ppf([tail, 1 - tail])
    return tuple(norm.cdf(bias + ends / (1 - acceleration * ends)))


def _acceleration(without: Sequence[Sequence[float]]) -> float:
    """The skewness of the jackknife's influences, of both sets of images together."""
    influences = [np.mean(values) - np.asarray(values) for values in without if len(values)]
    joined = np.concatenate([part * (len(part) - 1) / len(part) for part in influences]) if influences else np.zeros(1)
    squares = (joined**2).sum()
    return float((joined**3).sum() / (6 * squares**1.5)) if squares > 0 else 0.0
