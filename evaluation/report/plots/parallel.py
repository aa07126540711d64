"""Arms over metrics in parallel coordinates: each metric has an axis of its own, turned so that better is up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..number import figure, half_width
from .svg import Axis, Point, axis, colour, line, mark, path, picture, text, wrap

COLUMN, LEFT, TOP, TALL, BOTTOM = 112, 62, 62, 220, 40


@dataclass(frozen=True)
class Measure:
    """One axis: a metric's title, its better direction, and each arm's figure, None where there is none."""

    title: str
    direction: str
    points: Sequence[Point | None]


def parallel(names: Sequence[str], measures: Sequence[Measure], dashed: Sequence[bool] = ()) -> str:
    """An SVG of each arm's line over the metrics; where a figure is missing the line has a gap. ``dashed`` arms are references."""
    axes = [_axis(measure) for measure in measures]
    places = [LEFT + COLUMN * column for column in range(len(measures))]
    parts = [part for measure, scale, x in zip(measures, axes, places) for part in _frame(measure, scale, x)]
    offsets = [4 * (index - (len(names) - 1) / 2) for index in range(len(names))]
    for index, name in enumerate(names):
        kind = f"series {colour(index)}{' dashed' if index < len(dashed) and dashed[index] else ''}"
        spots = [(x + offsets[index], scale.place(measure.points[index].value)) if measure.points[index] else None
                 for x, measure, scale in zip(places, measures, axes)]
        parts += [path(run, kind) for run in _runs(spots) if len(run) > 1]
        parts += [_point(index, name, measure, scale, spot) for measure, scale, spot in zip(measures, axes, spots) if spot]
    label = (f"Parallel coordinates of {len(names)} arms over {len(measures)} metrics, better is up: "
             + "; ".join(f"{measure.title} from {figure(_worst(measure))} to {figure(_best(measure))}" for measure in measures))
    return picture(places[-1] + LEFT, TOP + TALL + BOTTOM, label, parts, "wide")


def _axis(measure: Measure) -> Axis:
    """The scale of a metric's figures; intervals are cut at its ends."""
    ends = (TOP + TALL, TOP) if measure.direction == "higher" else (TOP, TOP + TALL)
    return axis([point.value for point in measure.points if point], *ends, room=0.08)


def _frame(measure: Measure, scale: Axis, x: float) -> list[str]:
    titles = wrap(measure.title, 15)
    parts = [text(x, TOP - 34 - 14 * (len(titles) - 1 - row) + 6, said, kind="title") for row, said in enumerate(titles)]
    parts.append(line(x, TOP, x, TOP + TALL, "axis"))
    best, worst = _best(measure), _worst(measure)
    parts.append(text(x, TOP - 8, figure(best)))
    if worst != best:
        parts.append(text(x, TOP + TALL + 16, figure(worst)))
    return [*parts, text(x, TOP + TALL + 32, f"{measure.direction} better{', log' if scale.log else ''}", kind="soft")]


def _point(index: int, name: str, measure: Measure, scale: Axis, spot: tuple[float, float]) -> str:
    point, (x, y) = measure.points[index], spot
    half = half_width(point.low, point.high)
    said = f"{name}, {measure.title}: {figure(point.value, half)}"
    if point.ends is None:
        return mark(index, x, y, said)
    said += f" ({figure(point.low, half)} to {figure(point.high, half)})"
    low, high = (scale.place(end) for end in point.ends)
    return line(x, low, x, high, f"interval {colour(index)}") + mark(index, x, y, said)


def _runs(spots: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """The stretches without a gap."""
    found: list[list[tuple[float, float]]] = [[]]
    for spot in spots:
        if spot is None:
            found.append([])
        else:
            found[-1].append(spot)
    return found


def _best(measure: Measure) -> float:
    values = [point.value for point in measure.points if point]
    return max(values) if measure.direction == "higher" else min(values)


def _worst(measure: Measure) -> float:
    values = [point.value for point in measure.points if point]
    return min(values) if measure.direction == "higher" else max(values)
