"""Metrics against closed forms and independent implementations, and what all of them owe a reader."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from medtune.errors import ConfigError, DataError, UnknownName
from medtune.evaluation.features import Features
from medtune.evaluation.metric import METRICS, Metric, make_metric
from medtune.evaluation.metrics.frechet import frechet_distance
from medtune.evaluation.metrics.kid import kernel_distance
from medtune.evaluation.metrics.vendi import vendi_score

SHAPES = [(40, 30, 64), (64, 40, 64), (65, 64, 64), (300, 200, 16), (30, 500, 64)]  # fewer images than dimensions, as many, more


def normal(count: int, dims: int, seed: int, spread: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Correlated Gaussian features."""
    rng = np.random.default_rng(seed)
    return (spread * rng.normal(size=(count, dims)) @ rng.normal(size=(dims, dims)) / np.sqrt(dims) + shift).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_frechet_equals_the_matrix_root(shape):
    n, m, dims = shape
    real, fake = normal(n, dims, 1).astype(float), normal(m, dims, 2, 1.3, 0.2).astype(float)
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    shift = real.mean(0) - fake.mean(0)
    root = scipy.linalg.sqrtm(a @ b).real if min(n, m) > dims + 1 else _root_of_product(a, b)
    expected = shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(root)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-6)


def _root_of_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A matrix with the trace of (a b)^(1/2), by the symmetric form, which holds for singular covariances too."""
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    values, vectors = np.linalg.eigh(root @ b @ root)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


@pytest.mark.parametrize("shape", [(65, 64, 64), (300, 200, 16)])
def test_frechet_equals_clean_fid(shape):
    cleanfid = pytest.importorskip("cleanfid.fid")
    real, fake = normal(shape[0], shape[2], 1).astype(float), normal(shape[1], shape[2], 2, 1.3, 0.2).astype(float)
    try:
        expected = cleanfid.frechet_distance(real.mean(0), np.cov(real, rowvar=False), fake.mean(0), np.cov(fake, rowvar=False))
    except TypeError:
        pytest.skip("this scipy's sqrtm is too new for clean-fid")
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-3 if shape[1] <= shape[2] else 1e-6)


def test_frechet_of_gaussians_in_closed_form():
    """Independent features of exactly known means and variances: sum of (m - n)^2 + (s - t)^2."""
    signs = scipy.linalg.hadamard(16)[:, 1:5].astype(float)  # orthogonal columns of mean 0
    real = signs * [1, 2, 3, 4] + [0, 1, 0, 0]
    fake = signs * [2, 2, 1, 4] + [0, 0, 0, 3]
    unbiased = 16 / 15
    assert frechet_distance(real, fake) == pytest.approx(1 + 9 + unbiased * (1 + 0 + 4 + 0), rel=1e-9)


def test_both_branches_of_frechet_meet():
    real, fake = normal(40, 32, 3).astype(float), normal(33, 32, 4).astype(float)  # as many as dimensions, plus one: both can be used
    tall = frechet_distance(real, fake)
    wide = frechet_distance(np.pad(real, ((0, 0), (0, 20))), np.pad(fake, ((0, 0), (0, 20))))  # empty dimensions change nothing
    assert wide == pytest.approx(tall, rel=1e-6)


def test_constant_features_have_a_distance():
    real, fake = normal(100, 8, 5).astype(float), normal(90, 8, 6).astype(float)
    real[:, 3], fake[:, 3], fake[:, 4] = 1.0, 3.0, 2.0
    free = [0, 1, 2, 5, 6, 7]
    expected = 4 + (real[:, 4].mean() - 2) ** 2 + frechet_distance(real[:, free], fake[:, free]) + real[:, 4].var(ddof=1)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(np.ones((10, 4)), np.full((10, 4), 2.0)) == pytest.approx(4)


@pytest.mark.parametrize("shape", SHAPES)
def test_kid_equals_a_double_loop(shape):
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


def test_kid_without_a_group_is_kid_of_the_others():
    from medtune.evaluation.interval import assign_groups
    from medtune.evaluation.metrics.kid import KernelSums

    real, fake = normal(30, 8, 1).astype(float), normal(20, 8, 2).astype(float)
    a, b = assign_groups([str(i) for i in range(30)], 5), assign_groups([str(i) for i in range(20)], 4)
    sums = KernelSums.of(real, fake, a, b)
    assert sums.distance(real_out=2) == pytest.approx(kernel_distance(real[a != 2], fake))
    assert sums.distance(fake_out=3) == pytest.approx(kernel_distance(real, fake[b != 3]))


def test_kid_is_unbiased():
    """Over many small draws of one distribution the mean is 0, although the distance itself is never negative."""
    rng = np.random.default_rng(0)
    values = [kernel_distance(rng.normal(size=(12, 6)), rng.normal(size=(12, 6))) for _ in range(500)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


@pytest.mark.parametrize("shape", [(40, 64), (64, 64), (200, 16)])
@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
def test_vendi_equals_the_package(shape, order):
    from vendi_score.vendi import score_dual

    values = normal(*shape, 1).astype(float)
    assert vendi_score(values, order) == pytest.approx(score_dual(values, q=order), rel=1e-6)


def test_vendi_counts():
    assert vendi_score(np.eye(12)) == pytest.approx(12)
    assert vendi_score(np.repeat(np.eye(4), 5, axis=0)) == pytest.approx(4)
    assert vendi_score(np.ones((9, 3))) == pytest.approx(1)


@pytest.mark.parametrize("name", METRICS)
def test_identical_sets(name):
    features = Features(normal(50, 64, 1))
    score = make_metric(name).score(features, features)
    if name == "frechet":
        assert 0 <= score.value < 1e-9
    if name == "kid":
        assert score.value <= 0  # unbiased: the pairs of an image with itself are missing from one side only
    assert score.low <= score.value <= score.high


@pytest.mark.parametrize("name", METRICS)
def test_the_direction_is_the_stated_one(name):
    """Good images are other draws of the real distribution; collapsed ones repeat a few; broken ones lie elsewhere."""
    everything = normal(240, 16, 1)
    real, good = Features(everything[:120]), Features(everything[120:])
    collapsed, broken = Features(np.repeat(everything[120:124], 30, axis=0)), Features(everything[120:] * 0.2 + 2)
    metric = make_metric(name)
    sign = 1 if metric.facts.direction == "lower" else -1
    for worse in (collapsed, broken):
        better_score, worse_score = metric.score(real, good), metric.score(real, worse)
        assert sign * better_score.value < sign * worse_score.value
        separated = better_score.high < worse_score.low if sign == 1 else better_score.low > worse_score.high
        assert separated


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_images_are_a_reason(name, count):
    score = make_metric(name).score(Features(normal(20, 4, 1)), Features(np.zeros((count, 4), np.float32)))
    assert score.value is score.low is score.high is None
    assert score.reason == f"{count} generated images; at least 8 are needed"
    assert (score.n_real, score.n_fake) == (20, count)


@pytest.mark.parametrize("name", METRICS)
def test_features_that_are_not_finite_are_a_reason(name):
    broken = normal(20, 4, 1)
    broken[3, 1], broken[5, 0] = np.nan, np.inf
    score = make_metric(name).score(Features(normal(20, 4, 2)), Features(broken))
    assert score.value is None and "2 of 20 generated images" in score.reason


@pytest.mark.parametrize("name", METRICS)
def test_features_of_two_spaces_are_refused(name):
    with pytest.raises(DataError, match=r"64 dimensions.*32 dimensions"):
        make_metric(name).score(Features(normal(20, 64, 1)), Features(normal(20, 32, 1)))


@pytest.mark.parametrize("name", METRICS)
def test_no_interval_when_none_is_wanted_or_can_be_had(name):
    real, fake = Features(normal(20, 4, 1)), Features(normal(20, 4, 2))
    for metric in (make_metric(name, groups=0), make_metric(name, groups=3)):
        score = metric.score(real, fake)
        assert score.value is not None and score.low is None and score.high is None


@pytest.mark.parametrize("name", METRICS)
def test_facts_are_complete(name):
    kind = METRICS[name]
    assert issubclass(kind, Metric) and kind.name == name
    assert kind.facts.direction in ("lower", "higher") and kind.facts.title and kind.facts.says and kind.facts.paper


def test_zero_features_are_a_reason_for_vendi():
    values = normal(20, 4, 1)
    values[2] = 0
    score = make_metric("vendi").score(Features(values), Features(values))
    assert score.value is None and "1 images" in score.reason


def test_unknown_names_and_options_are_refused():
    with pytest.raises(UnknownName, match="frechet"):
        make_metric("fid")
    with pytest.raises(ConfigError, match="least"):
        make_metric("kid", leats=3)
    with pytest.raises(ConfigError, match="at least 2"):
        make_metric("kid", least=1)
