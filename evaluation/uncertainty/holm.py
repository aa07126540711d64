"""P-values of several tests, raised so that one false alarm among all of them stays as rare as in one test.

Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(values: Sequence[float | None]) -> list[float | None]:
    """The adjusted p-values in the same order; tests without a p-value stay None and do not count."""
    order = sorted((index for index, value in enumerate(values) if value is not None), key=lambda index: values[index])
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * values[index]))
        adjusted[index] = largest
    return adjusted
