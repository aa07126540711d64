"""LoKr: the update of a weight as the Kronecker product of a small matrix and a larger, low-rank one (KronA: Edalati et al., 2022,
https://arxiv.org/abs/2212.10650; in LyCORIS: Yeh et al., ICLR 2024, https://arxiv.org/abs/2309.14859), by peft.

Kernels of convolutions are not factored as LyCORIS can: ComfyUI fails on such a factor (`lokr_t2`) and leaves the weight as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from ...config import option
from ...errors import ConfigError, listing
from ..injected import ADAPTER, InjectedMethod, Injection, names, rank_pattern, read_factors
from ..method import METHODS, Facts
from ..targets import Place, check_ranks, patterns_option, targets_option, text_encoder_option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class LoKrConfig:
    """Size and place of the updates."""

    rank: int = option(8, "Rank of the larger factor; where it is at least half the factor's size, the factor is trained whole.",
                       low=1, high=1024)
    alpha: float = option(8.0, "The update is scaled by alpha / rank, and not at all where both factors are whole.", above=0,
                          high=4096, step=1)
    factor: int = option(-1, "Size of the small factor, which must divide the layers' inputs and outputs; -1 makes both factors as "
                             "nearly square as the layer allows.", low=-1, high=1024)
    targets: str = targets_option()
    decompose_both: bool = option(False, "Make the small factor low-rank too, where the rank is below half its size.", advanced=True)
    patterns: str = patterns_option("rank")
    text_encoder: bool = text_encoder_option()


@METHODS.register("lokr")
class LoKr(InjectedMethod):
    """Train the Kronecker product of two matrices beside each weight."""

    name = "lokr"
    Config = LoKrConfig
    drawn = ("lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    facts = Facts(
        title="LoKr", paper="Edalati et al., KronA: Parameter-Efficient Tuning with Kronecker Adapter; Yeh et al., LyCORIS", year=2022,
        trains="Kronecker products as updates of the U-Net's attention, optionally of its other layers and of the text encoder",
        cost="138,592 at rank 8 on Stable Diffusion 1.5's attention", merges=True,
        file="a LoKr in LyCORIS' keys", zero_start=True, lr=5e-4)

    def check(self, places: list[Place]) -> None:
        check_ranks(places, self.config.rank, "LoKrConfig.rank")
        factor = self.config.factor
        if factor in (0, 1):
            raise ConfigError(f"LoKrConfig.factor is {factor}; it must be -1, or the size of the small factor: at least 2")
        sizes = {place.title: place.layer.weight.shape[:2] for place in places}
        wrong = [f"{title} ({rows} x {columns})" for title, (rows, columns) in sizes.items() if factor > 0 and (rows % factor
                                                                                                             or columns % factor)]
        if wrong:
            common = math.gcd(*(size for shape in sizes.values() for size in shape))
            fitting = [value for value in range(2, common + 1) if common % value == 0]
            raise ConfigError(f"LoKrConfig.factor is {factor}, and does not divide {len(wrong)} of the {len(places)} chosen layers: "
                              f"{listing(wrong)}. Factors that fit all of them: -1, {listing(fitting, 20)}.")

    def settings(self, places: list[Place]) -> PeftConfig:
        from peft import LoKrConfig as Settings

        return Settings(r=self.config.rank, alpha=self.config.alpha, decompose_factor=self.config.factor,
                        decompose_both=self.config.decompose_both,
                        target_modules=names(places), rank_pattern=rank_pattern(places), init_weights=True)

    def start(self, injection: Injection, generator: Generator) -> None:
        super().start(injection, generator)
        if injection.parameters.keys() == {"lokr_w1", "lokr_w2"}:  # LyCORIS and stock loaders pass over alpha here
            injection.layer.scaling[ADAPTER] = 1.0

    def written(self, injection: Injection) -> dict[str, Tensor]:
        alpha = injection.layer.scaling[ADAPTER] * injection.layer.r[ADAPTER]
        return {**{f".{name}": parameter for name, parameter in injection.parameters.items()}, ".alpha": torch.tensor(float(alpha))}

    def read(self, injection: Injection, tensors: Mapping[str, Tensor]) -> None:
        read_factors(injection, tensors)
