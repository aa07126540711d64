"""LoRA: a low-rank update B A beside each chosen weight (Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685), by peft."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn import Parameter

from ...config import option
from ...errors import ConfigError, ModelError, listing
from ..keys import kohya_name
from ..method import METHODS, Facts, Method, check_keys, freeze

if TYPE_CHECKING:
    from ..base import Base

ADAPTER = "medtune"

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_THIN = ("conv_in", "conv_out")  # from and to the 4 latent channels: of hardly any rank

TARGETS = ("attention", "attention+ff", "all-linear", "all")


@dataclass(frozen=True)
class LoRAConfig:
    """Size and place of the low-rank updates."""

    rank: int = option(8, "Rank of each update: a higher one can change more and makes a larger file.", low=1, high=1024)
    alpha: float = option(16.0, "The update is scaled by alpha / rank.", above=0, high=4096, step=1)
    targets: str = option("attention", "Which layers: the attention's four projections; those and the feed-forward layers; every "
                          "linear layer, with the time embedding's; or those and the convolutions of the blocks (ResNets, resampling, "
                          "projections into and out of attention). The first and last convolution are never among them.",
                          choices=TARGETS)
    dropout: float = option(0.0, "Share of an update's inputs that are dropped while training.", low=0, high=0.9, step=0.05,
                            advanced=True)


@METHODS.register("lora")
class LoRA(Method):
    """Train low-rank updates of the U-Net's weights."""

    name = "lora"
    Config = LoRAConfig
    facts = Facts(
        title="LoRA", paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models", year=2022,
        trains="low-rank updates of the U-Net's attention, optionally of its other layers",
        cost="1.59 M at rank 8 on Stable Diffusion 1.5's attention", merges=True,
        file="a LoRA in kohya's keys", zero_start=True, lr=1e-4)

    def attach(self, base: Base, generator: Generator) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        freeze(base)
        chosen = self.chosen(base.unet)
        settings = LoraConfig(r=self.config.rank, lora_alpha=self.config.alpha, lora_dropout=self.config.dropout,
                              target_modules=chosen, init_lora_weights=True)
        with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; what it draws is replaced below
            inject_adapter_in_model(settings, base.unet, adapter_name=ADAPTER)
        base.unet.train(base.unet.training)  # new layers come in training mode, whose dropout must not reach samples
        for _, layer in _layers(base.unet):
            _start(layer.lora_A[ADAPTER].weight, generator)

    def chosen(self, unet: nn.Module) -> list[str]:
        """The names of the layers to update. Raises ConfigError where the rank is larger than a layer's."""
        chosen, small = [], []
        for name, module in unet.named_modules():
            if not _is_target(name, module, self.config.targets):
                continue
            chosen.append(name)
            most = min(module.weight.shape[0], module.weight[0].numel())
            if self.config.rank > most:
                small.append(f"{name} (at most {most})")
        if small:
            raise ConfigError(f"LoRAConfig.rank is {self.config.rank}, larger than {len(small)} of the {len(chosen)} chosen layers "
                              f"allow: {listing(small)}. Choose a smaller rank or other targets.")
        return chosen

    def named(self, base: Base) -> dict[str, Parameter]:
        return {f"{name}.{side}": getattr(layer, side)[ADAPTER].weight
                for name, layer in _layers(base.unet) for side in ("lora_A", "lora_B")}

    def export(self, base: Base) -> dict[str, Tensor]:
        tensors = {}
        for name, layer in _layers(base.unet):
            key = kohya_name(name)
            tensors[f"{key}.lora_down.weight"] = _plain(layer.lora_A[ADAPTER].weight)
            tensors[f"{key}.lora_up.weight"] = _plain(layer.lora_B[ADAPTER].weight)
            tensors[f"{key}.alpha"] = torch.tensor(float(self.config.alpha))
        return tensors

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        expected = {}
        for name, layer in _layers(base.unet):
            key = kohya_name(name)
            expected[f"{key}.lora_down.weight"] = layer.lora_A[ADAPTER].weight
            expected[f"{key}.lora_up.weight"] = layer.lora_B[ADAPTER].weight
        alphas = {key: value for key, value in tensors.items() if key.endswith(".alpha")}
        check_keys({key: value for key, value in tensors.items() if key not in alphas},
                   {key: weight.shape for key, weight in expected.items()}, self.name)
        other = sorted({float(value) for value in alphas.values()} - {self.config.alpha})
        if other:
            raise ModelError(f"this LoRA was made with alpha {listing(other)}, and the setting is {self.config.alpha}. Set alpha to "
                             "the file's.")
        with torch.no_grad():
            for key, weight in expected.items():
                weight.copy_(tensors[key])


def _is_target(name: str, module: nn.Module, targets: str) -> bool:
    if isinstance(module, nn.Conv2d):
        return name not in _THIN and (targets == "all")
    if not isinstance(module, nn.Linear):
        return False
    if targets in ("all-linear", "all"):
        return True
    ends = _ATTENTION if targets == "attention" else _ATTENTION + _FEED_FORWARD
    return name.endswith(tuple("." + end for end in ends))


def _layers(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, peft's layer) of each updated layer, in the order of the network."""
    for name, module in unet.named_modules():
        if ADAPTER in getattr(module, "lora_A", {}):
            yield name, module


def _start(weight: Tensor, generator: Generator) -> None:
    """Kaiming's uniform start, as peft and the paper's code have it: within 1 / sqrt(inputs)."""
    bound = weight[0].numel() ** -0.5
    drawn = torch.rand(weight.shape, generator=generator, device=generator.device) * 2 * bound - bound
    with torch.no_grad():
        weight.copy_(drawn)


def _plain(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32, copy=True).contiguous()
