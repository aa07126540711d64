"""Mean, spread and cosines of features as sums that can be added to and merged: as much memory for 50,000 images as for 500.

The mean and the scatter about it are merged by the pairwise update of Chan, Golub and LeVeque (1979), which loses no digits to a
large mean. The cosine moment, the sum of the outer products of features of length 1, is what the Vendi score is made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Of ``n`` features (N, D): ``mean`` (D,), ``scatter`` (D, D) about it, ``cosine`` (D, D); ``empty`` of them have length 0."""

    n: int
    mean: np.ndarray
    scatter: np.ndarray
    cosine: np.ndarray
    empty: int = 0

    @classmethod
    def none(cls, dims: int) -> Moments:
        """Those of no features."""
        return cls(0, np.zeros(dims), np.zeros((dims, dims)), np.zeros((dims, dims)))

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Those of features (N, D)."""
        if not len(values):
            return cls.none(values.shape[1])
        values = values.astype(np.float64)
        mean = values.mean(0)
        centred = values - mean
        length = np.linalg.norm(values, axis=1)
        rows = values[length > 0] / length[length > 0, None]
        return cls(len(values), mean, centred.T @ centred, rows.T @ rows, int((length == 0).sum()))

    def merge(self, other: Moments) -> Moments:
        """Those of both sets together."""
        n = self.n + other.n
        if n == 0:
            return self
        shift = other.mean - self.mean
        return Moments(n, self.mean + shift * (other.n / n),
                       self.scatter + other.scatter + np.outer(shift, shift) * (self.n * other.n / n),
                       self.cosine + other.cosine, self.empty + other.empty)

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance (D, D), of two features or more."""
        return self.scatter / (self.n - 1)


def merged(parts: list[Moments]) -> Moments:
    """Those of all sets together."""
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total
