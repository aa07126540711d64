"""Metrics that are a figure of weights: what is left when a group is left out is that figure at weights of 0 and 1."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ..features import Features
from ..metric import Metric, Weighted


class WeightedMetric(Metric):
    """A metric that is given by its weighted form alone."""

    @abstractmethod
    def weighted(self, real: Features, fake: Features) -> Weighted:
        """How often each real and each generated image counts -> the figures; Undefined where these images have none."""

    def figure(self, real: Features, fake: Features) -> float:
        return float(self.weighted(real, fake)(np.ones((1, len(real))), np.ones((1, len(fake))))[0])

    def without(self, real: Features, fake: Features, real_groups: np.ndarray,
                fake_groups: np.ndarray) -> tuple[list[float], list[float]]:
        figure, (of_real, of_fake) = self.weighted(real, fake), map(_left, (real_groups, fake_groups))
        without_real = figure(of_real, np.ones((len(of_real), len(fake)))) if self.facts.uses_real else np.zeros(0)
        return without_real.tolist(), figure(np.ones((len(of_fake), len(real))), of_fake).tolist()


class ImageMean(WeightedMetric):
    """The mean of a value of each generated image."""

    @abstractmethod
    def values(self, fake: Features) -> np.ndarray:
        """The value of each image: (M,)."""

    def weighted(self, real: Features, fake: Features) -> Weighted:
        values = self.values(fake)

        def figure(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):
                return weights @ values / weights.sum(1)

        return figure


def _left(groups: np.ndarray) -> np.ndarray:
    """1 for the images that are left without each group, else 0: (G, N)."""
    return (groups != np.arange(groups.max() + 1)[:, None]).astype(np.float64)
