"""Recall by nearest neighbours: how many real images the generated ones come near (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import option
from ..measures.neighbours import BallMetric
from ..metric import METRICS, MetricConfig, MetricFacts


@dataclass(frozen=True)
class RecallConfig(MetricConfig):
    """The neighbours besides what every metric has."""

    k: int = option(3, "The nearest neighbour that a ball reaches to.", low=1, high=1000, advanced=True)


@METRICS.register("recall")
class Recall(BallMetric):
    """Diversity alone: images strewn all over have a high one, for their balls are large."""

    name = "recall"
    facts = MetricFacts(
        title="Recall",
        direction="higher",
        says="the share of real images that lie where generated ones do: within a generated image's distance to its "
             "k-th nearest generated neighbour",
        paper="Kynkäänniemi et al. 2019, Improved Precision and Recall Metric for Assessing Generative Models",
        low=0.0,
        high=1.0,
    )
    Config = RecallConfig
    around_fake = True

    def share(self, across: np.ndarray, radii: np.ndarray) -> float:
        return float((across <= radii[:, None]).any(0).mean())
