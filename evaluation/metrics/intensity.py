"""Intensity: the Wasserstein-1 (earth mover's) distance between pooled grey-level histograms (Rubner et al. 2000)."""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..measures.mean import WeightedMetric
from ..metric import METRICS, MetricFacts, Weighted


@METRICS.register("intensity")
class Intensity(WeightedMetric):
    """All pixels of all images count alike. It sees brightness and contrast of the set, not what lies where."""

    name = "intensity"
    facts = MetricFacts(
        title="Intensity distance",
        direction="lower",
        says="how far grey levels would have to move, on average, to turn the generated images' pooled histogram into the real ones'; "
             "1 is from black to white",
        paper="Rubner et al. 2000, The Earth Mover's Distance as a Metric for Image Retrieval",
        space="intensity",
        low=0.0,
        high=1.0,
    )

    def weighted(self, real: Features, fake: Features) -> Weighted:
        below = [np.cumsum(features.values.astype(np.float64), axis=1) for features in (real, fake)]  # (N, levels), (M, levels)
        steps = real.values.shape[1] - 1

        def figure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            pooled = [weights @ one / weights.sum(1, keepdims=True) for weights, one in zip((a, b), below)]
            return np.abs(pooled[0] - pooled[1])[:, :-1].sum(1) / steps

        return figure
