"""The squared Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017), in exact and fast forms.

With centred features X (N, D) and Y (M, D), each divided by sqrt(N - 1), the covariances are X^T X and Y^T Y, and the trace of
the square root of their product is the nuclear norm of X Y^T: for fewer images than dimensions that is a small matrix. For more,
it is the sum of the square roots of the eigenvalues of L^T S L, where L is a Cholesky factor of one covariance and S the other.
"""

from __future__ import annotations

import numpy as np

from .moments import Moments


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


def frechet_of_moments(real: Moments, fake: Moments) -> float:
    """The same from moments of at least two features each."""
    shift = real.mean - fake.mean
    first, second = real.covariance, fake.covariance
    return max(0.0, float(shift @ shift + np.trace(first) + np.trace(second) - 2 * _trace_of_root(first, second)))


def _trace_of_root(first: np.ndarray, second: np.ndarray) -> float:
    """tr (first second)^(1/2) of two covariances (D, D)."""
    try:
        root = np.linalg.cholesky(first)
    except np.linalg.LinAlgError:  # singular: a constant feature, or fewer independent images than dimensions
        values, vectors = np.linalg.eigh(first)
        root = vectors * np.sqrt(values.clip(0))
    return float(np.sqrt(np.linalg.eigvalsh(root.T @ second @ root).clip(0)).sum())
