"""A classifier's figure over the share of the real images that it learnt from, a curve for each way of learning."""

from __future__ import annotations

from collections.abc import Sequence

from .dots import said
from .svg import Axis, Point, axis, colour, levels, line, mark, number, path, picture, text

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 18, 30, 46
APART = 7  # pixels between the intervals of two curves at one share

Curve = Sequence[tuple[float, Point | None]]
"""(share of the real images, figure or None), ascending; a share of 0 is learning without any."""


def fraction_curves(title: str, names: Sequence[str], curves: Sequence[Curve], direction: str = "higher") -> str:
    """An SVG over a logarithmic axis of shares. What learnt from no real image is a level, dashed line."""
    points = [point for curve in curves for _, point in curve if point]
    shares = sorted({share for curve in curves for share, _ in curve if share > 0}) or [1.0]
    alone = any(share == 0 for curve in curves for share, _ in curve)
    x = axis(shares, LEFT + (44 if alone else 12), WIDTH - RIGHT - 12, log=True, room=0.02)
    y = axis([value for point in points for value in (point.value, *(point.ends or ()))], HEIGHT - BOTTOM, TOP, log=False)
    parts = [text(4, 14, f"{title} ({direction} is better)", "start", "title"),
             text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "real patients to learn from (%, log)", kind="title"),
             *levels(y, LEFT, WIDTH - RIGHT)]
    parts += [text(x.place(share), HEIGHT - BOTTOM + 17, number(100 * share)) for share in shares]
    for index, curve in enumerate(curves):
        parts += _curve(index, names[index], curve, (x, y), APART * (index - (len(curves) - 1) / 2))
    told = "; ".join(f"{name} " + ", ".join(f"{_at(share)} {said(point)}" for share, point in curve)
                     for name, curve in zip(names, curves))
    return picture(WIDTH, HEIGHT, f"{title} by share of the real patients: {told}", parts)


def _curve(index: int, name: str, curve: Curve, axes: tuple[Axis, Axis], offset: float) -> list[str]:
    (x, y), parts, spots = axes, [], []
    for share, point in curve:
        if point is None:
            continue
        place, height = (x.place(share) if share > 0 else LEFT + 14) + offset, y.place(point.value)
        if share > 0:
            spots.append((place, height))
        else:
            parts.append(line(place, height, x.end, height, f"series {colour(index)} dashed"))
        if point.ends:
            parts.append(line(place, y.place(point.low), place, y.place(point.high), f"interval {colour(index)}"))
        parts.append(mark(index, place, height, f"{name}, {_at(share)}: {said(point)}"))
    return [path(spots, f"series {colour(index)}"), *parts] if len(spots) > 1 else parts


def _at(share: float) -> str:
    return f"at {100 * share:g} %" if share > 0 else "without real images"
