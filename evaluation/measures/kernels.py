"""The unbiased squared maximum mean discrepancy (MMD, Gretton et al. 2012) of two sets, for any kernel.

It is computed over all pairs of images instead of random subsets: exact, and the same each time. The kernel is summed in
blocks, one a group of patients; their sums are all that the figure and its jackknife interval need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Features (N, D), (M, D) -> the kernel of each pair (N, M)."""
Weighted = Callable[[np.ndarray, np.ndarray], np.ndarray]


def squared_mmd(real: np.ndarray, fake: np.ndarray, kernel: Kernel) -> float:
    """The unbiased squared MMD of (N, D) and (M, D) features, N and M at least 2; it can be negative."""
    return KernelSums.of(real, fake, kernel, np.zeros(len(real), int), np.zeros(len(fake), int)).distance()


def weighted_mmd(real: np.ndarray, fake: np.ndarray, kernel: Kernel) -> Weighted:
    """The unbiased squared MMD as a function of weights; an image drawn twice makes no pair with itself."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    within_real, within_fake, across = kernel(real, real), kernel(fake, fake), kernel(real, fake)
    np.fill_diagonal(within_real, 0)
    np.fill_diagonal(within_fake, 0)

    def within(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
        pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((weights @ gram) * weights).sum(1) / pairs

    def figure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return within(within_real, a) + within(within_fake, b) - 2 * ((a @ across) * b).sum(1) / (a.sum(1) * b.sum(1))

    return figure


@dataclass(frozen=True)
class KernelSums:
    """Sums of the kernel over the pairs of two groups: real-real (G, G), fake-fake (H, H), real-fake (G, H).

    The first two leave out the pairs of an image with itself. ``n`` and ``m`` are the groups' sizes.
    """

    real: np.ndarray
    fake: np.ndarray
    cross: np.ndarray
    n: np.ndarray
    m: np.ndarray

    @classmethod
    def of(cls, real: np.ndarray, fake: np.ndarray, kernel: Kernel, real_groups: np.ndarray, fake_groups: np.ndarray) -> KernelSums:
        """The sums of features (N, D), (M, D) by groups (N,), (M,)."""
        real, fake = real.astype(np.float64), fake.astype(np.float64)
        return cls(_within(real, real_groups, kernel), _within(fake, fake_groups, kernel),
                   _sums(real, real_groups, fake, fake_groups, kernel), np.bincount(real_groups), np.bincount(fake_groups))

    def distance(self, real_out: int | None = None, fake_out: int | None = None) -> float:
        """The unbiased squared MMD, with one group left out; NaN where fewer than two images are left."""
        a, b = np.arange(len(self.n)) != real_out, np.arange(len(self.m)) != fake_out
        n, m = self.n[a].sum(), self.m[b].sum()
        if min(n, m) < 2:
            return float("nan")
        return float(self.real[a][:, a].sum() / (n * (n - 1)) + self.fake[b][:, b].sum() / (m * (m - 1))
                     - 2 * self.cross[a][:, b].sum() / (n * m))

    def without(self) -> tuple[list[float], list[float]]:
        """The distances with each group of real, and with each of generated images left out."""
        return ([self.distance(real_out=group) for group in range(len(self.n))],
                [self.distance(fake_out=group) for group in range(len(self.m))])


def _sums(x: np.ndarray, x_groups: np.ndarray, y: np.ndarray, y_groups: np.ndarray, kernel: Kernel) -> np.ndarray:
    """The kernel's sums (G, H) over the pairs of each two groups."""
    members = (y_groups[:, None] == np.arange(y_groups.max() + 1)).astype(np.float64)  # (M, H)
    return np.stack([kernel(x[x_groups == group], y).sum(0) @ members for group in range(x_groups.max() + 1)])


def _within(values: np.ndarray, groups: np.ndarray, kernel: Kernel) -> np.ndarray:
    """The same within one set (G, G), without the pairs of an image with itself."""
    parts = [values[groups == group] for group in range(groups.max() + 1)]
    return _sums(values, groups, values, groups, kernel) - np.diag([np.trace(kernel(part, part)) for part in parts])
