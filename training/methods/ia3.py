"""IA3: trained scales of the attention's keys and values and of the feed-forward layers' inner activations (Liu et al., NeurIPS 2022,
https://arxiv.org/abs/2205.05638), by peft.

A scale of outputs is the same as one of the weight's rows and of the bias, a scale of inputs one of its columns. The file says so in
few numbers: a low-rank update of zero whose `dora_scale` is the scale times the norm of each row or column, by which stock loaders
rescale them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...config import option
from ..changes import norms
from ..injected import InjectedMethod, Injection, names
from ..method import METHODS, Facts
from ..targets import Place, ending

if TYPE_CHECKING:
    from peft import PeftConfig

    from ..base import Base

_OUTPUTS = (".to_k", ".to_v", ".k_proj", ".v_proj")
_INPUTS = (".ff.net.2", ".mlp.fc2")


@dataclass(frozen=True)
class IA3Config:
    """What is trained besides the U-Net's."""

    text_encoder: bool = option(False, "Train scales of the text encoder's keys, values and feed-forward layers too.")


@METHODS.register("ia3")
class IA3(InjectedMethod):
    """Train scales of keys, values and inner activations."""

    name = "ia3"
    Config = IA3Config
    facts = Facts(
        title="IA3", paper="Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
        year=2022,
        trains="scales of the keys and values of the U-Net's attention and of the inputs of its last feed-forward layers, optionally "
               "of the text encoder's", cost="99,840 on Stable Diffusion 1.5", merges=True,
        file="a scale for each row or column of the scaled weights", zero_start=True, lr=3e-3)

    def chosen(self, base: Base) -> list[Place]:
        return ending(base, self.trains(base), _OUTPUTS + _INPUTS)

    def settings(self, places: list[Place]) -> PeftConfig:
        from peft import IA3Config as Settings

        return Settings(target_modules=names(places), feedforward_modules=[name for name in names(places) if name.endswith(_INPUTS)])

    def written(self, injection: Injection) -> dict[str, Tensor]:
        weight, bias, scale = injection.weight, injection.base.bias, injection.parameters["ia3_l"]
        tensors = {".lora_up.weight": torch.zeros(weight.shape[0], 1), ".lora_down.weight": torch.zeros(1, weight.shape[1]),
                   ".dora_scale": scale * norms(weight, rows=not injection.layer.is_feedforward)}
        if bias is not None and not injection.layer.is_feedforward:
            tensors[".diff_b"] = (scale.flatten() - 1) * bias
        return tensors

    def read(self, injection: Injection, tensors: Mapping[str, Tensor]) -> None:
        norm = norms(injection.weight, rows=not injection.layer.is_feedforward)
        injection.parameters["ia3_l"].copy_(tensors[".dora_scale"] / norm)
