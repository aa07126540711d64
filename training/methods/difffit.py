"""DiffFit: biases, normalisations, and a scale after each attention and feed-forward layer (Xie et al., ICCV 2023,
https://arxiv.org/abs/2304.06648).

A scale `gamma` of a layer's outputs is the same as gamma times each row of its weight, and gamma times its bias. The file says so in
few numbers: a low-rank update of zero whose `dora_scale` is gamma times the norm of each row, by which stock loaders rescale the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ...config import option
from ..changes import norms
from ..direct import NORMS, PARTS, DirectMethod, differences, named_layers, plain, restore, shapes, stem_of
from ..method import METHODS, Facts, check_keys

if TYPE_CHECKING:
    from ..base import Base

_SCALED = ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2", "self_attn.out_proj", "mlp.fc2")
_SUFFIXES = (".lora_up.weight", ".lora_down.weight", ".dora_scale")


class ScaledLinear(nn.Linear):
    """A linear layer with a scale `gamma` (outputs,) of its outputs."""

    gamma: Parameter

    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        return output * self.gamma.to(output.dtype)


@dataclass(frozen=True)
class DiffFitConfig:
    """What is trained besides the U-Net's."""

    text_encoder: bool = option(False, "Train biases, normalisations and scales of the text encoder too.")


@METHODS.register("difffit")
class DiffFit(DirectMethod):
    """Train biases and normalisations, and a scale after each self-attention, cross-attention and feed-forward layer."""

    name = "difffit"
    Config = DiffFitConfig
    facts = Facts(
        title="DiffFit", paper="Xie et al., DiffFit: Unlocking Transferability of Large Diffusion Models", year=2023,
        trains="biases and normalisations of the U-Net, and a scale after each attention and feed-forward layer; optionally those of "
               "the text encoder", cost="481,284 on Stable Diffusion 1.5, 37,440 of them scales", merges=True,
        file="the difference of each bias and norm, and a scale for each row of the scaled weights", zero_start=True, lr=1e-4)

    def extend(self, base: Base) -> None:
        for part in PARTS:
            if part in self.trains(base):
                for path, layer in named_layers(getattr(base, part), (nn.Linear,)):
                    if path.endswith(_SCALED):
                        layer.__class__ = ScaledLinear
                        layer.gamma = Parameter(torch.ones(layer.out_features, device=layer.weight.device))

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return end in ("bias", "gamma") or isinstance(module, NORMS)

    def _scaled(self, base: Base) -> dict[tuple[str, str], ScaledLinear]:
        """(part, path) -> layer with a scale."""
        return {(part, path): layer for part in PARTS if part in self.trains(base)
                for path, layer in named_layers(getattr(base, part), (ScaledLinear,))}

    def _without_scales(self, base: Base) -> dict[tuple[str, str], Parameter]:
        return {(part, name): parameter for (part, name), parameter in self.chosen(base).items() if not name.endswith(".gamma")}

    def export(self, base: Base) -> dict[str, Tensor]:
        tensors = differences(base, self._without_scales(base))
        for (part, path), layer in self._scaled(base).items():
            stem, weight, gamma = stem_of(base, part, path), plain(layer.weight), plain(layer.gamma)
            tensors[f"{stem}.lora_up.weight"] = torch.zeros(len(gamma), 1)
            tensors[f"{stem}.lora_down.weight"] = torch.zeros(1, weight.shape[1])
            tensors[f"{stem}.dora_scale"] = gamma[:, None] * norms(weight, rows=True)
            tensors[f"{stem}.diff_b"] += (gamma - 1) * plain(layer.bias)
        return tensors

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        scaled, others = self._scaled(base), self._without_scales(base)
        expected = dict(shapes(base, others))
        for (part, path), layer in scaled.items():
            sizes = ((layer.out_features, 1), (1, layer.in_features), (layer.out_features, 1))
            expected |= {stem_of(base, part, path) + suffix: size for suffix, size in zip(_SUFFIXES, sizes, strict=True)}
        check_keys(tensors, expected, self.name)
        restore(base, others, tensors)  # of scaled layers: gamma times the bias
        with torch.no_grad():
            for (part, path), layer in scaled.items():
                rows = tensors[stem_of(base, part, path) + ".dora_scale"].to(layer.weight.device)
                layer.gamma.copy_((rows / norms(layer.weight, rows=True))[:, 0])
                layer.bias.div_(layer.gamma)
