"""Full fine-tuning of the U-Net, the text encoder, the autoencoder and every combination of them.

The learning rates are those of the study "Pixels Under Pressure" (2025).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...config import option
from ..direct import PARTS, DirectMethod, differences, restore, shapes
from ..method import METHODS, Facts, check_keys
from ..vae_file import vae_shapes, vae_tensors, vae_weights

if TYPE_CHECKING:
    from ..base import Base

CHOICES = ("unet", "text-encoder", "vae", "unet+text-encoder", "unet+vae", "text-encoder+vae", "unet+text-encoder+vae")

_RATES = {"unet": 1e-5, "text_encoder": 5e-6, "vae": 1e-6}
_TEXT_BESIDE_OTHERS = 1e-6
_RULE = ("0: the paper's ({}), or, where the run has a learning rate of its own, in the paper's proportion to the first part's, which "
         "takes the run's.")


@dataclass(frozen=True)
class FullConfig:
    """The parts to train, and how fast each learns."""

    parts: str = option("unet", "Which parts are trained.", choices=CHOICES)
    lr_unet: float = option(0.0, "Learning rate of the U-Net, whatever the run's. " + _RULE.format("1e-5"), low=0, high=1, step=1e-6,
                            advanced=True)
    lr_text_encoder: float = option(0.0, "Learning rate of the text encoder. " + _RULE.format("5e-6 alone, 1e-6 beside others"), low=0,
                                    high=1, step=1e-6, advanced=True)
    lr_vae: float = option(0.0, "Learning rate of the autoencoder. " + _RULE.format("1e-6"), low=0, high=1, step=1e-6, advanced=True)


@METHODS.register("full")
class Full(DirectMethod):
    """Train every weight of the chosen parts.

    A trained autoencoder is a file of its own; the differences of the other parts are in the adapter.
    """

    name = "full"
    Config = FullConfig
    facts = Facts(
        title="Full fine-tuning", paper="Ho et al., Denoising Diffusion Probabilistic Models", year=2020,
        trains="every weight of the U-Net, the text encoder, the autoencoder, or any combination of them",
        cost="859.5 M for the U-Net of Stable Diffusion 1.5, 123.1 M for its text encoder, 83.7 M for its autoencoder", merges=True,
        file="the full difference of each weight; a trained autoencoder is a VAE file", zero_start=True, lr=1e-5)

    def __init__(self, config: Any = None):
        super().__init__(config)
        chosen = {part.replace("-", "_") for part in self.config.parts.split("+")}
        self.parts = tuple(part for part in PARTS if part in chosen)
        self.facts = replace(type(self).facts, lr=self._own_rate(self.parts[0]) or self._paper_rate(self.parts[0]))

    def _own_rate(self, part: str) -> float:
        return getattr(self.config, f"lr_{part}")

    def _paper_rate(self, part: str) -> float:
        return _TEXT_BESIDE_OTHERS if part == "text_encoder" and len(self.parts) > 1 else _RATES[part]

    def trains(self, base: Base) -> set[str]:
        return set(self.parts)

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return True

    def parameters(self, base: Base) -> list[dict[str, Any]]:
        return [group | self._rate(group["name"]) for group in super().parameters(base)]

    def _rate(self, part: str) -> dict[str, float]:
        """The part's learning rate: its own, or its proportion to the run's, which is that of the first part."""
        if self._own_rate(part):
            return {"lr": self._own_rate(part)}
        return {"lr_scale": self._paper_rate(part) / self._paper_rate(self.parts[0])}

    def export(self, base: Base) -> dict[str, Tensor]:
        return {key: value for tensors in self.products(base).values() for key, value in tensors.items()}

    def products(self, base: Base) -> dict[str, dict[str, Tensor]]:
        files = {"adapter": differences(base, self._differing(base))} if self.parts != ("vae",) else {}
        return files | ({"vae": vae_tensors(base)} if "vae" in self.parts else {})

    def _differing(self, base: Base) -> dict:
        return {place: parameter for place, parameter in self.chosen(base).items() if place[0] != "vae"}

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        differing, trains_vae = self._differing(base), "vae" in self.parts
        check_keys(tensors, {**shapes(base, differing), **(vae_shapes(base.vae) if trains_vae else {})}, self.name)
        restore(base, differing, tensors)
        if trains_vae:
            with torch.no_grad():
                for name, value in vae_weights(base.vae, tensors).items():
                    base.vae.get_parameter(name).copy_(value)
