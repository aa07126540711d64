"""The parts that all plots are made of: axes, marks and text, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..number import signed

COLOURS = 8
"""Series have one of so many colours, which the page's style sets, and a mark of their own shape."""
SHAPES = ("circle", "square", "up", "diamond", "down", "cross")
CORNERS = {"up": ((0, -1.3), (1.1, 0.65), (-1.1, 0.65)), "down": ((0, 1.3), (1.1, -0.65), (-1.1, -0.65)),
           "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)), "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
           "cross": ((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2),
                     (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4))}


@dataclass(frozen=True)
class Point:
    """A figure with its interval, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval's ends."""
        return (self.low, self.high) if self.low is not None and self.high is not None else None


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` along pixels from ``start`` to ``end``, by their logarithms or not."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value; what lies outside is put at the nearer end."""
        value = min(max(value, self.low), self.high)
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the axis."""
        return log_ticks(self.low, self.high, most) if self.log else linear_ticks(self.low, self.high, most)


def axis(values: Sequence[float], start: float, end: float, *, log: bool | None = None, room: float = 0.06) -> Axis:
    """An axis that holds the values, with some room; logarithmic where they are above 0 and span more than a factor of 20.

    An axis whose ``start`` and ``end`` are exchanged runs the other way.
    """
    values = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(values), max(values)
    if log is None:
        log = low > 0 and high > 20 * low
    if log:
        low, high = (low, high) if high > 1.2 * low else (low / 1.5, high * 1.5)
        margin = (high / low) ** room
        return Axis(low / margin, high * margin, start, end, True)
    spread = high - low or abs(high) or 1.0
    return Axis(low - room * spread, high + room * spread, start, end)


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, at most so many."""
    raw = (high - low) / max(1, most - 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [round(index * step, 12) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten from low to high, with steps between where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7), tuple(range(1, 10))):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    return ticks[::max(1, math.ceil(len(ticks) / (most + 1)))]


def number(value: float) -> str:
    """A tick's text."""
    return signed(f"{value:.4g}")


def picture(width: float, height: float, label: str, parts: Sequence[str], kind: str = "") -> str:
    """The whole SVG, with what a screen reader says of it."""
    return (f'<svg viewBox="0 0 {width:g} {height:g}" role="img" class="plot{" " + kind if kind else ""}" '
            f'style="--w: {width:g}px"><title>{escape(label)}</title>{"".join(parts)}</svg>')


def text(x: float, y: float, said: str, anchor: str = "middle", kind: str = "") -> str:
    """A line of text; what comes from outside is escaped."""
    styled = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{styled}>{escape(said)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def levels(y: Axis, left: float, right: float) -> list[str]:
    """Rules across a plot at the ticks of its vertical axis, with their numbers."""
    return [part for tick in y.ticks(5) for part in (line(left, y.place(tick), right, y.place(tick), "rule"),
                                                     text(left - 8, y.place(tick) + 4, number(tick), "end"))]


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Lines through points."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def mark(index: int, x: float, y: float, said: str = "", size: float = 4.5) -> str:
    """The mark of a series, with a text that shows under the pointer."""
    told = f"<title>{escape(said)}</title>" if said else ""
    shape, kind = SHAPES[index % len(SHAPES)], f"mark {colour(index)}"
    if shape == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}">{told}</circle>'
    corners = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in CORNERS[shape])
    return f'<polygon class="{kind}" points="{corners}">{told}</polygon>'


def swatch(index: int) -> str:
    """A series' mark by itself, for a legend."""
    return f'<svg viewBox="0 0 14 14" class="swatch" aria-hidden="true">{mark(index, 7, 7)}</svg>'


def colour(index: int) -> str:
    """The class that gives a series its colour."""
    return f"s{index % COLOURS}"


def shorten(said: str, most: int) -> str:
    """A text of at most so many letters."""
    return said if len(said) <= most else said[:most - 1] + "…"


def wrap(said: str, most: int, lines: int = 3) -> list[str]:
    """A text in lines of at most so many letters."""
    found = [""]
    for word in said.split():
        if found[-1] and len(found[-1]) + 1 + len(word) > most:
            found.append("")
        found[-1] = f"{found[-1]} {word}".strip()
    if len(found) > lines:
        found = [*found[:lines - 1], " ".join(found[lines - 1:])]
    return [shorten(one, most + 4) for one in found]
