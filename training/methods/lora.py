"""LoRA: a low-rank update B A beside each chosen weight (Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685), by peft.

With the variants that change how it starts and learns and not what it is: rsLoRA (Kalajdzievski 2023,
https://arxiv.org/abs/2312.03732), LoRA+ (Hayou et al., ICML 2024, https://arxiv.org/abs/2402.12354) and PiSSA (Meng et al., NeurIPS
2024, https://arxiv.org/abs/2404.02948). PiSSA trains the largest singular directions B0 A0 of a weight and freezes the rest; its file
holds the difference from the original weight, B A - B0 A0, as one update of twice the rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.nn import Parameter

from ...config import option
from ...errors import ModelError
from ..injected import ADAPTER, InjectedMethod, Injection, check_scale, draw_uniform, names, rank_pattern
from ..method import METHODS, Facts
from ..targets import Place, check_ranks, patterns_option, targets_option, text_encoder_option

if TYPE_CHECKING:
    from peft import PeftConfig

    from ..base import Base

STARTS = ("kaiming", "gaussian", "pissa")


@dataclass(frozen=True)
class LoRAConfig:
    """Size and place of the low-rank updates."""

    rank: int = option(8, "Rank of each update: a higher one can change more and makes a larger file.", low=1, high=1024)
    alpha: float = option(16.0, "The update is scaled by alpha / rank.", above=0, high=4096, step=1)
    targets: str = targets_option()
    dropout: float = option(0.0, "Share of an update's inputs that are dropped while training.", low=0, high=0.9, step=0.05,
                            advanced=True)
    patterns: str = patterns_option("rank")
    text_encoder: bool = text_encoder_option()
    rank_stabilised: bool = option(False, "rsLoRA: scale by alpha / sqrt(rank), so that a high rank learns as fast as a low one. The "
                                          "file says the same by its alpha.", advanced=True)
    up_ratio: float = option(1.0, "LoRA+: how many times the learning rate the matrix B learns at, which starts at zero; its paper "
                                  "advises 2 to 16.", above=0, high=256, step=1, advanced=True)
    start: str = option("kaiming", "How A starts: uniform as in the paper's code, normal with deviation 1 / rank, or (PiSSA) A and B "
                                   "as the largest singular directions of the weight, which learn faster.", choices=STARTS,
                        advanced=True)


@METHODS.register("lora")
class LoRA(InjectedMethod):
    """Train low-rank updates of the weights of the U-Net and, on request, of the text encoder."""

    name = "lora"
    Config = LoRAConfig
    facts = Facts(
        title="LoRA", paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models", year=2022,
        trains="low-rank updates of the U-Net's attention, optionally of its other layers and of the text encoder",
        cost="1.59 M at rank 8 on Stable Diffusion 1.5's attention", merges=True,
        file="a LoRA in kohya's keys", zero_start=True, lr=1e-4)

    def check(self, places: list[Place]) -> None:
        check_ranks(places, self.config.rank, "LoRAConfig.rank")

    def settings(self, places: list[Place]) -> PeftConfig:
        from peft import LoraConfig

        config = self.config
        return LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, use_rslora=config.rank_stabilised,
                          target_modules=names(places), rank_pattern=rank_pattern(places), init_lora_weights=True)

    def start(self, injection: Injection, generator: Generator) -> None:
        down, rank = injection.parameters["lora_A"], injection.layer.r[ADAPTER]
        if self.config.start == "kaiming":
            draw_uniform(down, generator)
        elif self.config.start == "gaussian":
            with torch.no_grad():
                down.copy_(torch.randn(down.shape, generator=generator, device=generator.device) / rank)
        else:
            _start_as_singular_directions(injection)

    def parameters(self, base: Base) -> list[dict[str, Any]]:
        if self.config.up_ratio == 1:
            return super().parameters(base)
        groups: dict[str, list[Parameter]] = {"lora_A": [], "lora_B": []}
        for name, parameter in self.named(base).items():
            groups[name.rpartition(".")[2]].append(parameter)
        return [{"name": "lora_A", "params": groups["lora_A"]},
                {"name": "lora_B", "params": groups["lora_B"], "lr_scale": self.config.up_ratio}]

    def written(self, injection: Injection) -> dict[str, Tensor]:
        up, down = injection.parameters["lora_B"], injection.parameters["lora_A"]
        if self.config.start == "pissa":
            up, down = torch.cat([up, -injection.layer.first_up], dim=1), torch.cat([down, injection.layer.first_down])
        return {".lora_down.weight": down, ".lora_up.weight": up, ".alpha": torch.tensor(injection.layer.scaling[ADAPTER] * len(down))}

    def read(self, injection: Injection, tensors: Mapping[str, Tensor]) -> None:
        up, down = tensors[".lora_up.weight"], tensors[".lora_down.weight"]
        check_scale(injection, tensors[".alpha"], len(down))
        rank = injection.layer.r[ADAPTER]
        if self.config.start == "pissa":
            _check_start(injection, -up[:, rank:], down[rank:])
        injection.parameters["lora_B"].copy_(up[:, :rank])
        injection.parameters["lora_A"].copy_(down[:rank])


@torch.no_grad()
def _start_as_singular_directions(injection: Injection) -> None:
    """B A the best approximation of the weight at its rank; the base's weight is left with the rest."""
    up, down, weight = injection.parameters["lora_B"], injection.parameters["lora_A"], injection.weight
    rank, scale = injection.layer.r[ADAPTER], injection.layer.scaling[ADAPTER]
    left, values, right = torch.linalg.svd(weight.flatten(1).float(), full_matrices=False)
    root = (values[:rank] / scale).sqrt()
    up.copy_((left[:, :rank] * root).reshape(up.shape))
    down.copy_((root[:, None] * right[:rank]).reshape(down.shape))
    weight.sub_(scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape))
    injection.layer.register_buffer("first_up", up.detach().clone(), persistent=False)
    injection.layer.register_buffer("first_down", down.detach().clone(), persistent=False)


def _check_start(injection: Injection, up: Tensor, down: Tensor) -> None:
    """Raise ModelError unless a file's B0 A0 is what this base's weight gave."""
    mine, theirs = injection.layer.first_up.flatten(1) @ injection.layer.first_down.flatten(1), up.flatten(1) @ down.flatten(1)
    if not torch.allclose(mine, theirs, atol=1e-4 * float(mine.abs().max()), rtol=0):
        raise ModelError(f"this adapter started from the singular directions of other weights than {injection.title} of this base "
                         "has. Go on with the base and the setting start that it was made with.")
