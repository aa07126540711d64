"""From which correlation on two images are taken for copies: set by how alike images of other patients are in the data itself.

The best match of an image among many is an extreme value, so that its Fisher transform is taken to follow a Gumbel distribution
(Gumbel 1958, "Statistics of Extremes"). It is fitted by the quartiles: up to a quarter of the images may be copies, and the threshold
does not see them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FEWEST = 20
"""Images of other patients from which their likeness can be told."""
WITHOUT = 0.95
"""The threshold where there are fewer."""
LOWEST, HIGHEST = 0.5, 0.97
"""Half the texture's spread is not yet a copy; and copies that were shifted and saved as JPEG correlate with at least so much."""


@dataclass(frozen=True)
class Threshold:
    """``value``: the correlation from which on images count as copies; ``false_alarms``: the chance that an image of another patient
    reaches it, or None where nothing is known of that; ``n``: the images that this comes from; ``how`` says it in words."""

    value: float
    false_alarms: float | None
    n: int
    how: str

    def to_json(self) -> dict[str, Any]:
        """The threshold as JSON values."""
        return asdict(self)


def choose_threshold(null: Sequence[float], false_alarms: float, lowest: float = LOWEST) -> Threshold:
    """The threshold that images of other patients reach with that chance, from the best correlation of each of some of them; it is
    kept above ``lowest``."""
    if len(null) < FEWEST:
        return Threshold(WITHOUT, None, len(null), f"a constant: with {len(null)} images of other patients, fewer than {FEWEST}, it "
                         "cannot be told how alike they are")
    place, width = _fit(np.arctanh(np.clip(null, -0.999999, 0.999999)))
    wanted = math.tanh(place - width * math.log(-math.log1p(-false_alarms)))
    value = min(max(wanted, lowest), HIGHEST)
    chance = -math.expm1(-math.exp(-(math.atanh(value) - place) / width)) if width else 0.0
    how = (f"images of other patients reach it with a chance of {chance:.2g} (a Gumbel distribution fitted to the best correlations "
           f"of {len(null)} of them, the largest {max(null):.3f})")
    if value != wanted:
        how += f"; for a chance of {false_alarms:.2g} it would be {wanted:.3f}, and it is kept within {lowest} to {HIGHEST}"
    return Threshold(value, chance, len(null), how)


def _fit(values: np.ndarray) -> tuple[float, float]:
    """Location and scale of the Gumbel distribution with these values' quartiles."""
    first, median, third = np.quantile(values, [0.25, 0.5, 0.75])
    width = (third - first) / (math.log(math.log(4)) - math.log(math.log(4 / 3)))
    return float(median + width * math.log(math.log(2))), float(width)
