"""Figures of a classifier against scikit-learn, tests of differences against statsmodels, calibration against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from medtune.evaluation.classifiers.calibration import calibration_error, reliability
from medtune.evaluation.classifiers.recognition import FIGURES, best_threshold, recognition, top_recognition
from medtune.evaluation.uncertainty.holm import holm
from medtune.evaluation.uncertainty.mcnemar import mcnemar
from sklearn import metrics


@pytest.fixture(params=[0, 1], ids=["continuous", "ties"])
def answers(request):
    generator = np.random.default_rng(4)
    truth = generator.random(120) < 0.3
    probabilities = np.clip(0.3 * truth + generator.random(120) * 0.7, 0, 1)
    return truth, np.round(probabilities, 1) if request.param else probabilities


def of_sklearn(truth, probabilities, threshold, sample_weight=None):
    said, how = probabilities >= threshold, {"sample_weight": sample_weight}
    return {"auroc": metrics.roc_auc_score(truth, probabilities, **how),
            "average_precision": metrics.average_precision_score(truth, probabilities, **how),
            "accuracy": metrics.accuracy_score(truth, said, **how),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, said, **how),
            "f1": metrics.f1_score(truth, said, **how), "brier": metrics.brier_score_loss(truth, probabilities, **how)}


def test_the_figures_are_scikit_learns(answers):
    found = recognition(*answers, 0.45)
    assert set(found) == set(FIGURES)
    for name, value in of_sklearn(*answers, 0.45).items():
        assert found[name][0] == pytest.approx(value, abs=1e-9), name


def test_weighted_figures_are_those_of_repeated_images(answers):
    weights = np.random.default_rng(0).integers(0, 4, (5, 120))
    found = recognition(*answers, 0.45, weights)
    for row, times in enumerate(weights):
        repeated = [np.repeat(one, times) for one in answers]
        for name, value in recognition(*repeated, 0.45).items():
            assert found[name][row] == pytest.approx(value[0], abs=1e-9), name
        assert found["average_precision"][row] == pytest.approx(of_sklearn(*answers, 0.45, times)["average_precision"], abs=1e-9)


def test_the_most_probable_label_is_scored_as_scikit_learn_does():
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 4, 200)
    probabilities = generator.dirichlet(np.ones(4), 200) * 0.6 + 0.4 * np.eye(4)[truth] * generator.random((200, 1))
    probabilities /= probabilities.sum(1, keepdims=True)
    found = top_recognition(np.eye(4)[truth], probabilities)
    said = probabilities.argmax(1)
    assert found["accuracy"][0] == pytest.approx(metrics.accuracy_score(truth, said))
    assert found["balanced_accuracy"][0] == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    assert found["f1"][0] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert found["brier"][0] == pytest.approx(np.mean(((np.eye(4)[truth] - probabilities) ** 2).sum(1)))


@pytest.mark.parametrize("kind", [0, 1])
def test_without_both_kinds_ranks_are_undefined(kind):
    found = recognition(np.full(5, kind), np.linspace(0, 1, 5), 0.5)
    assert np.isnan(found["auroc"][0]) and np.isfinite(found["brier"][0])
    assert np.isnan(found["f1"][0]) == (kind == 0)
    assert best_threshold(np.full(5, kind), np.linspace(0, 1, 5)) is None


def test_the_threshold_is_that_of_the_highest_f1(answers):
    truth, probabilities = answers
    found = metrics.f1_score(truth, probabilities >= best_threshold(truth, probabilities))
    assert found == pytest.approx(max(metrics.f1_score(truth, probabilities >= value) for value in set(probabilities)))


def test_the_calibration_error_is_its_definition(answers):
    truth, probabilities = answers
    error = 0.0
    for low in np.arange(10) / 10:
        chosen = (probabilities > low) & (probabilities <= low + 0.1) if low else probabilities <= 0.1
        if chosen.any():
            error += chosen.mean() * abs(truth[chosen].mean() - probabilities[chosen].mean())
    if len(set(probabilities)) > 20:  # rounded probabilities lie on the bounds, where floats decide
        assert calibration_error(truth, probabilities, 10)[0] == pytest.approx(error, abs=1e-12)
    drawn = reliability(truth, probabilities, 10)
    assert sum(one["images"] for one in drawn) == len(truth)
    by_bin = sum(one["images"] * abs(one["probability"] - one["positive"]) for one in drawn) / len(truth)
    assert by_bin == pytest.approx(calibration_error(truth, probabilities, 10)[0], abs=1e-12)


def test_calibrated_probabilities_have_little_error_and_bold_ones_much():
    generator = np.random.default_rng(0)
    probabilities = generator.random(20_000)
    truth = generator.random(20_000) < probabilities
    assert calibration_error(truth, probabilities)[0] < 0.02
    assert calibration_error(truth, np.round(probabilities))[0] > 0.2
    assert calibration_error(np.array([1, 0]), np.array([1.0, 0.0]))[0] == 0


@pytest.mark.parametrize("counts", [(0, 0), (3, 9), (12, 12), (9, 15), (10, 15), (20, 41), (30, 30)])
def test_mcnemar_is_that_of_statsmodels(counts):
    from statsmodels.stats.contingency_tables import mcnemar as reference

    first = np.repeat([True, False, True, False], [*counts, 7, 5])
    second = np.repeat([False, True, True, False], [*counts, 7, 5])
    found, exact = mcnemar(first, second), sum(counts) < 25
    assert (found.first, found.second, found.exact) == (*counts, exact)
    if sum(counts) > 0 and (exact or counts[0] != counts[1]):
        assert found.p == pytest.approx(reference([[7, counts[0]], [counts[1], 5]], exact=exact).pvalue, abs=1e-12)
    else:
        assert found.p == 1.0  # equal counts are no evidence; the correction must not make any
    with pytest.raises(ValueError, match="same images"):
        mcnemar(first, second[1:])


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    values = np.random.default_rng(2).random(12) ** 3
    assert holm(values.tolist()) == pytest.approx(multipletests(values, method="holm")[1].tolist(), abs=1e-12)
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert holm([]) == []
