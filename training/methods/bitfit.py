"""BitFit: only the biases of the U-Net are trained (Ben Zaken et al., ACL 2022, https://arxiv.org/abs/2106.10199)."""

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
class BitFitConfig:
    """Nothing to choose: all biases of the U-Net are trained."""


@METHODS.register("bitfit")
class BitFit(Method):
    """Train the biases of the U-Net."""

    name = "bitfit"
    Config = BitFitConfig
    facts = Facts(
        title="BitFit", paper="Ben Zaken et al., BitFit: Simple Parameter-efficient Fine-tuning", year=2022,
        trains="the biases of the U-Net", cost="343,684 on Stable Diffusion 1.5", merges=True,
        file="the difference of each bias", zero_start=True, lr=1e-4)

    def attach(self, base: Base, generator: Generator) -> None:
        freeze(base)
        for parameter in self.named(base).values():
            parameter.requires_grad_(True)

    def named(self, base: Base) -> dict[str, Parameter]:
        return {name: parameter for name, parameter in base.unet.named_parameters() if name.rpartition(".")[2] == "bias"}

    def export(self, base: Base) -> dict[str, Tensor]:
        original = base.original("unet")
        return {diff_key(name): (parameter.detach().to("cpu", torch.float32) - original[name].float()).contiguous()
                for name, parameter in self.named(base).items()}

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        named = self.named(base)
        check_keys(tensors, {diff_key(name): parameter.shape for name, parameter in named.items()}, self.name)
        original = base.original("unet")
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(original[name].float() + tensors[diff_key(name)])
