"""The Frechet distance against the matrix root, clean-fid and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from medtune.evaluation.measures.gaussians import frechet_distance

SHAPES = [(40, 30, 64), (64, 40, 64), (65, 64, 64), (300, 200, 16), (30, 500, 64)]  # fewer images than dimensions, as many, more


@pytest.mark.parametrize("shape", SHAPES)
def test_frechet_equals_the_matrix_root(normal, shape):
    n, m, dims = shape
    real, fake = normal(n, dims, 1).astype(float), normal(m, dims, 2, 1.3, 0.2).astype(float)
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    shift = real.mean(0) - fake.mean(0)
    root = scipy.linalg.sqrtm(a @ b).real if min(n, m) > dims + 1 else _root_of_product(a, b)
    expected = shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(root)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-6)


def _root_of_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A matrix with the trace of (a b)^(1/2), by the symmetric form, which holds for singular covariances too."""
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    values, vectors = np.linalg.eigh(root @ b @ root)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


@pytest.mark.parametrize("shape", [(65, 64, 64), (300, 200, 16)])
def test_frechet_equals_clean_fid(normal, shape):
    cleanfid = pytest.importorskip("cleanfid.fid")
    real, fake = normal(shape[0], shape[2], 1).astype(float), normal(shape[1], shape[2], 2, 1.3, 0.2).astype(float)
    try:
        expected = cleanfid.frechet_distance(real.mean(0), np.cov(real, rowvar=False), fake.mean(0), np.cov(fake, rowvar=False))
    except TypeError:
        pytest.skip("this scipy's sqrtm is too new for clean-fid")
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-3 if shape[1] <= shape[2] else 1e-6)


def test_frechet_of_gaussians_in_closed_form():
    """Independent features of exactly known means and variances: sum of (m - n)^2 + (s - t)^2."""
    signs = scipy.linalg.hadamard(16)[:, 1:5].astype(float)  # orthogonal columns of mean 0
    real = signs * [1, 2, 3, 4] + [0, 1, 0, 0]
    fake = signs * [2, 2, 1, 4] + [0, 0, 0, 3]
    unbiased = 16 / 15
    assert frechet_distance(real, fake) == pytest.approx(1 + 9 + unbiased * (1 + 0 + 4 + 0), rel=1e-9)


def test_both_branches_of_frechet_meet(normal):
    real, fake = normal(40, 32, 3).astype(float), normal(33, 32, 4).astype(float)  # as many as dimensions, plus one: both can be used
    tall = frechet_distance(real, fake)
    wide = frechet_distance(np.pad(real, ((0, 0), (0, 20))), np.pad(fake, ((0, 0), (0, 20))))  # empty dimensions change nothing
    assert wide == pytest.approx(tall, rel=1e-6)


def test_constant_features_have_a_distance(normal):
    real, fake = normal(100, 8, 5).astype(float), normal(90, 8, 6).astype(float)
    real[:, 3], fake[:, 3], fake[:, 4] = 1.0, 3.0, 2.0
    free = [0, 1, 2, 5, 6, 7]
    expected = 4 + (real[:, 4].mean() - 2) ** 2 + frechet_distance(real[:, free], fake[:, free]) + real[:, 4].var(ddof=1)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(np.ones((10, 4)), np.full((10, 4), 2.0)) == pytest.approx(4)
