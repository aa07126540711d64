"""DoRA: a low-rank update of each weight's direction, and a trained magnitude of each of its rows (Liu et al., ICML 2024,
https://arxiv.org/abs/2402.09353), by peft.

W' = m (W + B A) / |W + B A|, row by row. ComfyUI's loader divides a file's `dora_scale` by |W| instead, so that the file holds the
difference W' - W itself, which every loader adds in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ...config import option
from ..injected import ADAPTER, InjectedMethod, Injection, names, rank_pattern
from ..method import METHODS, Facts
from ..targets import Place, check_ranks, patterns_option, targets_option, text_encoder_option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class DoRAConfig:
    """Size and place of the updates."""

    rank: int = option(8, "Rank of each update of a direction.", low=1, high=1024)
    alpha: float = option(16.0, "The update is scaled by alpha / rank.", above=0, high=4096, step=1)
    targets: str = targets_option()
    dropout: float = option(0.0, "Share of an update's inputs that are dropped while training.", low=0, high=0.9, step=0.05,
                            advanced=True)
    patterns: str = patterns_option("rank")
    text_encoder: bool = text_encoder_option()


@METHODS.register("dora")
class DoRA(InjectedMethod):
    """Train magnitude and direction of the weights' rows apart, the direction by a low-rank update."""

    name = "dora"
    Config = DoRAConfig
    drawn = ("lora_A",)
    facts = Facts(
        title="DoRA", paper="Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation", year=2024,
        trains="low-rank updates of the U-Net's attention and a magnitude of each output, optionally of other layers and of the text "
               "encoder", cost="1.69 M at rank 8 on Stable Diffusion 1.5's attention", merges=True,
        file="the full difference of each weight", zero_start=True, lr=1e-4, continues=False)

    def check(self, places: list[Place]) -> None:
        check_ranks(places, self.config.rank, "DoRAConfig.rank")

    def settings(self, places: list[Place]) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(r=self.config.rank, lora_alpha=self.config.alpha, lora_dropout=self.config.dropout, use_dora=True,
                          target_modules=names(places), rank_pattern=rank_pattern(places), init_lora_weights=True)

    def written(self, injection: Injection) -> dict[str, Tensor]:
        weight, delta = injection.weight, injection.layer.get_delta_weight(ADAPTER)
        magnitude = injection.layer.lora_magnitude_vector[ADAPTER]
        norm = magnitude.get_weight_norm(weight, delta, scaling=1)
        ratio = (magnitude.weight / norm).reshape(-1, *[1] * (weight.ndim - 1))
        return {".diff": (ratio - 1) * weight + ratio * delta}
