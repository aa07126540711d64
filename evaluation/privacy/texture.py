"""The texture of an image, by which copies are told from look-alikes, and its correlation with another's over small shifts.

Radiographs of two patients share the large shadows; what they do not share are edges and markings. A difference of two Gaussians
keeps those: what is finer is lost in JPEG and in an autoencoder, what is coarser is everybody's. The normalised correlation
(Lewis 1995, "Fast Normalized Cross-Correlation") does not change with brightness and contrast.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 1 / 16  # of the side, left out: what a shift or a collimator put there


def texture(images: Tensor, side: int, fine: float, coarse: float) -> Tensor:
    """Textures (N, side, side) of images (N, 3, H, W): their greys blurred by ``fine`` minus by ``coarse``, in pixels of ``side``."""
    grey = functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), side)
    return (_blurred(grey, fine) - _blurred(grey, coarse))[:, 0]


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Images (N, 1, H, W) through a Gaussian of that deviation; the outermost pixels go on outside."""
    reach = math.ceil(3 * deviation)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (places / deviation) ** 2)
    weights = (weights / weights.sum()).view(1, 1, 1, -1)
    wide = functional.conv2d(functional.pad(images, (reach, reach, 0, 0), mode="replicate"), weights)
    return functional.conv2d(functional.pad(wide, (0, 0, reach, reach), mode="replicate"), weights.transpose(2, 3))


def inner(textures: Tensor) -> Tensor:
    """Textures (N, S, S) without their margins."""
    margin = round(textures.shape[-1] * MARGIN)
    return textures[..., margin:-margin, margin:-margin]


def unit(values: Tensor) -> Tensor:
    """Textures (N, S, S) as vectors (N, S * S) of mean 0 and length 1, whose products are correlations; 0 where there is none."""
    flat = values.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > FLAT * math.sqrt(flat.shape[1]), flat / length.clamp_min(1e-30), torch.zeros_like(flat))


FLAT = 1e-5
"""Root mean square of a texture, in greys of 0 to 1, below which there is none: a constant image."""


def shifted_correlation(first: np.ndarray, second: np.ndarray, reach: int) -> tuple[float, tuple[int, int]]:
    """The largest correlation of two textures (S, S) over shifts of up to ``reach`` pixels, and the shift (down, right) that the
    first then has against the second; (0, (0, 0)) where one has no texture."""
    margin = round(first.shape[0] * MARGIN) + reach
    size = first.shape[0] - 2 * margin
    template = first[margin:margin + size, margin:margin + size].astype(np.float64)
    template = template - template.mean()
    length = np.sqrt((template**2).sum())
    around = slice(margin - reach, margin + size + reach)
    spreads = _window_norms(second[around, around].astype(np.float64), size)
    if length < FLAT * size or (spreads < FLAT * size).any():
        return 0.0, (0, 0)
    found = np.empty_like(spreads)
    for down, right in np.ndindex(found.shape):
        top, left = margin - reach + down, margin - reach + right
        found[down, right] = np.einsum("ij,ij", template, second[top:top + size, left:left + size])
    found /= spreads * length
    down, right = (int(place) for place in np.unravel_index(found.argmax(), found.shape))
    return float(found[down, right]), (reach - down, reach - right)


def _window_norms(values: np.ndarray, size: int) -> np.ndarray:
    """The length of each window of ``size`` after its mean is taken off."""
    sums, squares = (_window_sums(part, size) for part in (values, values**2))
    return np.sqrt(np.maximum(squares - sums**2 / size**2, 0))


def _window_sums(values: np.ndarray, size: int) -> np.ndarray:
    total = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
