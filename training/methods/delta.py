"""Weight delta: a full difference beside each frozen linear and convolution weight (what the code of "Pixels Under Pressure" calls
DiffFit). Unlike full fine-tuning, weight decay draws the difference to zero and not the weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ...config import option
from ..direct import PARTS, DirectMethod, key_of, named_layers, plain
from ..method import METHODS, Facts, check_keys

if TYPE_CHECKING:
    from ..base import Base


class DeltaLinear(nn.Linear):
    """A linear layer with a trained difference `delta` of its weight."""

    delta: Parameter

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight + self.delta, self.bias)


class DeltaConv2d(nn.Conv2d):
    """A convolution with a trained difference `delta` of its weight."""

    delta: Parameter

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight + self.delta, self.bias)


@dataclass(frozen=True)
class DeltaConfig:
    """Whose weights get a difference."""

    text_encoder: bool = option(False, "Train a difference of the text encoder's linear layers too.")


@METHODS.register("delta")
class Delta(DirectMethod):
    """Train a difference of each linear and convolution weight of the U-Net, optionally of the text encoder."""

    name = "delta"
    Config = DeltaConfig
    facts = Facts(
        title="Weight delta", paper="Pixels Under Pressure (there named DiffFit)", year=2025,
        trains="a full difference of each linear and convolution weight of the U-Net, optionally of the text encoder's linear layers",
        cost="859.1 M on Stable Diffusion 1.5", merges=True, file="the full difference of each weight", zero_start=True, lr=1e-5)

    def extend(self, base: Base) -> None:
        for part in PARTS:
            if part in self.trains(base):
                for _, layer in named_layers(getattr(base, part), (nn.Linear, nn.Conv2d)):
                    layer.__class__ = DeltaLinear if isinstance(layer, nn.Linear) else DeltaConv2d
                    layer.delta = Parameter(torch.zeros_like(layer.weight))

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return end == "delta"

    def _keyed(self, base: Base) -> dict[str, Parameter]:
        return {key_of(base, part, name.removesuffix("delta") + "weight"): parameter
                for (part, name), parameter in self.chosen(base).items()}

    def export(self, base: Base) -> dict[str, Tensor]:
        return {key: plain(parameter) for key, parameter in self._keyed(base).items()}

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        keyed = self._keyed(base)
        check_keys(tensors, {key: parameter.shape for key, parameter in keyed.items()}, self.name)
        with torch.no_grad():
            for key, parameter in keyed.items():
                parameter.copy_(tensors[key])
