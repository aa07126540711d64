"""BOFT: each weight rotated on the side of its outputs by a product of block-diagonal rotations between butterfly permutations (Liu et
al., ICLR 2024, https://arxiv.org/abs/2311.06243).

Not by peft, which without its CUDA extension replaces the product by a single factor. The layout of the blocks is that of LyCORIS: in
factor i, rows that lie block_size / 2 * 2^i apart share a block. The file holds the difference W' - W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ...config import option
from ...errors import ConfigError
from ..method import METHODS, Facts
from ..targets import Place, check_blocks, check_no_sizes, patterns_option, targets_option, text_encoder_option
from ..wrapped import Wrapped, WrappedMethod


@dataclass(frozen=True)
class BOFTConfig:
    """Size and place of the rotations."""

    block_size: int = option(8, "Side of the rotated blocks, an even number.", low=2, high=1024, step=2)
    factors: int = option(2, "Number of butterfly factors: each doubles the distance between the rows that are mixed. Block size "
                             "times 2^(factors - 1) must divide the layers' outputs; with 1 it is OFT.", low=1, high=12)
    targets: str = targets_option()
    patterns: str = patterns_option("")
    text_encoder: bool = text_encoder_option()


class Butterfly(Wrapped):
    """A layer whose weight is rotated; `trained` (factors, blocks, size (size - 1) / 2) are the entries above the diagonals."""

    size: int

    def rotations(self) -> Tensor:
        """The orthogonal blocks (factors, blocks, size, size): the Cayley transforms of the trained skew-symmetric ones."""
        rows, columns = torch.triu_indices(self.size, self.size, 1, device=self.trained.device)
        skew = self.trained.new_zeros(*self.trained.shape[:2], self.size, self.size)
        skew[..., rows, columns] = self.trained
        skew = skew - skew.transpose(-1, -2)
        one = torch.eye(self.size, device=skew.device, dtype=skew.dtype)
        return torch.linalg.solve(one - skew, one + skew, left=False)

    def tuned_weight(self) -> Tensor:
        weight = self.weight.flatten(1)  # (out, width)
        for i, blocks in enumerate(self.rotations()):
            apart = 2**i * self.size // 2
            mixed = weight.unflatten(0, (-1, 2, apart)).transpose(1, 2).reshape(len(blocks), self.size, -1)
            mixed = (blocks.to(weight.dtype) @ mixed).reshape(-1, apart, 2, weight.shape[1])
            weight = mixed.transpose(1, 2).reshape(weight.shape)
        return weight.reshape(self.weight.shape)


class ButterflyLinear(Butterfly, nn.Linear):
    """A linear layer that is rotated."""


class ButterflyConv2d(Butterfly, nn.Conv2d):
    """A convolution that is rotated."""


@METHODS.register("boft")
class BOFT(WrappedMethod):
    """Train a rotation of the outputs of each weight, as a product of sparse rotations."""

    name = "boft"
    Config = BOFTConfig
    facts = Facts(
        title="BOFT", paper="Liu et al., Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization", year=2024,
        trains="butterfly-factored rotations of the weights of the U-Net's attention, optionally of other layers and of the text "
               "encoder",
        cost="698,880 at block size 8 and 2 factors on Stable Diffusion 1.5's attention", merges=True,
        file="the full difference of each weight", zero_start=True, lr=2e-4, continues=False)

    def check(self, places: list[Place]) -> None:
        if self.config.block_size % 2:
            raise ConfigError(f"BOFTConfig.block_size is {self.config.block_size}; it must be even, such as "
                              f"{self.config.block_size + 1}")
        check_no_sizes(places, self.facts.title)
        check_blocks(places, self.config.block_size, "BOFTConfig.block_size", lambda place: place.layer.weight.shape[0],
                     count=2 ** (self.config.factors - 1))

    def wrap(self, place: Place) -> None:
        layer, size = place.layer, self.config.block_size
        layer.__class__ = ButterflyLinear if isinstance(layer, nn.Linear) else ButterflyConv2d
        layer.size = size
        blocks = layer.weight.shape[0] // size
        layer.trained = Parameter(torch.zeros(self.config.factors, blocks, size * (size - 1) // 2, device=layer.weight.device))
