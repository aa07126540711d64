"""Which of several arms is best at a metric, and which ranks they may have, said only where their paired differences tell.

Every two arms are compared, with Holm's correction over all pairs: which arm looks best is read off the same figures, and the
correction must cover whichever it is. An arm's rank lies between one more than the arms that are better for certain and the number
of arms less those that are worse for certain; all these intervals hold together with 95 % (Mohamad, Goeman and van Zwet 2019,
"Simultaneous confidence intervals for ranks").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..metric import METRICS, Score
from ..uncertainty.difference import Difference, difference
from ..uncertainty.holm import holm

BEST, TIED = "best", "not separated"
ALPHA = 0.05


@dataclass(frozen=True)
class Contrast:
    """The difference of two arms, given by their places: first minus second; ``p`` is Holm's, over all pairs."""

    first: int
    second: int
    difference: Difference
    p: float

    @property
    def holds(self) -> bool:
        """Whether the two arms differ for certain, all pairs considered."""
        return self.p < ALPHA

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """The contrast as JSON values, with the arms' names."""
        found = self.difference
        return {"first": names[self.first], "second": names[self.second], "difference": found.value, "low": found.low,
                "high": found.high, "p": found.p, "p_holm": self.p, "holds": self.holds, "detectable": found.detectable}


@dataclass(frozen=True)
class Rank:
    """The place of an arm, 1 the best, and the places that it may have."""

    place: int
    low: int
    high: int


@dataclass(frozen=True)
class Comparison:
    """What the scores of several arms in one metric tell, arm by arm; ``reason`` says why they are not compared, if so."""

    standings: tuple[str, ...]
    ranks: tuple[Rank | None, ...]
    contrasts: tuple[Contrast, ...] = ()
    reason: str = ""

    def between(self, one: int, other: int) -> Contrast | None:
        """The contrast of two arms, whichever is first."""
        return next((contrast for contrast in self.contrasts if {contrast.first, contrast.second} == {one, other}), None)

    @property
    def detectable(self) -> tuple[float, float] | None:
        """The least and the largest, over pairs, of the true differences that these numbers show in four of five repeats."""
        found = [contrast.difference.detectable for contrast in self.contrasts]
        return (min(found), max(found)) if found else None


def compare(scores: Sequence[Score | None]) -> Comparison:
    """Compare arms by their scores of one metric and label; a score that is missing or null takes no part.

    Nothing is said of a single figure, of scores without what an interval is made from, and, under a metric that depends on the
    number of images, of arms with unequal numbers. Two arms whose difference has no interval are not told apart.
    """
    blank = Comparison(("",) * len(scores), (None,) * len(scores))
    there = [index for index, score in enumerate(scores) if score is not None and score.value is not None]
    if len(there) < 2:
        return blank
    reason = _obstacle([scores[index] for index in there])
    if reason:
        return Comparison(blank.standings, blank.ranks, (), reason)
    contrasts = _contrasts(scores, there)
    if not contrasts:
        return Comparison(blank.standings, blank.ranks, (), "no difference has an interval")
    sign = 1 if scores[there[0]].direction == "lower" else -1
    badness = {index: sign * scores[index].value for index in there}
    ranks = {index: _rank(index, badness, contrasts) for index in there}
    told = _standings(badness, ranks, contrasts)
    return Comparison(tuple(told.get(index, "") for index in range(len(scores))),
                      tuple(ranks.get(index) for index in range(len(scores))), contrasts)


def standings(scores: Sequence[Score | None]) -> list[str]:
    """For each arm's score of one metric: "best", "not separated" (from the best), or nothing."""
    return list(compare(scores).standings)


def _obstacle(scores: Sequence[Score]) -> str:
    """Why figures that are there cannot be compared."""
    if len({(score.extractor, score.direction) for score in scores}) > 1:
        return "the figures come from different extractors"
    biased = scores[0].metric not in METRICS or METRICS[scores[0].metric].facts.biased
    if biased and len({(score.n_real, score.n_fake) for score in scores}) > 1:
        return "the figure depends on the number of images, and the arms have unequal numbers"
    return ""


def _contrasts(scores: Sequence[Score | None], there: Sequence[int]) -> tuple[Contrast, ...]:
    """The pairs whose difference has an interval."""
    found = [(pair, one) for pair in combinations(there, 2) if (one := difference(*(scores[index] for index in pair))) is not None]
    return tuple(Contrast(*pair, one, p) for (pair, one), p in zip(found, holm([one.p for _, one in found])))


def _rank(index: int, badness: dict[int, float], contrasts: Sequence[Contrast]) -> Rank:
    others = [contrast.first if contrast.second == index else contrast.second for contrast in contrasts
              if contrast.holds and index in (contrast.first, contrast.second)]
    better = sum(badness[other] < badness[index] for other in others)
    return Rank(1 + sum(value < badness[index] for value in badness.values()), 1 + better, len(badness) - (len(others) - better))


def _standings(badness: dict[int, float], ranks: dict[int, Rank], contrasts: Sequence[Contrast]) -> dict[int, str]:
    best = min(badness, key=badness.__getitem__)
    if ranks[best].high == 1:
        return {best: BEST}
    apart = {index for contrast in contrasts if contrast.holds and best in (contrast.first, contrast.second)
             for index in (contrast.first, contrast.second)} - {best}
    return {index: TIED for index in badness if index not in apart}
