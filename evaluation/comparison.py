"""Which of several arms is best at a metric, said only where the intervals tell."""

from __future__ import annotations

from collections.abc import Sequence

from .metric import METRICS, Score

BEST, TIED = "best", "not separated"


def standings(scores: Sequence[Score | None]) -> list[str]:
    """For each arm's score of one metric: "best", "not separated" (from the best), or nothing.

    The best arm is named only if its interval meets no other's. Without intervals, with a single figure, or with unequal numbers
    of images under a metric that depends on the number, nothing is said.
    """
    told = [""] * len(scores)
    there = [index for index, score in enumerate(scores) if score is not None and score.value is not None]
    if len(there) < 2 or not _comparable([scores[index] for index in there]):
        return told
    sign = 1 if scores[there[0]].direction == "lower" else -1
    best = min(there, key=lambda index: sign * scores[index].value)
    tied = [index for index in there if index != best and _overlap(scores[index], scores[best])]
    for index in [*tied, best]:
        told[index] = TIED if tied else BEST
    return told


def _comparable(scores: Sequence[Score]) -> bool:
    if any(score.low is None or score.high is None for score in scores):
        return False
    if len({(score.extractor, score.direction) for score in scores}) > 1:
        return False
    biased = scores[0].metric not in METRICS or METRICS[scores[0].metric].facts.biased
    return not biased or len({(score.n_real, score.n_fake) for score in scores}) == 1


def _overlap(one: Score, other: Score) -> bool:
    return one.low <= other.high and other.low <= one.high
