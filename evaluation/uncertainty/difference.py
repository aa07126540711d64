"""What two sets of generated images differ by at a metric, from their scores alone.

Both are scored against the same real images, and often drawn from the same prompts and seeds. Leaving out the same group in both
takes what they share out of the difference: its interval is narrower than the two figures' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metric import Score
from .interval import ROUNDING, quantile, spread

POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """``value`` is first minus second, with its 95 % interval and two-sided p-value (Student's t).

    ``detectable`` is the least true difference that sets of this number show in four of five repeats, at 5 % false alarms.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float

    @property
    def holds(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def difference(first: Score, second: Score) -> Difference | None:
    """The difference of two scores of one metric, label and extractor; None where one lacks what an interval is made from.

    None, too, where leaving out no group moves the difference.
    """
    if (first.metric, first.label, first.extractor) != (second.metric, second.label, second.extractor):
        raise ValueError(f"{first.metric} of {first.label} by {first.extractor} and {second.metric} of {second.label} by "
                         f"{second.extractor} are not one figure")
    if first.value is None or second.value is None or not first.without_fake or not second.without_fake:
        return None
    parts = [*_parts(first.without_real, second.without_real, first.real_key == second.real_key),
             *_parts(first.without_fake, second.without_fake, first.fake_key == second.fake_key)]
    found = spread([part for part in parts if len(part)])
    moved = found is not None and found[0] > ROUNDING * max(abs(first.value), abs(second.value))
    return _judge(first.value - second.value, *found) if moved else None


def _parts(first: Sequence[float], second: Sequence[float], shared: bool) -> list[np.ndarray]:
    """The differences with each group left out of both; apart where the groups are not the same."""
    a, b = np.asarray(first), np.asarray(second)
    return [a - b] if shared and len(a) == len(b) else [a, b]


def _judge(value: float, error: float, degrees: int) -> Difference:
    from scipy.stats import t

    half, p = quantile(degrees) * error, float(2 * t.sf(abs(value) / error, degrees))
    return Difference(value, value - half, value + half, p, half + quantile(degrees, POWER) * error)
