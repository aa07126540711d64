"""The loss over the steps of a training, on a logarithmic axis: each step's value pale, the moving mean in full colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .svg import Axis, levels, linear_ticks, number, path, picture, text

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 24, 34
MOST_POINTS = 400


def smooth(values: Sequence[float], window: int = 0) -> list[float]:
    """The moving mean about each value; by default over a tenth of them, at least 5."""
    half = max(2, (window or len(values) // 10) // 2)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    edges = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in edges]


def span(curves: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The range (low, high) above 0 that holds the curves, for a shared logarithmic axis."""
    values = [value for curve in curves for value in curve if math.isfinite(value) and value > 0]
    low, high = (min(values), max(values)) if values else (0.1, 1.0)
    return (low / 1.15, high * 1.15) if high > low * 1.2 else (low / 2, high * 2)


def loss_curve(losses: Sequence[float], name: str, bounds: tuple[float, float]) -> str:
    """An SVG of a loss over the steps; ``bounds`` are the ends of the logarithmic axis."""
    smoothed = smooth(losses)
    x = Axis(1, max(2, len(losses)), LEFT, WIDTH - RIGHT)
    y = Axis(*bounds, HEIGHT - BOTTOM, TOP, True)
    parts = [text(4, 12, "loss", "start"), *levels(y, LEFT, WIDTH - RIGHT)]
    parts += [text(x.place(step), HEIGHT - 18, number(step)) for step in linear_ticks(0, len(losses)) if 1 <= step == round(step)]
    parts += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "step"), path(_points(losses, x, y), "raw"),
              path(_points(smoothed, x, y), "smooth")]
    label = f"Training loss of {name}: {len(losses)} steps, smoothed from {smoothed[0]:.3g} to {smoothed[-1]:.3g}"
    return picture(WIDTH, HEIGHT, label, parts)


def _points(values: Sequence[float], x: Axis, y: Axis) -> list[tuple[float, float]]:
    stride = max(1, math.ceil(len(values) / MOST_POINTS))
    kept = [i for i, value in enumerate(values) if (i % stride == 0 or i == len(values) - 1) and math.isfinite(value) and value > 0]
    return [(x.place(i + 1), y.place(values[i])) for i in kept]
