"""OFT: each weight rotated on the side of its inputs, in blocks (Qiu et al., NeurIPS 2023, https://arxiv.org/abs/2306.07280), by peft.

W' = W R^T with R block-diagonal and orthogonal, the Cayley transform of trained skew-symmetric matrices. The file holds W' - W, since
loaders apply a strength below 1 to a rotation in ways that differ. Convolutions larger than 1 x 1 are left out: there, peft rotates
the input's patches and adds up their overlaps, which is no rotation of the weight.
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
from ..targets import Place, check_blocks, check_no_sizes, patterns_option, targets_option, text_encoder_option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class OFTConfig:
    """Size and place of the rotations."""

    block_size: int = option(16, "Side of the rotated blocks, which must divide the layers' inputs: larger ones can change more.",
                             low=2, high=1024)
    targets: str = targets_option(" Convolutions larger than 1 x 1 are left out.")
    patterns: str = patterns_option("")
    text_encoder: bool = text_encoder_option()


def _pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


@METHODS.register("oft")
class OFT(InjectedMethod):
    """Train a rotation of the inputs of each weight, which keeps the angles between its rows."""

    name = "oft"
    Config = OFTConfig
    fits = staticmethod(_pointwise)
    facts = Facts(
        title="OFT", paper="Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning", year=2023,
        trains="rotations of the weights of the U-Net's attention, optionally of other layers and of the text encoder",
        cost="745,920 at block size 16 on Stable Diffusion 1.5's attention", merges=True,
        file="the full difference of each weight", zero_start=True, lr=2e-4)

    def check(self, places: list[Place]) -> None:
        check_no_sizes(places, self.facts.title)
        check_blocks(places, self.config.block_size, "OFTConfig.block_size", lambda place: place.width)

    def settings(self, places: list[Place]) -> PeftConfig:
        from peft import OFTConfig as Settings

        return Settings(r=0, oft_block_size=self.config.block_size, use_cayley_neumann=False, target_modules=names(places))

    def written(self, injection: Injection) -> dict[str, Tensor]:
        weight = injection.weight
        rotated = weight.flatten(1) @ injection.layer.get_delta_weight(ADAPTER).T
        return {".diff": rotated.reshape(weight.shape) - weight}

    def read(self, injection: Injection, tensors: Mapping[str, Tensor]) -> None:
        """Each block's rotation is solved for, block by block, and its Cayley transform inverted."""
        rotation, weight = injection.layer.oft_R[ADAPTER], injection.weight.flatten(1)
        target = (weight + tensors[".diff"].flatten(1)).double()
        size, skew = rotation.block_size, []
        one = torch.eye(size, dtype=torch.float64, device=weight.device)
        for old, new in zip(weight.double().split(size, dim=1), target.split(size, dim=1), strict=True):
            matrix = torch.linalg.lstsq(old, new).solution.T
            skew.append(torch.linalg.solve(one + matrix, one - matrix))
        rotation.weight.copy_(torch.stack([matrix[rotation.rows, rotation.cols] for matrix in skew]))
        again = weight @ injection.layer.get_delta_weight(ADAPTER).T
        if not torch.allclose(again.double(), target, atol=1e-4 * float(target.abs().max()), rtol=0):
            raise ModelError(f"the difference of {injection.title} is no rotation of this base's weight in blocks of {size}. Use the "
                             "block size and the base that the adapter was made with.")
