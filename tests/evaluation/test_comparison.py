"""Which arm is best, and which ranks the arms may have, against paired t-tests by SciPy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from medtune.evaluation.metric import Score
from medtune.evaluation.report.comparison import compare, standings
from scipy import stats


def score(groups, *, metric="kid", direction="lower", key="same", label=None, **others):
    """The mean of a value for each group of generated images, as a score: its differences are those of a paired t-test."""
    groups = np.asarray(groups, dtype=float)
    without = tuple((groups.sum() - groups) / (len(groups) - 1))
    facts = {"n_real": 20, "n_fake": len(groups), "reason": None, "extractor": "x", **others}
    return Score(metric, float(groups.mean()), 0.0, 1.0, direction=direction, label=label, without_fake=without, fake_key=key, **facts)


def null(reason="3 generated images; at least 8 are needed", metric="kid"):
    return Score(metric, None, None, None, 20, 3, "lower", reason, "x")


def draws(*means, count=20, noise=1.0, seed=0):
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 3, count)  # what the arms share: prompts and seeds
    return [common + mean + generator.normal(0, noise, count) for mean in means]


def test_p_values_are_those_of_paired_t_tests_after_holm():
    groups = draws(0, 0.4, 1.5)
    found = compare([score(one) for one in groups]).contrasts
    raw = {(i, j): stats.ttest_rel(groups[i], groups[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))}
    assert {(one.first, one.second): one.difference.p for one in found} == pytest.approx(raw, rel=1e-9)
    smallest, middle, largest = sorted(raw, key=raw.get)
    adjusted = {(one.first, one.second): one.p for one in found}
    assert adjusted[smallest] == pytest.approx(3 * raw[smallest])
    assert adjusted[middle] == pytest.approx(max(3 * raw[smallest], 2 * raw[middle]))
    assert adjusted[largest] == pytest.approx(max(adjusted[middle], raw[largest]))


def test_the_best_is_named_where_the_paired_difference_holds_though_intervals_overlap():
    groups = draws(0, 1.5, 4)
    halves = [stats.t.ppf(0.975, 19) * stats.sem(one) for one in groups]
    assert groups[0].mean() + halves[0] > groups[1].mean() - halves[1]  # their own intervals overlap
    assert standings([score(one) for one in groups]) == ["best", "", ""]
    assert standings([score(one, direction="higher") for one in groups]) == ["", "", "best"]
    unpaired = [score(one, key=str(index)) for index, one in enumerate(groups)]
    assert standings(unpaired)[:2] == ["not separated", "not separated"]


def test_one_arm_too_near_keeps_the_best_from_being_named():
    comparison = compare([score(one) for one in draws(0, 0.05, 4)])
    assert comparison.standings == ("not separated", "not separated", "")
    assert [(rank.low, rank.high) for rank in comparison.ranks] == [(1, 2), (1, 2), (3, 3)]
    assert sorted(rank.place for rank in comparison.ranks) == [1, 2, 3]


def test_holm_counts_all_pairs():
    """A difference that would hold between two arms alone does not among five."""
    groups = draws(0, 0, seed=1)
    apart = groups[1] - groups[0]
    groups[1] += stats.t.isf(0.01, 19) * stats.sem(apart) - apart.mean()
    assert stats.ttest_rel(*groups).pvalue == pytest.approx(0.02)
    assert standings([score(one) for one in groups]) == ["best", ""]
    more = [score(one) for one in [*groups, *draws(5, 5, 5, seed=1)]]
    assert standings(more)[:2] == ["not separated", "not separated"]


def test_detectable_differences_are_the_extremes_over_pairs():
    comparison = compare([score(one) for one in draws(0, 1, 9)])
    found = [one.difference.detectable for one in comparison.contrasts]
    assert comparison.detectable == (min(found), max(found)) and len(found) == 3
    assert compare([score(draws(0)[0])]).detectable is None


def test_rank_intervals_cover_the_true_ranks():
    truth = np.array([0.0, 0.5, 0.5, 1.2])  # two true ties: any order of theirs is right
    held = 0
    for seed in range(80):
        ranks = compare([score(one) for one in draws(*truth, seed=seed)]).ranks
        held += all(rank.low <= 1 + (truth < mean).sum() and rank.high >= (truth <= mean).sum() for rank, mean in zip(ranks, truth))
    assert held >= 0.88 * 80  # 95 % less three standard errors


def test_arms_whose_difference_nothing_moves_are_not_told_apart():
    same, worse = draws(0, 9)
    assert compare([score(same), score(same)]).reason == "no difference has an interval"
    comparison = compare([score(same), score(same), score(worse)])
    assert comparison.standings == ("not separated", "not separated", "") and len(comparison.contrasts) == 2
    assert [(rank.low, rank.high) for rank in comparison.ranks] == [(1, 2), (1, 2), (3, 3)]


@pytest.mark.parametrize("others, reason", [
    ([score(draws(9)[0], extractor="other")], "different extractors"),
    ([score(draws(9, count=12)[0], metric="frechet")], "unequal numbers"),
    ([Score("kid", 9.0, 8.0, 10.0, 20, 20, "lower", None, "x")], "no difference has an interval"),
    ([null()], ""),
    ([None], ""),
    ([], ""),
])
def test_nothing_is_said_of_what_cannot_be_compared(others, reason):
    first = score(draws(0)[0], metric=others[0].metric if others and others[0] else "kid")
    comparison = compare([first, *others])
    assert set(comparison.standings) == {""} and set(comparison.ranks) == {None} and not comparison.contrasts
    assert reason in comparison.reason and bool(reason) == bool(comparison.reason)


def test_unbiased_figures_of_unequal_numbers_are_compared():
    few = [score(draws(0)[0], key="a"), score(draws(30, count=12)[0], key="b")]
    assert standings(few) == ["best", ""]


def test_a_missing_figure_does_not_keep_the_others_from_being_compared():
    groups = draws(0, 4)
    comparison = compare([null(), score(groups[1]), None, score(groups[0])])
    assert comparison.standings == ("", "", "", "best") and comparison.ranks[0] is None
    assert (comparison.contrasts[0].first, comparison.contrasts[0].second) == (1, 3)
    assert comparison.between(3, 1) is comparison.contrasts[0] and comparison.between(0, 1) is None
