"""FD infinity: the Frechet distance of infinitely many images, extrapolated from subsets (Chong and Forsyth 2020).

The distance of n images is too large by about a constant over n. It is taken of subsets of several sizes, and a straight line in
1 / n is drawn through them; where it meets 0 is the figure. The paper does so for the generated images, with many real ones;
here both sets are small, so that the same share of both is drawn, by patient. For Gaussians of 64 and 128 dimensions the line held
where the smallest subset had more images than dimensions; with fewer the figure was up to nine times too large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...config import option
from ..features import Features
from ..measures.gaussians import frechet_distance
from ..metric import METRICS, Metric, MetricConfig, MetricFacts, Undefined


@dataclass(frozen=True)
class FDInfinityConfig(MetricConfig):
    """The subsets besides what every metric has."""

    sizes: int = option(4, "Sizes of subsets; the largest is the whole set.", low=2, high=50, advanced=True)
    smallest: float = option(0.5, "The smallest subset, as a share of the whole set.", above=0, high=0.9, step=0.05, advanced=True)
    seed: int = option(0, "Seed of the subsets.", low=0, high=2**63 - 1, advanced=True)


@METRICS.register("fd-infinity")
class FDInfinity(Metric):
    """It can be below 0 when the sets hardly differ, and wavers more than the distance itself."""

    name = "fd-infinity"
    facts = MetricFacts(
        title="FD∞",
        direction="lower",
        says="the Fréchet distance extrapolated to infinitely many images, so that numbers of images matter little",
        paper="Chong and Forsyth 2020, Effectively Unbiased FID and Inception Score and Where to Find Them",
        biased=False,
    )
    Config = FDInfinityConfig

    def figure(self, real: Features, fake: Features) -> float:
        shares, dimensions = np.linspace(1, self.config.smallest, self.config.sizes), real.values.shape[1]
        least, few = int(self.config.smallest * min(len(real), len(fake))), max(self.config.least, dimensions + 1)
        if least < few:
            raise Undefined(f"the smallest subset has {least} images in {dimensions} dimensions; with fewer than {few} the distance "
                            "is no straight line in one over their number: at least "
                            f"{math.ceil(few / self.config.smallest)} real and generated images are needed")
        values = [features.values.astype(np.float64)[_order(features, self.config.seed)] for features in (real, fake)]
        return extrapolate(shares, [_distance(*values, share) for share in shares])


def _distance(real: np.ndarray, fake: np.ndarray, share: float) -> float:
    """The mean distance of as many disjoint subsets, each a share of both sets, as there are."""
    count = int(1 / share + 1e-9)
    n, m = int(share * len(real) + 1e-9), int(share * len(fake) + 1e-9)
    return float(np.mean([frechet_distance(real[part * n:(part + 1) * n], fake[part * m:(part + 1) * m]) for part in range(count)]))


def extrapolate(shares: np.ndarray, distances: list[float]) -> float:
    """Where the straight line through the distances (S,) over one by the sets' shares (S,) meets 0."""
    return float(np.polynomial.polynomial.polyfit(1 / np.asarray(shares), distances, 1)[0])


def _order(features: Features, seed: int) -> np.ndarray:
    """The images (N,) in an order drawn by patient: a subset is the beginning."""
    _, unit = np.unique(features.units(), return_inverse=True)
    place = np.random.default_rng(seed).permutation(unit.max() + 1)
    return np.argsort(place[unit.reshape(-1)], kind="stable")
