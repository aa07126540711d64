"""Precision, recall, density and coverage against their authors' package and a double loop, and what is left without a group."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from medtune.evaluation.features import Features
from medtune.evaluation.measures import neighbours
from medtune.evaluation.measures.neighbours import squared_distances
from medtune.evaluation.metric import make_metric
from medtune.evaluation.uncertainty.interval import assign_groups

NAMES = ["precision", "recall", "density", "coverage"]
SHAPES = [(40, 30, 64), (120, 90, 8), (30, 100, 4)]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_they_equal_prdc(normal, shape, k):
    prdc = pytest.importorskip("prdc")
    real, fake = normal(shape[0], shape[2], 1), normal(shape[1], shape[2], 2, 0.9, 0.2)
    expected = prdc.compute_prdc(real, fake, k)
    found = {name: make_metric(name, k=k, groups=0).score(Features(real), Features(fake)).value for name in NAMES}
    assert found == pytest.approx(expected, abs=1e-6)


def test_they_equal_their_definitions(normal):
    real, fake, k = normal(30, 4, 1), normal(25, 4, 2, 0.8), 3

    def radius(values, index):
        return sorted(np.linalg.norm(values - values[index], axis=1))[k]  # the first is the image itself

    inside = np.array([[np.linalg.norm(x - y) <= radius(real, i) for y in fake] for i, x in enumerate(real)])
    around = np.array([[np.linalg.norm(x - y) <= radius(fake, j) for j, y in enumerate(fake)] for x in real])
    expected = {"precision": inside.any(0).mean(), "recall": around.any(1).mean(), "density": inside.sum() / k / len(fake),
                "coverage": inside.any(1).mean()}
    found = {name: make_metric(name, k=k, groups=0).score(Features(real), Features(fake)).value for name in NAMES}
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_group_they_are_those_of_the_others(normal, name):
    real, fake = Features(normal(60, 6, 1)), Features(normal(50, 6, 2, 0.8))
    a, b = assign_groups([str(i // 2) for i in range(60)], 7), assign_groups([str(i) for i in range(50)], 5)
    metric = make_metric(name)
    without_real, without_fake = metric.without(real, fake, a, b)
    assert without_real == pytest.approx([metric.figure(real.pick(np.flatnonzero(a != g)), fake) for g in range(7)], abs=1e-9)
    assert without_fake == pytest.approx([metric.figure(real, fake.pick(np.flatnonzero(b != g))) for g in range(5)], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_images_for_the_neighbours_are_a_reason(normal, name):
    score = make_metric(name, k=9, least=2).score(Features(normal(9, 4, 1)), Features(normal(9, 4, 2)))
    assert score.value is None and "9 nearest neighbours need at least 10" in score.reason
    barely = make_metric(name, k=9, least=2).score(Features(normal(10, 4, 1)), Features(normal(10, 4, 2)))
    assert barely.value is not None and barely.low is None  # too few to leave any out


def test_copies_lie_in_balls_of_no_size():
    """Real images that are two, over and over: a copy of one is in, anything else out, whatever rounding says."""
    rng = np.random.default_rng(0)
    two = rng.normal(size=(2, 64)).astype(np.float32) + 100
    real, copies = Features(np.repeat(two, 10, axis=0)), Features(np.repeat(two, 8, axis=0))
    others = Features(two[0] + 1e-3 * rng.normal(size=(15, 64)).astype(np.float32))
    for name in NAMES:
        assert make_metric(name).score(real, copies).value >= 1
        assert name == "recall" or make_metric(name).score(real, others).value == 0  # its balls are around the others


def test_mode_collapse_keeps_precision_and_loses_recall(normal):
    """Eight kinds of images; the generated ones are of two, or all but one of them copies."""
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(8, 16))
    real = Features((centres[np.arange(160) % 8] + rng.normal(size=(160, 16))).astype(np.float32))
    good = Features((centres[np.arange(160) % 8] + rng.normal(size=(160, 16))).astype(np.float32))
    two = Features((centres[np.arange(160) % 2] + rng.normal(size=(160, 16))).astype(np.float32))
    found = {name: [make_metric(name).score(real, fake).value for fake in (good, two)] for name in NAMES}
    for name in ("precision", "density"):
        assert found[name][1] > 0.9 * found[name][0] > 0.6
    for name in ("recall", "coverage"):
        assert found[name][1] < 0.3 and found[name][0] > 0.7


def test_distances_are_those_of_scipy(normal):
    from scipy.spatial.distance import cdist

    x, y = normal(50, 37, 1, shift=5).astype(float), normal(40, 37, 2, shift=5).astype(float)
    assert np.allclose(np.sqrt(squared_distances(x, y)), cdist(x, y), atol=1e-5)
    assert (np.diag(squared_distances(x, x)) == 0).all()  # copies lie at no distance, whatever rounding says


def test_distances_are_kept_as_long_as_the_features(normal):
    real, fake = Features(normal(20, 4, 1)), Features(normal(20, 4, 2))
    before = len(neighbours._KEPT)
    for name in NAMES:
        make_metric(name).score(real, fake)
    assert len(neighbours._KEPT) == before + 1
    del real, fake
    gc.collect()
    assert len(neighbours._KEPT) == before
