"""LoHa: the update of a weight as the entrywise product of two low-rank matrices (FedPara: Hyeon-Woo et al., ICLR 2022,
https://arxiv.org/abs/2108.06098; in LyCORIS: Yeh et al., ICLR 2024, https://arxiv.org/abs/2309.14859), by peft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...config import option
from ..injected import ADAPTER, InjectedMethod, Injection, names, rank_pattern, read_factors
from ..method import METHODS, Facts
from ..targets import Place, check_ranks, patterns_option, targets_option, text_encoder_option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class LoHaConfig:
    """Size and place of the updates."""

    rank: int = option(4, "Rank of both factors: their product can reach its square, at twice LoRA's cost.", low=1, high=256)
    alpha: float = option(4.0, "The update is scaled by alpha / rank.", above=0, high=4096, step=1)
    targets: str = targets_option()
    tucker: bool = option(False, "Factor the kernels of convolutions too (Tucker), which makes them smaller.", advanced=True)
    patterns: str = patterns_option("rank")
    text_encoder: bool = text_encoder_option()


@METHODS.register("loha")
class LoHa(InjectedMethod):
    """Train the entrywise product of two low-rank matrices beside each weight."""

    name = "loha"
    Config = LoHaConfig
    drawn = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_t1", "hada_t2")
    facts = Facts(
        title="LoHa", paper="Hyeon-Woo et al., FedPara: Low-rank Hadamard Product; Yeh et al., LyCORIS", year=2022,
        trains="the product of two low-rank updates of the U-Net's attention, optionally of its other layers and of the text encoder",
        cost="1.59 M at rank 4 on Stable Diffusion 1.5's attention", merges=True,
        file="a LoHa in LyCORIS' keys", zero_start=True, lr=5e-4)

    def check(self, places: list[Place]) -> None:
        check_ranks(places, self.config.rank, "LoHaConfig.rank")

    def settings(self, places: list[Place]) -> PeftConfig:
        from peft import LoHaConfig as Settings

        return Settings(r=self.config.rank, alpha=self.config.alpha, use_effective_conv2d=self.config.tucker,
                        target_modules=names(places), rank_pattern=rank_pattern(places), init_weights=True)

    def written(self, injection: Injection) -> dict[str, Tensor]:
        return {**{f".{name}": parameter for name, parameter in injection.parameters.items()},
                ".alpha": torch.tensor(float(injection.layer.alpha[ADAPTER]))}

    def read(self, injection: Injection, tensors: Mapping[str, Tensor]) -> None:
        read_factors(injection, tensors)
