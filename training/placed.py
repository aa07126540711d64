"""What the methods share that work layer by layer, beside weights or in their place: choosing the layers, and going on from a file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .method import Method
from .targets import Place, any_layer, choose

if TYPE_CHECKING:
    from .base import Base

PARTS = ("unet", "text_encoder")


class PlacedMethod(Method):
    """A method that chooses layers.

    Its config has `text_encoder`, and `targets` and `patterns` unless the method overrides `chosen`.
    """

    fits: ClassVar[Callable[[nn.Module], bool]] = staticmethod(any_layer)

    def check(self, places: list[Place]) -> None:
        """Raise ConfigError where a layer does not fit the settings."""

    def trains(self, base: Base) -> set[str]:
        return set(PARTS) if self.config.text_encoder else {"unet"}

    def chosen(self, base: Base) -> list[Place]:
        """The layers to work on. Raises ConfigError where one does not fit the settings."""
        places = choose(base, self.trains(base), self.config.targets, self.config.patterns, self.fits)
        self.check(places)
        return places

    @torch.no_grad()
    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        if not self.facts.continues:
            raise self.no_way_back()
        self.restore(base, tensors)

    def no_way_back(self) -> ModelError:
        """Why training cannot go on from this method's file, and what to do instead."""
        return ModelError(
            f"training cannot go on from a file of method {self.name!r}: it holds what was added to the weights, from which the "
            "trained numbers cannot be told. A run that was interrupted goes on from its own checkpoint; to train further on a "
            "result, merge the file into the base and start from that.")

    @abstractmethod
    def restore(self, base: Base, tensors: dict[str, Tensor]) -> None:
        """Put a file's numbers back. Raises ModelError for what this method cannot have written."""


def plain(tensor: Tensor) -> Tensor:
    """A copy of a tensor as it is written: float32, contiguous, on the CPU."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
