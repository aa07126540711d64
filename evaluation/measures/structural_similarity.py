"""Multi-scale structural similarity of two images (MS-SSIM, Wang, Simoncelli and Bovik 2003).

Windows are Gaussian, 11 pixels wide with a sigma of 1.5, without padding; scales are halved by the mean of 2 x 2 pixels. What
depends on one image alone is computed once for all its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The scales' exponents, from fine to coarse, that the paper found by experiment."""
WINDOW, SIGMA = 11, 1.5
LUMINANCE, CONTRAST = 0.01**2, 0.03**2
LEAST_SIDE = WINDOW * 2 ** (len(WEIGHTS) - 1)
"""Sides below which the coarsest scale is smaller than the window: 176 pixels."""


@dataclass(frozen=True)
class Pyramid:
    """Of each scale of an image: its pixels (C, H, W), and their local means and variances (C, H - 10, W - 10)."""

    pixels: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    variances: tuple[Tensor, ...]

    @classmethod
    def of(cls, image: Tensor) -> Pyramid:
        """The scales of an image (C, H, W) in [0, 1] of sides of at least 176 pixels; three equal channels are taken as one."""
        if len(image) == 3 and torch.equal(image[0], image[1]) and torch.equal(image[0], image[2]):
            image = image[:1]
        pixels = [image.double()]
        while len(pixels) < len(WEIGHTS):
            pixels.append(functional.avg_pool2d(pixels[-1], 2))
        means = [_blur(scale) for scale in pixels]
        return cls(tuple(pixels), tuple(means), tuple(_blur(scale**2) - mean**2 for scale, mean in zip(pixels, means)))


def ms_ssim(first: Pyramid, second: Pyramid) -> float:
    """The similarity of two images of one size, the mean over their channels: 1 for equal ones, 0 where a scale is unlike."""
    found = torch.ones(())
    for scale, weight in enumerate(WEIGHTS):
        mean_x, mean_y = first.means[scale], second.means[scale]
        together = _blur(first.pixels[scale] * second.pixels[scale]) - mean_x * mean_y
        map_ = (2 * together + CONTRAST) / (first.variances[scale] + second.variances[scale] + CONTRAST)
        if scale == len(WEIGHTS) - 1:
            map_ = map_ * (2 * mean_x * mean_y + LUMINANCE) / (mean_x**2 + mean_y**2 + LUMINANCE)
        found = found * map_.mean((1, 2)).clamp_min(0) ** weight  # (C,)
    return float(found.mean())


def _blur(image: Tensor) -> Tensor:
    """Local means (C, H - 10, W - 10) by the Gaussian window."""
    window = torch.exp(-((torch.arange(WINDOW, dtype=image.dtype) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    window = window / window.sum()
    columns = functional.conv2d(image[:, None], window[None, None, :, None])
    return functional.conv2d(columns, window[None, None, None])[:, 0]
