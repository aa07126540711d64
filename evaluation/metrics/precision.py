"""Precision by nearest neighbours: how many generated images look like real ones (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import option
from ..measures.neighbours import BallMetric
from ..metric import METRICS, MetricConfig, MetricFacts


@dataclass(frozen=True)
class PrecisionConfig(MetricConfig):
    """The neighbours besides what every metric has."""

    k: int = option(3, "The nearest neighbour that a ball reaches to.", low=1, high=1000, advanced=True)


@METRICS.register("precision")
class Precision(BallMetric):
    """Fidelity alone: a few good images, repeated, have a high one. One stray real image with a large ball can lift it."""

    name = "precision"
    facts = MetricFacts(
        title="Precision",
        direction="higher",
        says="the share of generated images that lie where real ones do: within a real image's distance to its k-th "
             "nearest real neighbour",
        paper="Kynkäänniemi et al. 2019, Improved Precision and Recall Metric for Assessing Generative Models",
        low=0.0,
        high=1.0,
    )
    Config = PrecisionConfig

    def share(self, across: np.ndarray, radii: np.ndarray) -> float:
        return float((across <= radii[:, None]).any(0).mean())
