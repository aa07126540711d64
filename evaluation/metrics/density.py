"""Density by nearest neighbours: how many real images a generated one lies near (Naeem et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import option
from ..measures.neighbours import BallMetric
from ..metric import METRICS, MetricConfig, MetricFacts


@dataclass(frozen=True)
class DensityConfig(MetricConfig):
    """The neighbours besides what every metric has."""

    k: int = option(5, "The nearest neighbour that a ball reaches to.", low=1, high=1000, advanced=True)


@METRICS.register("density")
class Density(BallMetric):
    """Precision that one stray real image cannot lift; it has no upper bound."""

    name = "density"
    facts = MetricFacts(
        title="Density",
        direction="higher",
        says="in how many real images' balls, of the radius of the k-th nearest real neighbour, a generated image lies, "
             "over k; about 1 for sets of one kind, above it where the real images lie close",
        paper="Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models",
        low=0.0,
    )
    Config = DensityConfig

    def share(self, across: np.ndarray, radii: np.ndarray) -> float:
        return float((across <= radii[:, None]).sum(0).mean() / self.config.k)
