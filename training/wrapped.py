"""What the methods share that are written here and compute a weight anew at each step: classes put in the place of layers, and files
that hold the difference of each weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn import Parameter

from .method import check_keys, freeze, need_parts
from .placed import PARTS, PlacedMethod, plain
from .targets import Place, key_of, title_of

if TYPE_CHECKING:
    from .base import Base


class Wrapped(nn.Module, ABC):
    """A layer whose weight is computed from its stored one by `tuned_weight`, with trained numbers in `trained`."""

    trained: Parameter

    @abstractmethod
    def tuned_weight(self) -> Tensor:
        """The weight that the layer works with, of the stored one's shape."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):  # the weight is made in its own precision
            weight = self.tuned_weight().to(self.weight.dtype)
        if isinstance(self, nn.Conv2d):
            return self._conv_forward(input, weight, self.bias)
        return nn.functional.linear(input, weight, self.bias)


class WrappedMethod(PlacedMethod):
    """A method that puts classes of its own in the place of linear layers and convolutions."""

    @abstractmethod
    def wrap(self, place: Place) -> None:
        """Make the layer one of a `Wrapped` class, with its starting values."""

    def read(self, place: Place, difference: Tensor) -> None:
        """Put a layer's difference back, where the method can. Raises ModelError for one that it cannot have made."""
        raise self.no_way_back()

    def attach(self, base: Base, generator: Generator) -> None:
        need_parts(base, self.trains(base), self.name)
        freeze(base)
        for place in self.chosen(base):
            self.wrap(place)

    def wrapped(self, base: Base) -> Iterator[Place]:
        """Each wrapped layer, in the order of the networks."""
        for part in PARTS:
            if part in self.trains(base):
                yield from (Place(part, name, module) for name, module in getattr(base, part).named_modules()
                            if isinstance(module, Wrapped))

    def named(self, base: Base) -> dict[str, Parameter]:
        return {f"{title_of(place.part, place.name)}.trained": place.layer.trained for place in self.wrapped(base)}

    @torch.no_grad()
    def export(self, base: Base) -> dict[str, Tensor]:
        return {f"{key_of(place.part, place.name)}.diff": plain(place.layer.tuned_weight() - place.layer.weight)
                for place in self.wrapped(base)}

    def restore(self, base: Base, tensors: dict[str, Tensor]) -> None:
        wrapped = {f"{key_of(place.part, place.name)}.diff": place for place in self.wrapped(base)}
        check_keys(tensors, {key: place.layer.weight.shape for key, place in wrapped.items()}, self.name)
        for key, place in wrapped.items():
            self.read(place, tensors[key].to(place.layer.weight.device))
