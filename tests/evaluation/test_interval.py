"""The jackknife's intervals: patients stay together, and the spread is that of fresh images."""

from __future__ import annotations

import numpy as np
import pytest
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric
from medtune.evaluation.uncertainty.interval import assign_groups, interval, spread


def test_patients_stay_in_one_group_and_groups_are_even():
    patients = [f"p{i // 3}" for i in range(60)] + ["many"] * 6
    groups = assign_groups(patients, 5)
    assert all(len(set(groups[[i for i, name in enumerate(patients) if name == patient]])) == 1 for patient in set(patients))
    sizes = np.bincount(groups)
    assert len(sizes) == 5 and sizes.max() - sizes.min() <= 6
    assert set(assign_groups(["a", "b"], 5)) == {0, 1}


def test_groups_do_not_follow_the_order_of_the_images():
    """Images whose classes take turns: a group must not hold one class alone."""
    groups = assign_groups([f"{i:03d}" for i in range(120)], 20)
    classes = np.arange(120) % 20
    assert all(len(set(classes[groups == group])) > 2 for group in range(20))


def test_for_a_mean_it_is_the_standard_error():
    values = np.random.default_rng(0).normal(size=(40, 1))
    without = [np.delete(values, index).mean() for index in range(40)]
    found = spread([without])
    assert found[0] == pytest.approx(values.std(ddof=1) / np.sqrt(40))
    low, high = interval(values.mean(), [without])
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.0227 * found[0], rel=1e-3)  # Student's t, 39 degrees of freedom


def test_too_few_groups_give_no_interval():
    assert interval(1.0, [[1.0, 1.1, 0.9]]) == (None, None)
    assert interval(1.0, [[1.0] * 8, [1.0]]) == (None, None)


def test_a_figure_that_nothing_moves_has_none():
    """A share of 0 in every group: an interval from 0 to 0 would claim what is not known."""
    assert interval(0.0, [[0.0] * 20, [0.0] * 20]) == (None, None)
    assert interval(0.0, [[0.0] * 20, [0.0, 0.1] * 10])[0] < 0


def test_it_is_cut_at_the_least_value():
    rng = np.random.default_rng(0)
    score = make_metric("frechet").score(Features(rng.normal(size=(400, 2))), Features(rng.normal(size=(400, 2))))
    half = interval(score.value, [score.without_real, score.without_fake])[1] - score.value
    assert score.low == 0.0 and score.value - half < 0


@pytest.mark.parametrize("name, dims", [("frechet", 4), ("frechet", 64), ("kid", 16), ("vendi", 16)])
def test_the_width_is_that_of_fresh_images(name, dims):
    """Mean half width against the spread of the figure over fresh draws of both sets: about 2 standard deviations."""
    metric, scores = make_metric(name), []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        scores.append(metric.score(Features(rng.normal(size=(40, dims)) + 0.5), Features(1.3 * rng.normal(size=(40, dims)))))
    actual = np.std([score.value for score in scores], ddof=1)
    half = np.mean([(score.high - score.value) for score in scores])
    assert 1.2 < half / actual < 4.0
