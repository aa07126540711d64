"""The moving average of the trained weights (Polyak and Juditsky 1992), which samples more smoothly than the last step's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class MovingAverage:
    """A float32 shadow of named parameters: shadow <- decay * shadow + (1 - decay) * weight after each step.

    Over the first steps the decay is at most (1 + step) / (10 + step), so that a short run does not keep its start.
    """

    def __init__(self, named: Mapping[str, Tensor], decay: float):
        self.named, self.decay = dict(named), decay
        self.shadow = {name: weight.detach().clone().float() for name, weight in self.named.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` updates."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [self.named[name].detach().float() for name in self.shadow]
        torch._foreach_lerp_(list(self.shadow.values()), weights, 1 - decay)

    @torch.no_grad()
    def adopt(self) -> None:
        """Put the averages in the weights' place for good."""
        for name, weight in self.named.items():
            weight.copy_(self.shadow[name])

    @contextlib.contextmanager
    def adopted(self) -> Iterator[None]:
        """The averages in the weights' place within the block."""
        held = {name: weight.detach().clone() for name, weight in self.named.items()}
        self.adopt()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.named.items():
                    weight.copy_(held[name])
