"""FD infinity on Gaussians whose distance is known, and where it cannot be had."""

from __future__ import annotations

import numpy as np
import pytest
from medtune.evaluation.features import Features
from medtune.evaluation.measures.gaussians import frechet_distance
from medtune.evaluation.metric import make_metric
from medtune.evaluation.metrics.fd_infinity import extrapolate


def test_a_straight_line_is_drawn_to_its_end():
    shares = np.array([1, 0.75, 0.5])
    assert extrapolate(shares, list(3 + 4 / shares)) == pytest.approx(3, rel=1e-9)


def test_it_is_the_fit_of_scipy_over_disjoint_subsets(normal):
    import scipy.stats

    real, fake = normal(60, 4, 1).astype(float), normal(60, 4, 2, 1.2).astype(float)
    metric = make_metric("fd-infinity", sizes=2, smallest=0.5)
    a, b = (values[np.argsort(np.random.default_rng(0).permutation(60)[np.unique([f"image {i}" for i in range(60)],
                                                                                 return_inverse=True)[1]])] for values in (real, fake))
    half = (frechet_distance(a[:30], b[:30]) + frechet_distance(a[30:], b[30:])) / 2
    line = scipy.stats.linregress([1 / 60, 1 / 30], [frechet_distance(real, fake), half])
    assert metric.figure(Features(real), Features(fake)) == pytest.approx(line.intercept, rel=1e-6)


@pytest.mark.parametrize("dims, decay", [(16, 0.0), (32, 1.0)])
def test_it_comes_near_the_distance_of_the_distributions(dims, decay):
    """The mean over draws is within a tenth of the plain distance's error, and is hardly larger for fewer images."""
    scale = np.arange(1.0, dims + 1) ** (-decay / 2)
    true = 1 + 0.04 * (scale**2).sum()
    rng = np.random.default_rng(0)

    def draw(count):
        real, fake = (rng.normal(size=(count, dims)) * scale for _ in range(2))
        fake = fake * 1.2
        fake[:, 0] += 1
        return frechet_distance(real, fake), make_metric("fd-infinity").figure(Features(real), Features(fake))

    for count in (3 * dims, 6 * dims):
        plain, extrapolated = np.mean([draw(count) for _ in range(60)], axis=0)
        assert abs(extrapolated - true) < 0.2 * (plain - true)


def test_fewer_images_than_dimensions_are_a_reason(normal):
    score = make_metric("fd-infinity").score(Features(normal(60, 32, 1)), Features(normal(100, 32, 2)))
    assert score.value is None and "30 images in 32 dimensions" in score.reason and "at least 66" in score.reason
    assert make_metric("fd-infinity").score(Features(normal(66, 32, 1)), Features(normal(66, 32, 2))).value is not None


def test_the_seed_draws_the_subsets(normal):
    real, fake = Features(normal(60, 4, 1)), Features(normal(60, 4, 2))
    first, again, other = (make_metric("fd-infinity", seed=seed).figure(real, fake) for seed in (0, 0, 1))
    assert first == again != other
