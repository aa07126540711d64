"""The squared Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017), in exact and fast forms.

With centred features X (N, D) and Y (M, D), each divided by sqrt(N - 1), the covariances are X^T X and Y^T Y, and the trace of
the square root of their product is the nuclear norm of X Y^T: for fewer images than dimensions that is a small matrix. For more,
it is the sum of the square roots of the eigenvalues of L^T S L, where L is a Cholesky factor of one covariance and S the other.
"""

from __future__ import annotations

import numpy as np

from ..moments import Moments


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The squared Frechet distance of (N, D) and (M, D) features, N and M at least 2, at least 0; in the features' units squared."""
    means = real.mean(0, dtype=np.float64), fake.mean(0, dtype=np.float64)
    x, y = real - means[0], fake - means[1]  # (N, D), (M, D), in double precision
    shift, scale = means[0] - means[1], np.sqrt((len(x) - 1.0) * (len(y) - 1.0))
    if min(len(x), len(y)) <= x.shape[1]:
        spread = np.vdot(x, x) / (len(x) - 1) + np.vdot(y, y) / (len(y) - 1)
        overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum() / scale
    else:
        first, second = x.T @ x, y.T @ y  # the scatters
        spread = np.trace(first) / (len(x) - 1) + np.trace(second) / (len(y) - 1)
        overlap = _trace_of_root(first, second) / scale
    return max(0.0, float(shift @ shift + spread - 2 * overlap))


def frechet_of_moments(real: Moments, fake: Moments) -> float:
    """The same from moments of at least two features each."""
    shift = real.mean - fake.mean
    first, second = real.covariance, fake.covariance
    return max(0.0, float(shift @ shift + np.trace(first) + np.trace(second) - 2 * _trace_of_root(first, second)))


def _trace_of_root(first: np.ndarray, second: np.ndarray) -> float:
    """tr (first second)^(1/2) of two covariances (D, D)."""
    from scipy.linalg import lapack

    root, failed = lapack.dpotrf(first, lower=1, clean=0)
    if failed:  # singular: a constant feature, or fewer independent images than dimensions
        values, vectors = np.linalg.eigh(first)
        half = vectors * np.sqrt(values.clip(0))
        product = half.T @ second @ half
    else:
        product, _ = lapack.dsygst(second, root, itype=2, lower=1)  # L^T S L, of which the lower half is computed and read
    return float(np.sqrt(np.linalg.eigvalsh(product, UPLO="L").clip(0)).sum())
