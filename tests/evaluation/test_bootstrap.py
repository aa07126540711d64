"""The bootstrap over patients, against scipy's and against what is known of means."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric
from medtune.evaluation.uncertainty.bootstrap import bootstrap, weights


def mean_difference(real: np.ndarray, fake: np.ndarray):
    """The difference of the means, as a function of how often each image counts."""
    return lambda a, b: a @ real / a.sum(1) - b @ fake / b.sum(1)


def jackknife(values: np.ndarray, sign: int, other: float) -> list[float]:
    return [sign * np.delete(values, index).mean() - sign * other for index in range(len(values))]


@pytest.mark.parametrize("kind, name", [("percentile", "percentile"), ("bca", "BCa")])
def test_it_is_scipys(kind, name):
    rng = np.random.default_rng(0)
    real, fake = rng.exponential(size=40), rng.exponential(size=30)
    units = [str(i) for i in range(40)], [str(i) for i in range(30)]
    value = real.mean() - fake.mean()
    without = jackknife(real, 1, fake.mean()), jackknife(fake, -1, real.mean())
    ours = bootstrap(mean_difference(real, fake), *units, repeats=20_000, kind=kind, value=value, without=without)
    scipys = scipy.stats.bootstrap((real, fake), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=20_000, method=name,
                                   rng=np.random.default_rng(1)).confidence_interval
    width = scipys.high - scipys.low
    assert ours[0] == pytest.approx(scipys.low, abs=0.03 * width) and ours[1] == pytest.approx(scipys.high, abs=0.03 * width)
    assert bootstrap(mean_difference(real, fake), *units, repeats=500) == bootstrap(mean_difference(real, fake), *units, repeats=500)


def test_patients_are_drawn_whole():
    drawn = weights(["a", "b", "a", "c", "b"], 50, np.random.default_rng(0))
    assert drawn.shape == (50, 5)
    assert np.array_equal(drawn[:, 0], drawn[:, 2]) and np.array_equal(drawn[:, 1], drawn[:, 4])
    assert (drawn[:, [0, 1, 3]].sum(1) == 3).all() and len(np.unique(drawn[:, 3])) > 1


def test_images_of_one_patient_widen_the_interval():
    """Twelve patients whose images are copies say no more than twelve images."""
    values = np.random.default_rng(0).normal(size=12)
    many, fake = np.repeat(values, 10), np.zeros(8)
    others = [str(i) for i in range(8)]
    alone = bootstrap(mean_difference(values, fake), [str(i) for i in range(12)], others)
    together = bootstrap(mean_difference(many, fake), [str(i // 10) for i in range(120)], others)
    apart = bootstrap(mean_difference(many, fake), [str(i) for i in range(120)], others)
    assert together == pytest.approx(alone)
    assert apart[1] - apart[0] < 0.5 * (together[1] - together[0])


def test_one_patient_gives_no_interval():
    values = np.random.default_rng(0).normal(size=12)
    assert bootstrap(mean_difference(values, values), ["p"] * 12, [str(i) for i in range(12)]) == (None, None)


@pytest.mark.parametrize("kind", ["jackknife", "percentile", "bca"])
def test_kid_has_each_kind_of_interval(kind):
    rng = np.random.default_rng(0)
    real, fake = Features(rng.normal(size=(60, 8))), Features(1.2 * rng.normal(size=(50, 8)))
    score = make_metric("kid", interval=kind, repeats=500).score(real, fake)
    assert score.low < score.value < score.high and score.interval == kind


def test_a_metric_of_diversity_has_the_jackknife():
    rng = np.random.default_rng(0)
    score = make_metric("vendi", interval="bca").score(Features(rng.normal(size=(60, 8))), Features(rng.normal(size=(50, 8))))
    assert score.interval == "jackknife"


def test_kid_of_weights_of_one_is_kid():
    from medtune.evaluation.metrics.kid import kernel_distance

    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(30, 8)), rng.normal(size=(25, 8)) + 0.3
    figure = make_metric("kid").weighted(Features(real), Features(fake))
    assert figure(np.ones((1, 30)), np.ones((1, 25)))[0] == pytest.approx(kernel_distance(real, fake), rel=1e-9)
    chosen = np.r_[np.ones(20), np.zeros(10)][None], np.ones((1, 25))
    assert figure(*chosen)[0] == pytest.approx(kernel_distance(real[:20], fake), rel=1e-9)
