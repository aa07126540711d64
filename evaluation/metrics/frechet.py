"""Frechet distance between Gaussians fitted to real and generated features (Heusel et al. 2017)."""

from __future__ import annotations

from ..features import Features
from ..measures.gaussians import frechet_distance, frechet_of_moments
from ..metric import METRICS, Metric, MetricFacts
from ..moments import Moments


@METRICS.register("frechet")
class Frechet(Metric):
    """FID's formula in any feature space. It grows with the square of the features' scale: compare only within one extractor."""

    name = "frechet"
    facts = MetricFacts(
        title="Fréchet distance",
        direction="lower",
        says="how far the generated images' features lie from the real ones', in mean and in spread",
        paper="Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule",
        low=0.0,
    )

    def figure(self, real: Features, fake: Features) -> float:
        return frechet_distance(real.values, fake.values)

    def of_moments(self, real: Moments, fake: Moments) -> float:
        return frechet_of_moments(real, fake)
