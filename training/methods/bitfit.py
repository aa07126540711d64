"""BitFit: only the biases are trained (Ben Zaken et al., ACL 2022, https://arxiv.org/abs/2106.10199)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...config import option
from ..direct import DirectMethod
from ..method import METHODS, Facts


@dataclass(frozen=True)
class BitFitConfig:
    """Whose biases are trained."""

    text_encoder: bool = option(False, "Train the biases of the text encoder too.")


@METHODS.register("bitfit")
class BitFit(DirectMethod):
    """Train the biases of the U-Net, optionally of the text encoder."""

    name = "bitfit"
    Config = BitFitConfig
    facts = Facts(
        title="BitFit", paper="Ben Zaken et al., BitFit: Simple Parameter-efficient Fine-tuning", year=2022,
        trains="the biases of the U-Net, optionally of the text encoder", cost="343,684 on Stable Diffusion 1.5", merges=True,
        file="the difference of each bias", zero_start=True, lr=1e-4)

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return end == "bias"
