"""Curves and differences of trials whose answers are known: intervals against plain loops, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from medtune.evaluation.downstream.contest import TOP, Contest
from medtune.evaluation.downstream.protocol import MIXED, REAL, SYNTHETIC, Cell
from medtune.evaluation.downstream.trial import Trial
from medtune.evaluation.macro import MACRO
from medtune.evaluation.uncertainty.delong import difference
from medtune.evaluation.uncertainty.holm import holm
from scipy.stats import norm
from sklearn.metrics import accuracy_score, roc_auc_score

LABELS = ("A", "B", "C")
FACTS = {"n_real": 10, "n_synthetic": 0, "patients": 5}


def answer(protocol, seed, truth, strength=1.0, *, fraction=0.1, missing=None):
    """A trial whose probabilities tell exclusive labels with some strength."""
    generator = np.random.default_rng([seed, len(protocol)])
    logits = strength * truth + generator.normal(size=truth.shape)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    source, ratio = ("", "all") if protocol == MIXED else ("", "")
    return Trial(Cell(protocol, source, ratio, fraction, seed), probabilities.astype(np.float32), dict.fromkeys(LABELS, 0.4),
                 missing or {}, FACTS)


def truths(count=90, seed=0):
    return np.eye(3)[np.random.default_rng(seed).integers(0, 3, count)]


def units(count):
    return [f"patient {index // 2}" for index in range(count)]


@pytest.fixture(scope="module")
def contest():
    truth = truths()
    trials = [answer(protocol, seed, truth, strength, fraction=fraction) for protocol, strength, fraction in
              ((REAL, 0.3, 0.1), (REAL, 1.0, 1.0), (SYNTHETIC, 0.7, 0.0), (MIXED, 1.5, 0.1), (MIXED, 1.6, 1.0)) for seed in range(3)]
    return Contest(trials, truth, units(90), LABELS, "single", 300)


def test_a_trials_figures_are_scikit_learns(contest):
    trial = contest.trials[0]
    rows = {(row["label"], row["figure"]): row for row in contest.table(trial)}
    each = [roc_auc_score(contest.truth[:, place], trial.probabilities[:, place]) for place in range(3)]
    assert [rows[label, "auroc"]["value"] for label in LABELS] == pytest.approx(each)
    assert rows[MACRO, "auroc"]["value"] == pytest.approx(np.mean(each))
    assert rows[TOP, "accuracy"]["value"] == pytest.approx(accuracy_score(contest.truth.argmax(1), trial.probabilities.argmax(1)))
    assert rows["A", "auroc"]["low"] < rows["A", "auroc"]["value"] < rows["A", "auroc"]["high"] and (TOP, "auroc") not in rows


def test_an_interval_is_that_of_patients_and_seeds_drawn_again(contest):
    trials = contest.contenders[REAL][0.1]
    generator, values, names = np.random.default_rng(8), [], np.array(contest.units)
    members = [np.flatnonzero(names == name) for name in sorted(set(contest.units))]
    for _ in range(200):
        chosen = np.concatenate([members[index] for index in generator.integers(0, len(members), len(members))])
        drawn = [trials[index] for index in generator.integers(0, 3, 3)]
        values.append(np.mean([roc_auc_score(contest.truth[chosen, 0], trial.probabilities[chosen, 0]) for trial in drawn]))
    (point,) = [curve["points"][0] for curve in contest.curves() if (curve["contender"], curve["label"], curve["figure"])
                == (REAL, "A", "auroc")]
    assert (point["low"], point["high"]) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=0.03)
    assert point["value"] == pytest.approx(np.mean(point["values"])) and len(point["values"]) == 3


def test_every_two_contenders_are_compared_once_at_every_fraction(contest):
    pairs = contest.pairs()
    macro = [pair for pair in pairs if (pair["label"], pair["figure"]) == (MACRO, "auroc")]
    found = [(pair["first"], pair["second"], pair["fraction"]) for pair in macro]
    wanted = {(SYNTHETIC, REAL), ("real+synthetic all", REAL), ("real+synthetic all", SYNTHETIC)}
    assert sorted(found) == sorted((*names, fraction) for names in wanted for fraction in (0.1, 1.0))
    for key in {(pair["label"], pair["figure"]) for pair in pairs}:
        family = [pair for pair in pairs if (pair["label"], pair["figure"]) == key]
        assert [pair["p_holm"] for pair in family] == holm([pair["p"] for pair in family])
        assert all(pair["holds"] == (pair["p_holm"] is not None and pair["p_holm"] < 0.05 and not pair["low"] <= 0 <= pair["high"])
                   for pair in family)
    best = next(pair for pair in pairs if (pair["first"], pair["second"], pair["fraction"], pair["label"], pair["figure"])
                == ("real+synthetic all", REAL, 0.1, TOP, "accuracy"))
    assert best["value"] > 0.2 and best["holds"] and best["first_only"] > best["second_only"]


def test_one_seeds_difference_is_delongs():
    truth = truths()
    trials = [answer(REAL, 0, truth, 0.5), answer(MIXED, 0, truth, 1.0)]
    pair = next(pair for pair in Contest(trials, truth, units(90), LABELS, "single", 100).pairs() if pair["figure"] == "auroc")
    expected = difference(truth[:, 0], trials[1].probabilities[:, 0], trials[0].probabilities[:, 0], units(90))
    assert (pair["value"], pair["p"], pair["test_low"]) == pytest.approx((expected.value, expected.p, expected.low))


def test_what_cannot_be_had_says_why():
    truth = np.column_stack([truths(40)[:, :2], np.zeros(40)])
    trials = [answer(REAL, 0, truth), answer(REAL, 1, truth, missing={"A": "of the 4 training images none has A"}),
              Trial(Cell(MIXED, "", "9", 0.1, 0), None, {}, {}, FACTS, "a ratio of 9 asks for more")]
    contest = Contest(trials, truth, units(40), LABELS, "multi", 100)
    rows = {(row["label"], row["figure"]): row for row in contest.table(trials[0])}
    assert rows["C", "auroc"]["value"] is None and "of the 40 test images none has C" in rows["C", "auroc"]["reason"]
    assert rows["C", "brier"]["value"] is not None and rows[MACRO, "auroc"]["value"] is None
    assert all(row["value"] is None and "asks for more" in row["reason"] for row in contest.table(trials[2]))
    (point,) = [curve["points"][0] for curve in contest.curves() if (curve["contender"], curve["label"], curve["figure"])
                == (REAL, "A", "auroc")]
    assert point["value"] is None and point["values"][0] is not None and point["values"][1] is None
    assert point["reason"] == "1 of 2 seeds have no figure: of the 4 training images none has A"
    assert all("asks for more" in pair["reason"] or "no figure" in pair["reason"] or "one answer" in pair["reason"]
               for pair in contest.pairs() if pair["value"] is None)
    assert not any(pair["holds"] for pair in contest.pairs())


def test_the_same_answers_are_no_difference():
    truth = truths(60)
    one = answer(REAL, 0, truth)
    other = Trial(Cell(SYNTHETIC, "", "", 0.0, 0), one.probabilities, one.thresholds, {}, FACTS)
    for pair in Contest([one, other], truth, units(60), LABELS, "single", 100).pairs():
        assert pair["value"] == 0 and pair["low"] == pair["high"] == 0 and not pair["holds"]
        assert pair["p"] in (None, 1.0)


def test_intervals_of_differences_hold_the_truth():
    """Of 80 repeats, each with new patients and new seeds, about 95 in 100."""
    inside, wanted = 0, norm.cdf(1.4 / np.sqrt(2)) - norm.cdf(0.7 / np.sqrt(2))
    for repeat in range(80):
        generator = np.random.default_rng([repeat, 5])
        truth = (generator.random((120, 1)) < 0.5).astype(float)
        trials = [Trial(Cell(protocol, "", "", 1.0, seed), strength * truth + generator.normal(size=(120, 1)), {"A": 0.5}, {}, FACTS)
                  for protocol, strength in ((REAL, 0.7), ("other", 1.4)) for seed in range(3)]
        pair = next(pair for pair in Contest(trials, truth, [str(i) for i in range(120)], ("A",), "multi", 200).pairs()
                    if (pair["label"], pair["figure"]) == ("A", "auroc"))
        inside += pair["low"] <= wanted <= pair["high"]
    assert 0.88 <= inside / 80 <= 1
