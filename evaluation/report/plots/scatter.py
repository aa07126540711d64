"""Fidelity against diversity, arm by arm, each with the intervals of both; the better corner is the upper right one."""

from __future__ import annotations

from collections.abc import Sequence

from ..number import figure, half_width
from .parallel import Measure
from .svg import Axis, Point, axis, colour, levels, line, mark, number, picture, text

WIDTH, HEIGHT = 420, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 30, 48


def scatter(names: Sequence[str], diversity: Measure, fidelity: Measure) -> str:
    """An SVG of the arms that have both figures: diversity across, fidelity upwards."""
    there = [index for index in range(len(names)) if diversity.points[index] and fidelity.points[index]]
    x = _axis(diversity, there, LEFT, WIDTH - RIGHT)
    y = _axis(fidelity, there, HEIGHT - BOTTOM, TOP)
    parts = levels(y, LEFT, WIDTH - RIGHT)
    for tick in x.ticks(6):
        parts += [line(x.place(tick), TOP, x.place(tick), HEIGHT - BOTTOM, "rule"),
                  text(x.place(tick), HEIGHT - BOTTOM + 17, number(tick))]
    parts += [text(4, 14, _title(fidelity, y, "↑"), "start", "title"),
              text(WIDTH - RIGHT, HEIGHT - 8, _title(diversity, x, "→"), "end", "title")]
    for index in there:
        parts.append(_cross(index, names[index], (diversity.points[index], fidelity.points[index]), (x, y)))
    label = f"{fidelity.title} against {diversity.title}, better is up and right: " + "; ".join(
        f"{names[index]} {_said(fidelity.points[index])} and {_said(diversity.points[index])}" for index in there)
    return picture(WIDTH, HEIGHT, label, parts)


def _axis(measure: Measure, there: Sequence[int], worse: float, better: float) -> Axis:
    """The scale from the worse to the better end."""
    points = [measure.points[index] for index in there]
    values = [point.value for point in points]
    plain = axis(values, worse, better)
    if not plain.log:
        values += [end for point in points for end in point.ends or ()]
    ends = (worse, better) if measure.direction == "higher" else (better, worse)
    return axis(values, *ends, log=plain.log, room=0.1)


def _title(measure: Measure, scale: Axis, arrow: str) -> str:
    return f"{measure.title} ({measure.direction} is better {arrow}{', log' if scale.log else ''})"


def _cross(index: int, name: str, points: tuple[Point, Point], axes: tuple[Axis, Axis]) -> str:
    (across, upwards), (x, y) = points, axes
    place, kind, parts = (x.place(across.value), y.place(upwards.value)), f"interval {colour(index)}", []
    if across.ends:
        parts.append(line(x.place(across.low), place[1], x.place(across.high), place[1], kind))
    if upwards.ends:
        parts.append(line(place[0], y.place(upwards.low), place[0], y.place(upwards.high), kind))
    return "".join(parts) + mark(index, *place, f"{name}: {_said(upwards)}, {_said(across)}", 5.5)


def _said(point: Point) -> str:
    return figure(point.value, half_width(point.low, point.high))
