"""Whether two classifiers differ in how many images they get right: McNemar's test on the images that one of them alone gets right.

McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 1947. Below
``EXACT`` such images the binomial distribution is used, else the chi-squared one with Edwards' correction for continuity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXACT = 25


@dataclass(frozen=True)
class McNemar:
    """``first`` images that the first alone gets right, ``second`` the second alone; two-sided p, ``exact`` or approximate."""

    first: int
    second: int
    p: float
    exact: bool


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """The test of two classifiers' (N,) right answers on the same images; ValueError where their numbers differ."""
    from scipy.stats import binomtest, chi2

    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"answers to {first.shape} and {second.shape} images; both must be of the same images")
    ours, theirs = int((first & ~second).sum()), int((~first & second).sum())
    if ours + theirs == 0:
        return McNemar(0, 0, 1.0, True)
    if ours + theirs < EXACT:
        return McNemar(ours, theirs, float(binomtest(ours, ours + theirs).pvalue), True)
    return McNemar(ours, theirs, float(chi2.sf(max(abs(ours - theirs) - 1, 0) ** 2 / (ours + theirs), 1)), False)
