"""Kernel Inception distance: the unbiased squared MMD with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018)."""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..measures.kernels import KernelSums, squared_mmd, weighted_mmd
from ..metric import METRICS, Metric, MetricFacts, Weighted


@METRICS.register("kid")
class KID(Metric):
    """Unbiased, so that it can be compared between numbers of images; it can be negative when the sets hardly differ.

    The cubic kernel grows with the sixth power of the features' scale: images far from anything the extractor knows give huge figures.
    """

    name = "kid"
    facts = MetricFacts(
        title="KID",
        direction="lower",
        says="how easily a cubic kernel tells generated from real images; 0 for sets of one kind, whatever their size",
        paper="Binkowski et al. 2018, Demystifying MMD GANs",
        biased=False,
    )

    def figure(self, real: Features, fake: Features) -> float:
        return kernel_distance(real.values, fake.values)

    def without(self, real: Features, fake: Features, real_groups: np.ndarray,
                fake_groups: np.ndarray) -> tuple[list[float], list[float]]:
        return KernelSums.of(real.values, fake.values, kernel, real_groups, fake_groups).without()

    def weighted(self, real: Features, fake: Features) -> Weighted:
        return weighted_mmd(real.values, fake.values, kernel)


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The KID of (N, D) and (M, D) features, N and M at least 2."""
    return squared_mmd(real, fake, kernel)


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 of each pair: (N, M)."""
    values = x @ y.T / x.shape[1] + 1
    return values * values * values
