"""AUROC by DeLong: equal to the plain definition of placements, to another library, and to Obuchowski's variance by patient."""

from __future__ import annotations

import numpy as np
import pytest
from medtune.evaluation.uncertainty.delong import auroc, difference, mean_of_placements, placements
from scipy.stats import norm
from sklearn.metrics import roc_auc_score


def draw(seed=0, count=60, ties=True, shift=1.0):
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.4
    scores = generator.normal(size=(2, count)) + shift * truth + generator.normal(size=count)
    return truth, *(np.round(scores, 1) if ties else scores)


def placements_by_definition(truth, scores):
    """Each image against each of the other kind: 1 where it is ranked rightly, a half for a tie."""
    positives, negatives = scores[truth], scores[~truth]
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)  # (m, n)
    placed = np.empty(len(scores))
    placed[truth], placed[~truth] = wins.mean(1), wins.mean(0)
    return placed


def delong_by_definition(truth, *scores):
    """AUROCs and their covariance, as the paper writes them."""
    placed = [placements_by_definition(truth, one) for one in scores]
    positive, negative = (np.cov(np.array([one[side] for one in placed]).reshape(len(scores), -1)) for side in (truth, ~truth))
    covariance = np.atleast_2d(positive) / truth.sum() + np.atleast_2d(negative) / (~truth).sum()
    return [one[truth].mean() for one in placed], covariance


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [7, 60, 500])
def test_an_auroc_and_its_interval_are_delongs(count, ties):
    truth, scores, _ = draw(count=count, ties=ties)
    found = auroc(truth, scores)
    (value,), covariance = delong_by_definition(truth, scores)
    error = np.sqrt(covariance[0, 0])
    assert abs(found.value - value) < 1e-9 and abs(found.value - roc_auc_score(truth, scores)) < 1e-9
    assert abs(found.error - error) < 1e-9
    assert found.high == pytest.approx(min(1, value + norm.ppf(0.975) * error), abs=1e-9)
    assert found.p == pytest.approx(2 * norm.sf(abs(value - 0.5) / error), abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_a_difference_is_delongs(ties):
    truth, first, second = draw(3, 80, ties)
    found = difference(truth, first, second)
    values, covariance = delong_by_definition(truth, first, second)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert abs(found.value - (values[0] - values[1])) < 1e-9 and abs(found.error - error) < 1e-9
    assert found.p == pytest.approx(2 * norm.sf(abs(found.value) / error), abs=1e-9)


def test_it_is_another_librarys():
    from MLstatkit import Delong_test as reference

    truth, first, second = draw(5, 90, ties=False)
    _, p, *intervals, one, other = reference(truth.astype(int), first, second)[:6]
    for found, interval, value in zip((auroc(truth, first), auroc(truth, second)), intervals, (one, other)):
        assert (found.value, found.low, found.high) == pytest.approx((value, *interval), abs=1e-9)
    assert difference(truth, first, second).p == pytest.approx(p, abs=1e-9)


def obuchowski_by_definition(truth, scores, units):
    """The variance of a clustered AUROC, sums over patients written out."""
    placed, names = placements_by_definition(truth, scores), sorted(set(units))
    value, m, n = placed[truth].mean(), truth.sum(), (~truth).sum()
    x = np.array([sum(placed[i] - value for i in range(len(truth)) if units[i] == name and truth[i]) for name in names])
    y = np.array([sum(placed[i] - value for i in range(len(truth)) if units[i] == name and not truth[i]) for name in names])
    sick, well = (sum(any(units[i] == name and truth[i] == kind for i in range(len(truth))) for name in names) for kind in (1, 0))
    s10, s01 = sick / ((sick - 1) * m) * (x**2).sum(), well / ((well - 1) * n) * (y**2).sum()
    s11 = len(names) / (len(names) - 1) * (x * y).sum()
    return s10 / m + s01 / n + 2 * s11 / (m * n)


def test_images_of_one_patient_are_no_independent_ones():
    truth, scores, _ = draw(7, 90)
    units = [f"patient {index // 3}" for index in range(90)]
    assert auroc(truth, scores, units).error ** 2 == pytest.approx(obuchowski_by_definition(truth, scores, units), abs=1e-12)
    alone = auroc(truth, scores, [str(index) for index in range(90)])
    assert alone.error == pytest.approx(auroc(truth, scores).error, abs=1e-12)
    twice = [np.repeat(one, 2) for one in (truth, scores)]
    copied = auroc(*twice, units=np.repeat([str(index) for index in range(90)], 2).tolist())
    assert copied.error == pytest.approx(auroc(truth, scores).error, abs=1e-12)  # copies are no new patients
    assert auroc(*twice).error < 0.75 * copied.error


def test_the_interval_of_a_mean_over_labels_covers():
    generator, inside = np.random.default_rng(0), 0
    for _ in range(300):
        latent = generator.normal(size=(150, 1))
        truths = latent + generator.normal(size=(150, 3)) > 0.5
        scores = truths + generator.normal(size=(150, 3))
        placed = np.stack([placements(truth, score) for truth, score in zip(truths.T, scores.T)], axis=1)
        found = mean_of_placements(truths, placed)
        inside += found.low <= norm.cdf(1 / np.sqrt(2)) <= found.high
    assert 0.90 <= inside / 300 <= 0.98


def test_what_has_no_interval_has_none():
    perfect = auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert (perfect.value, perfect.low, perfect.high, perfect.p) == (1.0, None, None, None)
    assert auroc(np.array([0, 0, 1]), np.array([0.1, 0.3, 0.2])).error is None
    same = difference(*draw()[:2], draw()[1])
    assert (same.value, same.low, same.p) == (0.0, None, None)


@pytest.mark.parametrize("truth", [[0, 0, 0], [1, 1, 1]])
def test_without_both_kinds_there_is_no_auroc(truth):
    with pytest.raises(ValueError, match="needs both"):
        auroc(np.array(truth), np.arange(3.0))
