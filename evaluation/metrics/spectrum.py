"""Spectrum: the log-spectral distance between mean radial power spectra (Gray and Markel 1976; Durall et al. 2020)."""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..measures.mean import WeightedMetric
from ..metric import METRICS, MetricFacts, Weighted


@METRICS.register("spectrum")
class Spectrum(WeightedMetric):
    """Blur, noise and the grids that networks leave show here, before they show in what the image is of."""

    name = "spectrum"
    facts = MetricFacts(
        title="Spectrum distance",
        direction="lower",
        says="by how many decibels the generated images' mean power spectrum is off the real ones': the root mean square over bands "
             "from coarse to fine",
        paper="Gray and Markel 1976, Distance measures for speech processing; Durall et al. 2020, Watch your Up-Convolution",
        space="spectrum",
        low=0.0,
    )

    def weighted(self, real: Features, fake: Features) -> Weighted:
        of_real, of_fake = (features.values.astype(np.float64) for features in (real, fake))  # (N, bands), (M, bands) in decibels

        def figure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            off = a @ of_real / a.sum(1, keepdims=True) - b @ of_fake / b.sum(1, keepdims=True)
            return np.sqrt((off**2).mean(1))

        return figure
