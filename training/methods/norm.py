"""Norm tuning: only the weights and biases of normalisations are trained (Frankle et al., ICLR 2021, "Training BatchNorm and Only
BatchNorm", https://arxiv.org/abs/2003.00152; here of group and layer normalisation)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...config import option
from ..direct import NORMS, DirectMethod
from ..method import METHODS, Facts


@dataclass(frozen=True)
class NormConfig:
    """Whose normalisations are trained."""

    text_encoder: bool = option(False, "Train the normalisations of the text encoder too.")


@METHODS.register("norm")
class Norm(DirectMethod):
    """Train the scale and the shift of every normalisation of the U-Net, optionally of the text encoder."""

    name = "norm"
    Config = NormConfig
    facts = Facts(
        title="Norm tuning", paper="Frankle et al., Training BatchNorm and Only BatchNorm", year=2021,
        trains="weights and biases of the U-Net's group and layer normalisations, optionally of the text encoder's",
        cost="200,320 on Stable Diffusion 1.5", merges=True, file="the difference of each of them", zero_start=True, lr=1e-4)

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return isinstance(module, NORMS)
