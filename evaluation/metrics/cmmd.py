"""CMMD: the squared MMD of image-text features with a Gaussian kernel, times 1000 (Jayasumana et al. 2024).

The paper's code has the biased form; this is the unbiased one, which does not depend on how many images there are.
"""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..measures.cosine import directions
from ..measures.kernels import KernelSums, squared_mmd, weighted_mmd
from ..metric import CAPTIONS, METRICS, Metric, MetricFacts, Weighted

SIGMA = 10.0
SCALE = 1000.0


@METRICS.register("cmmd")
class CMMD(Metric):
    """Features are brought to length 1 first. It can be negative when the sets hardly differ."""

    name = "cmmd"
    facts = MetricFacts(
        title="CMMD",
        direction="lower",
        says="how easily a Gaussian kernel tells generated from real images in an image-text model's features, times 1000; "
             "0 for sets of one kind, whatever their size",
        paper="Jayasumana et al. 2024, Rethinking FID: Towards a Better Evaluation Metric for Image Generation",
        biased=False,
        space=CAPTIONS,
    )

    def figure(self, real: Features, fake: Features) -> float:
        return SCALE * squared_mmd(directions(real.values), directions(fake.values), kernel)

    def without(self, real: Features, fake: Features, real_groups: np.ndarray,
                fake_groups: np.ndarray) -> tuple[list[float], list[float]]:
        sums = KernelSums.of(directions(real.values), directions(fake.values), kernel, real_groups, fake_groups)
        without_real, without_fake = sums.without()
        return [SCALE * value for value in without_real], [SCALE * value for value in without_fake]

    def weighted(self, real: Features, fake: Features) -> Weighted:
        figure = weighted_mmd(directions(real.values), directions(fake.values), kernel)
        return lambda a, b: SCALE * figure(a, b)


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """exp(-|x - y|^2 / (2 SIGMA^2)) of each pair of (N, D) and (M, D): (N, M)."""
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    return np.exp(-squares.clip(0) / (2 * SIGMA**2))
