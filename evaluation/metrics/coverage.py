"""Coverage by nearest neighbours: how many real images have a generated one near (Naeem et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import option
from ..measures.neighbours import BallMetric
from ..metric import METRICS, MetricConfig, MetricFacts


@dataclass(frozen=True)
class CoverageConfig(MetricConfig):
    """The neighbours besides what every metric has."""

    k: int = option(5, "The nearest neighbour that a ball reaches to.", low=1, high=1000, advanced=True)


@METRICS.register("coverage")
class Coverage(BallMetric):
    """Recall that images strewn all over cannot lift. Fewer generated than real images lower it."""

    name = "coverage"
    facts = MetricFacts(
        title="Coverage",
        direction="higher",
        says="the share of real images that have a generated one within the distance to their k-th nearest real "
             "neighbour",
        paper="Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models",
        low=0.0,
        high=1.0,
    )
    Config = CoverageConfig

    def share(self, across: np.ndarray, radii: np.ndarray) -> float:
        return float((across.min(1) <= radii).mean())
