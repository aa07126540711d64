"""Numbers as a report writes them: as many decimals as their intervals give meaning to."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"


def figure(value: float, half: float | None = None) -> str:
    """A number with as many decimals as its interval's half width gives meaning to, else three significant digits."""
    if half and half > 0:
        text = f"{value:.{min(8, max(0, 1 - math.floor(math.log10(half))))}f}"
    elif value == 0 or 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0}f}"
    else:
        text = f"{value:.2e}"
    return signed(text)


def signed(text: str) -> str:
    """A number's text with a true minus sign, and none before a zero."""
    return text.lstrip("-") if not any(digit in text for digit in "123456789") else text.replace("-", MINUS)


def listed(items: Sequence[str]) -> str:
    """Items joined by commas and "and"."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)


def half_width(low: float | None, high: float | None) -> float | None:
    """Half of an interval, or None without one."""
    return (high - low) / 2 if low is not None and high is not None else None


def p_value(p: float) -> str:
    """A p-value to two significant digits, as "p = 0.012" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"
