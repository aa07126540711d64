"""VeRA: one pair of frozen random matrices for all layers, and two trained vectors a layer that scale them (Kopiczko et al., ICLR
2024, https://arxiv.org/abs/2310.11454), by peft.

diag(b) B diag(d) A is a low-rank update like any other: the file is a LoRA with diag(b) B and diag(d) A multiplied out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...config import option
from ...errors import ModelError
from ..injected import ADAPTER, InjectedMethod, Injection, names
from ..method import METHODS, Facts
from ..targets import Place, check_no_sizes, linear_layer, patterns_option, targets_option, text_encoder_option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class VeRAConfig:
    """Size and place of the updates."""

    rank: int = option(256, "Rank of the shared random matrices: a higher one costs one number more a layer, and a larger file.",
                       low=1, high=2048)
    targets: str = targets_option(" Convolutions are left out.")
    start: float = option(0.1, "What the scales of A start at; those of B start at 0.", above=0, high=10, advanced=True)
    projection_seed: int = option(0, "What the random matrices are drawn from: they are not in the file, and training goes on from it "
                                     "with the same seed alone.", low=0, high=2**31 - 1, advanced=True)
    patterns: str = patterns_option("")
    text_encoder: bool = text_encoder_option()


@METHODS.register("vera")
class VeRA(InjectedMethod):
    """Train two vectors a layer that scale shared random matrices."""

    name = "vera"
    Config = VeRAConfig
    fits = staticmethod(linear_layer)
    facts = Facts(
        title="VeRA", paper="Kopiczko et al., VeRA: Vector-based Random Matrix Adaptation", year=2024,
        trains="two vectors a layer that scale random matrices shared by the linear layers of the U-Net's attention, optionally "
               "of other linear layers and of the text encoder",
        cost="132,608 at rank 256 on Stable Diffusion 1.5's attention", merges=True,
        file="a LoRA in kohya's keys", zero_start=True, lr=5e-3)

    def check(self, places: list[Place]) -> None:
        check_no_sizes(places, self.facts.title)

    def settings(self, places: list[Place]) -> PeftConfig:
        from peft import VeraConfig

        return VeraConfig(r=self.config.rank, d_initial=self.config.start, projection_prng_key=self.config.projection_seed,
                          save_projection=True, target_modules=names(places))

    def inject(self, network: nn.Module, settings: PeftConfig) -> None:
        from peft import VeraModel

        VeraModel(network, settings, ADAPTER)  # it makes the matrices that the layers share

    def written(self, injection: Injection) -> dict[str, Tensor]:
        up, down = _matrices(injection)
        scales = injection.parameters
        return {".lora_down.weight": scales["vera_lambda_d"][:, None] * down, ".lora_up.weight": scales["vera_lambda_b"][:, None] * up,
                ".alpha": torch.tensor(float(self.config.rank))}

    def read(self, injection: Injection, tensors: Mapping[str, Tensor]) -> None:
        ends = {"vera_lambda_b": ".lora_up.weight", "vera_lambda_d": ".lora_down.weight"}
        for (name, end), matrix in zip(ends.items(), _matrices(injection), strict=True):
            scale = (tensors[end] * matrix).sum(dim=1) / matrix.square().sum(dim=1)
            if not torch.allclose(scale[:, None] * matrix, tensors[end], atol=1e-4 * float(tensors[end].abs().max()), rtol=1e-4):
                raise ModelError(f"this adapter's {injection.title} is no scaled part of the random matrices that projection_seed "
                                 f"{self.config.projection_seed} draws. Set projection_seed and targets to those it was made with.")
            injection.parameters[name].copy_(scale)


def _matrices(injection: Injection) -> tuple[Tensor, Tensor]:
    """The parts of B (outputs, rank) and A (rank, inputs) that a layer uses."""
    layer, weight = injection.layer, injection.weight
    return layer.vera_B[ADAPTER][:weight.shape[0]].to(weight.device), layer.vera_A[ADAPTER][:, :weight.shape[1]].to(weight.device)
