"""KID against its definition and scikit-learn's kernel."""

from __future__ import annotations

import numpy as np
import pytest
from medtune.evaluation.features import Features
from medtune.evaluation.measures.kernels import KernelSums
from medtune.evaluation.metric import make_metric
from medtune.evaluation.metrics.kid import kernel, kernel_distance
from medtune.evaluation.uncertainty.interval import assign_groups

SHAPES = [(40, 30, 64), (64, 40, 64), (65, 64, 64), (300, 200, 16), (30, 500, 64)]  # fewer images than dimensions, as many, more


@pytest.mark.parametrize("shape", SHAPES)
def test_kid_equals_a_double_loop(normal, shape):
    n, m, dims = min(shape[0], 40), min(shape[1], 35), shape[2]
    real, fake = normal(n, dims, 1).astype(float), normal(m, dims, 2, 1.3).astype(float)

    def k(x, y):
        return (float(x @ y) / dims + 1) ** 3

    expected = (sum(k(real[i], real[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
                + sum(k(fake[i], fake[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
                - 2 * sum(k(x, y) for x in real for y in fake) / (n * m))
    assert kernel_distance(real, fake) == pytest.approx(expected, rel=1e-9)
    score = make_metric("kid", groups=7).score(Features(real), Features(fake))
    assert score.value == pytest.approx(expected, rel=1e-9)  # in blocks, the same figure


def test_kid_without_a_group_is_kid_of_the_others(normal):
    real, fake = normal(30, 8, 1).astype(float), normal(20, 8, 2).astype(float)
    a, b = assign_groups([str(i) for i in range(30)], 5), assign_groups([str(i) for i in range(20)], 4)
    sums = KernelSums.of(real, fake, kernel, a, b)
    assert sums.distance(real_out=2) == pytest.approx(kernel_distance(real[a != 2], fake))
    assert sums.distance(fake_out=3) == pytest.approx(kernel_distance(real, fake[b != 3]))


def test_kid_is_unbiased(normal):
    """Over many small draws of one distribution the mean is 0, although the distance itself is never negative."""
    rng = np.random.default_rng(0)
    values = [kernel_distance(rng.normal(size=(12, 6)), rng.normal(size=(12, 6))) for _ in range(500)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_kid_equals_scikit_learns_kernel(normal):
    from sklearn.metrics.pairwise import polynomial_kernel

    real, fake = normal(60, 24, 1).astype(float), normal(50, 24, 2, 1.2).astype(float)
    within = [(gram.sum() - np.trace(gram)) / (len(gram) * (len(gram) - 1)) for gram in map(polynomial_kernel, (real, fake))]
    assert kernel_distance(real, fake) == pytest.approx(sum(within) - 2 * polynomial_kernel(real, fake).mean(), rel=1e-9)
