"""Frechet distance between Gaussians fitted to real and generated features (Heusel et al. 2017), in exact and fast forms.

With centred features X (N, D) and Y (M, D), each divided by sqrt(N - 1), the covariances are X^T X and Y^T Y, and the trace of
the square root of their product is the nuclear norm of X Y^T: for fewer images than dimensions that is a small matrix. For more,
it is the sum of the square roots of the eigenvalues of L^T S L, where L is a Cholesky factor of one covariance and S the other.
"""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..metric import METRICS, Metric, MetricFacts


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
        return frechet_distance(real.values.astype(np.float64), fake.values.astype(np.float64))


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The squared Frechet distance of (N, D) and (M, D) features, N and M at least 2, at least 0; in the features' units squared."""
    shift = real.mean(0) - fake.mean(0)
    x = (real - real.mean(0)) / np.sqrt(len(real) - 1)  # (N, D)
    y = (fake - fake.mean(0)) / np.sqrt(len(fake) - 1)  # (M, D)
    if min(len(x), len(y)) <= x.shape[1]:
        overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    else:
        overlap = _trace_of_root(x.T @ x, y.T @ y)
    return max(0.0, float(shift @ shift + (x * x).sum() + (y * y).sum() - 2 * overlap))


def _trace_of_root(first: np.ndarray, second: np.ndarray) -> float:
    """tr (first second)^(1/2) of two covariances (D, D)."""
    try:
        root = np.linalg.cholesky(first)
    except np.linalg.LinAlgError:  # singular: a constant feature, or fewer independent images than dimensions
        values, vectors = np.linalg.eigh(first)
        root = vectors * np.sqrt(values.clip(0))
    return float(np.sqrt(np.linalg.eigvalsh(root.T @ second @ root).clip(0)).sum())
