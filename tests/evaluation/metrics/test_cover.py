"""That intervals cover: of known Gaussians the 95 % interval of an unbiased metric holds the true value in 90 to 98 % of draws."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric

REPEATS, COUNT, DIMS = 300, 60, 4
SHIFT = np.full(DIMS, 0.8)


def cube(a: np.ndarray, b: np.ndarray) -> float:
    """The mean of (x.y / D + 1)^3 over x from N(a, 1) and y from N(b, 1)."""
    ab, aa, bb = a @ b, a @ a, b @ b
    second, third = DIMS + aa + bb + ab**2, ab**3 + 3 * ab * (aa + bb + DIMS + 2)
    return third / DIMS**3 + 3 * second / DIMS**2 + 3 * ab / DIMS + 1


@functools.cache
def true_kid() -> float:
    zero = np.zeros(DIMS)
    return cube(zero, zero) + cube(SHIFT, SHIFT) - 2 * cube(zero, SHIFT)


@functools.cache
def true_cmmd() -> float:
    """The mean over a million pairs of each kind; good to a hundredth of the figure's own spread."""
    rng = np.random.default_rng(1)

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        x, y = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (rng.normal(size=(1_000_000, DIMS)) + shift
                                                                                      for shift in (a, b)))
        return float(np.exp(((x * y).sum(1) - 1) / 100).mean())

    zero = np.zeros(DIMS)
    return 1000 * (mean(zero, zero) + mean(SHIFT, SHIFT) - 2 * mean(zero, SHIFT))


@pytest.mark.parametrize("interval", ["jackknife", "percentile", "bca"])
@pytest.mark.parametrize("name, true", [("kid", true_kid), ("cmmd", true_cmmd)])
def test_intervals_cover(name, true, interval, record_property):
    rng, metric, value, held = np.random.default_rng(7), make_metric(name, interval=interval, repeats=400), true(), 0
    for _ in range(REPEATS):
        real, fake = (Features(rng.normal(size=(COUNT, DIMS)) + shift) for shift in (0, SHIFT))
        score = metric.score(real, fake)
        held += score.low <= value <= score.high
    record_property("measured", {f"cover of {name} by {interval}": held / REPEATS})
    assert 0.90 <= held / REPEATS <= 0.98
