"""Curves as inline SVG: no library, no request, scalable, readable by a screen reader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
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
    """An SVG of a loss over the steps on a logarithmic axis: each step's value pale, the moving mean in full colour."""
    smoothed = smooth(losses)
    label = f"Training loss of {name}: {len(losses)} steps, smoothed from {smoothed[0]:.3g} to {smoothed[-1]:.3g}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="plot"><title>{escape(label)}</title>']
    for tick in _log_ticks(*bounds):
        y = _y(tick, bounds)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for step in _linear_ticks(len(losses)):
        parts.append(f'<text x="{_x(step - 1, len(losses)):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 2}" text-anchor="middle">step</text>')
    parts.append(f'<polyline class="raw" points="{_points(losses, bounds)}"/>')
    parts.append(f'<polyline class="smooth" points="{_points(smoothed, bounds)}"/></svg>')
    return "".join(parts)


def _points(values: Sequence[float], bounds: tuple[float, float]) -> str:
    stride = max(1, math.ceil(len(values) / MOST_POINTS))
    kept = [i for i, value in enumerate(values) if (i % stride == 0 or i == len(values) - 1) and math.isfinite(value) and value > 0]
    return " ".join(f"{_x(i, len(values)):.1f},{_y(values[i], bounds):.1f}" for i in kept)


def _x(index: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * index / max(1, count - 1)


def _y(value: float, bounds: tuple[float, float]) -> float:
    low, high = map(math.log, bounds)
    share = (math.log(min(max(value, bounds[0]), bounds[1])) - low) / (high - low)
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _linear_ticks(count: int) -> list[int]:
    raw = max(1, count / 5)
    magnitude = 10 ** math.floor(math.log10(raw))
    stride = max(1, next(int(m * magnitude) for m in (1, 2, 5, 10) if m * magnitude >= raw))
    return list(range(stride, count + 1, stride)) or [count]
