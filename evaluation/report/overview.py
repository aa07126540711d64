"""The plots of a report: arms over metrics, fidelity against diversity, and each metric by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arm import Arm
from .plots.dots import dots
from .plots.parallel import Measure, parallel
from .plots.scatter import scatter
from .plots.svg import Point, swatch
from .score_table import labels_of, title_of

TRADES = (("vendi", "frechet"), ("recall", "precision"), ("coverage", "density"), ("vendi", "kid"))
"""(diversity, fidelity), metrics that are set against each other."""


def overview_plots(arms: Sequence[Arm]) -> list[dict[str, str]]:
    """Plots of all images' figures: title and SVG; none where there is nothing to compare."""
    found = [measure for metric in _metrics(arms) if (measure := _measure(arms, metric)) is not None]
    if len(arms) < 2 or not found:
        return []
    names = [arm.name for arm in arms]
    plots = []
    if len(found) > 1:
        plots.append({"title": "All metrics", "wide": True, "svg": parallel(names, found, [arm.reference for arm in arms])})
    for pair in TRADES[:3] if _measure(arms, "frechet") else TRADES[1:]:
        diversity, fidelity = (_measure(arms, metric) for metric in pair)
        if diversity and fidelity and sum(bool(a and b) for a, b in zip(diversity.points, fidelity.points)) > 1:
            plots.append({"title": f"{fidelity.title} against {diversity.title}", "wide": False,
                          "svg": scatter(names, diversity, fidelity)})
    return plots


def class_plots(arms: Sequence[Arm], table: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For each metric that has figures of classes a plot of them: title and SVG."""
    plots = []
    for metric in _metrics(arms):
        rows = [(label, [_point(arm, metric, label) for arm in arms]) for label in labels_of(table)
                if any(arm.scores.find(metric, label) for arm in arms)]
        if any(point for _, row in rows for point in row):
            direction = _direction(arms, metric)
            plots.append({"title": title_of(metric), "svg": dots(title_of(metric), direction, [arm.name for arm in arms], rows)})
    return plots


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """(mark, name) of each series, in the order of the plots."""
    return [(swatch(index), name) for index, name in enumerate(names)]


def _metrics(arms: Sequence[Arm]) -> list[str]:
    return list(dict.fromkeys(score.metric for arm in arms for score in arm.scores.scores))


def _measure(arms: Sequence[Arm], metric: str) -> Measure | None:
    """The arms' figures of all images; None where not one is there."""
    points = [_point(arm, metric, None) for arm in arms]
    return Measure(title_of(metric), _direction(arms, metric), points) if any(points) else None


def _direction(arms: Sequence[Arm], metric: str) -> str:
    return next(score.direction for arm in arms for score in arm.scores.scores if score.metric == metric)


def _point(arm: Arm, metric: str, label: str | None) -> Point | None:
    score = arm.scores.find(metric, label)
    return Point(score.value, score.low, score.high) if score is not None and score.value is not None else None
