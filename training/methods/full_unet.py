"""Full fine-tuning: every weight of the U-Net is trained, and the file carries the difference of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import Parameter

from ..keys import diff_key
from ..method import METHODS, Facts, Method, check_keys, freeze

if TYPE_CHECKING:
    from ..base import Base


@dataclass(frozen=True)
class FullUNetConfig:
    """Nothing to choose: all of the U-Net is trained."""


@METHODS.register("full-unet")
class FullUNet(Method):
    """Train all of the U-Net."""

    name = "full-unet"
    Config = FullUNetConfig
    facts = Facts(
        title="Full U-Net", paper="Ho et al., Denoising Diffusion Probabilistic Models", year=2020,
        trains="every weight of the U-Net", cost="859.5 M on Stable Diffusion 1.5", merges=True,
        file="the full difference of each weight", zero_start=True, lr=1e-5)

    def attach(self, base: Base, generator: Generator) -> None:
        freeze(base)
        base.unet.requires_grad_(True)

    def named(self, base: Base) -> dict[str, Parameter]:
        return dict(base.unet.named_parameters())

    def export(self, base: Base) -> dict[str, Tensor]:
        original, named = base.original("unet"), self.named(base)
        return {diff_key(name): (parameter.detach().to("cpu", torch.float32) - original[name].float()).contiguous()
                for name, parameter in named.items()}

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        named = self.named(base)
        check_keys(tensors, {diff_key(name): parameter.shape for name, parameter in named.items()}, self.name)
        original = base.original("unet")
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(original[name].float() + tensors[diff_key(name)])
