"""SVDiff: shifts of the singular values of each weight (Han et al., ICCV 2023, https://arxiv.org/abs/2303.11305).

W' = U diag(relu(s + shift)) V^T for every linear layer and convolution, a convolution's kernel (out, in, h, w) as a matrix
(out, in h w), with min(out, in h w) shifts. peft has no such method. The shifts can be told from the file's difference W' - W, since
U and V follow from the base: shift = diag(U^T (W' - W) V).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ...config import option
from ...errors import ModelError
from ..method import METHODS, Facts
from ..targets import Place, layers
from ..wrapped import Wrapped, WrappedMethod

if TYPE_CHECKING:
    from ..base import Base


@dataclass(frozen=True)
class SVDiffConfig:
    """What is trained besides the U-Net's."""

    text_encoder: bool = option(False, "Shift the singular values of the text encoder's linear layers too.")


class Spectral(Wrapped):
    """A layer with shifts `trained` (k,) of its singular values; `left` (out, k), `values` (k,) and `right` (k, width) are its own."""

    def tuned_weight(self) -> Tensor:
        change = (self.values + self.trained).relu() - self.values
        return self.weight + ((self.left * change) @ self.right).reshape(self.weight.shape)


class SpectralLinear(Spectral, nn.Linear):
    """A linear layer whose singular values are shifted."""


class SpectralConv2d(Spectral, nn.Conv2d):
    """A convolution whose singular values are shifted."""


@METHODS.register("svdiff")
class SVDiff(WrappedMethod):
    """Train shifts of the singular values of every weight."""

    name = "svdiff"
    Config = SVDiffConfig
    facts = Facts(
        title="SVDiff", paper="Han et al., SVDiff: Compact Parameter Space for Diffusion Fine-Tuning", year=2023,
        trains="shifts of the singular values of each linear and convolution weight of the U-Net, optionally of the text encoder's "
               "linear layers", cost="222,696 on Stable Diffusion 1.5", merges=True, file="the full difference of each weight",
        zero_start=True, lr=1e-3)

    def chosen(self, base: Base) -> list[Place]:
        return layers(base, self.trains(base))

    @torch.no_grad()
    def wrap(self, place: Place) -> None:
        layer = place.layer
        left, values, right = torch.linalg.svd(layer.weight.flatten(1).float(), full_matrices=False)
        layer.__class__ = SpectralLinear if isinstance(layer, nn.Linear) else SpectralConv2d
        for name, value in (("left", left), ("values", values), ("right", right)):
            layer.register_buffer(name, value.contiguous(), persistent=False)
        layer.trained = Parameter(torch.zeros_like(values))

    def read(self, place: Place, difference: Tensor) -> None:
        layer = place.layer
        layer.trained.copy_(((layer.left.T @ difference.flatten(1)) * layer.right).sum(dim=1))
        left_over = (layer.tuned_weight() - layer.weight - difference).abs().max()
        if left_over > 1e-4 * layer.weight.abs().max():
            raise ModelError(f"the difference of {place.title} is more than shifts of this base's singular values. Go on with the "
                             "base that the adapter was made with.")
