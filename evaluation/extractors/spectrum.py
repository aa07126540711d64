"""Radially averaged power spectra of images: the space of the metric "spectrum". They need no weights.

How much power an image has at each fineness, whatever the direction (Durall et al. 2020): generators blur, ring and repeat, which
shows there first. A Hann window keeps the edges of the picture from showing as fine detail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.record import Record
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts

BANDS = 64
FLOOR = 1e-8
"""The least power that is told from none: the rounding of 8-bit pixels alone has 1.3e-6."""


@dataclass(frozen=True)
class SpectrumConfig:
    """There is nothing to choose."""


@EXTRACTORS.register("spectrum")
class Spectrum(Extractor):
    """The mean power, in decibels, in each of 64 bands of frequency from none to half a cycle a pixel.

    White noise of variance v has the power v in every band. Bands that an image of less than 128 pixels has nothing in are drawn
    between their neighbours.
    """

    name = "spectrum"
    facts = ExtractorFacts(
        title="Radial power spectrum",
        says=f"the power of an image's grey levels, in decibels, in {BANDS} bands of frequency",
        paper="Durall et al. 2020, Watch your Up-Convolution",
        needs="nothing",
    )
    Config = SpectrumConfig
    id = f"spectrum-{BANDS}-hann"

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> Spectrum:
        return cls()

    def features(self, images: Tensor) -> Tensor:
        grey = images.mean(1).double()  # (N, H, W)
        bands = _Bands.of(*grey.shape[1:])
        grey = (grey - grey.mean((1, 2), keepdim=True)) * bands.window
        power = torch.fft.fft2(grey).abs().square() / bands.window.square().sum()
        means = torch.stack([torch.bincount(bands.each, row, minlength=BANDS + 2)[1:-1] for row in power.flatten(1)]) @ bands.between
        return (10 * means.clamp_min(FLOOR).log10()).float()


@dataclass(frozen=True)
class _Bands:
    """A window (H, W); the band (H W,) of each frequency, 0 for the mean grey and BANDS + 1 beyond the last; sums of power by
    band -> means, also where a band is empty (BANDS, BANDS)."""

    window: Tensor
    each: Tensor
    between: Tensor

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, height: int, width: int) -> _Bands:
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")).ravel()
        each = np.ceil(radius * 2 * BANDS - 1e-9).astype(int).clip(0, BANDS + 1)
        counts = np.bincount(each, minlength=BANDS + 2)[1:-1]
        filled = np.flatnonzero(counts)
        between = np.zeros((BANDS, BANDS))
        for place in filled:
            between[place] = np.interp(np.arange(BANDS), filled, filled == place) / counts[place]
        window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(side) + 0.5) / side) for side in (height, width)))
        return cls(*map(torch.from_numpy, (window, each, between)))
