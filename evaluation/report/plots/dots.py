"""One metric class by class: a row for each class, a dot with its interval for each arm."""

from __future__ import annotations

from collections.abc import Sequence

from ..number import figure, half_width
from .svg import Point, axis, colour, line, mark, number, picture, shorten, text

WIDTH, LEFT, RIGHT, TOP, BOTTOM, GAP, STEP = 480, 140, 16, 28, 40, 12, 11


def dots(title: str, direction: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[Point | None]]]) -> str:
    """An SVG of rows (class, a figure or None of each arm); a figure that is missing is a dash at the left."""
    points = [point for _, row in rows for point in row if point]
    values = [point.value for point in points]
    log = axis(values, 0, 1).log
    x = axis(values if log else [*values, *(end for point in points for end in point.ends or ())], LEFT + 14, WIDTH - RIGHT, log=log)
    tall = STEP * len(names) + GAP
    bottom = TOP + tall * len(rows)
    parts = [text(4, 14, f"{title} ({direction} is better{', log' if log else ''})", "start", "title")]
    for tick in x.ticks(6):
        parts += [line(x.place(tick), TOP, x.place(tick), bottom, "rule"), text(x.place(tick), bottom + 17, number(tick))]
    for place, (label, row) in enumerate(rows):
        top = TOP + tall * place
        parts += [line(4, top + tall, WIDTH - RIGHT, top + tall, "rule"),
                  text(LEFT - 10, top + tall / 2 + 4, shorten(label, 20), "end", "label")]
        parts += [_dot(index, (names[index], label), point, x, top + (GAP + STEP) / 2 + STEP * index)
                  for index, point in enumerate(row)]
    told = "; ".join(f"{label} " + ", ".join(f"{name} {said(point)}" for name, point in zip(names, row)) for label, row in rows)
    return picture(WIDTH, bottom + BOTTOM - 14, f"{title} by class, {direction} is better: {told}", parts)


def _dot(index: int, who: tuple[str, str], point: Point | None, x, y: float) -> str:
    if point is None:
        return text(LEFT, y + 4, "–", "start", f"missing {colour(index)}")
    interval = line(x.place(point.low), y, x.place(point.high), y, f"interval {colour(index)}") if point.ends else ""
    return interval + mark(index, x.place(point.value), y, f"{who[0]}, {who[1]}: {said(point)}", 4)


def said(point: Point | None) -> str:
    if point is None:
        return "missing"
    half = half_width(point.low, point.high)
    said = figure(point.value, half)
    return f"{said} ({figure(point.low, half)} to {figure(point.high, half)})" if point.ends else said
