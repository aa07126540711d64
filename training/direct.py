"""Methods that train parameters which the base has: chosen by part and rule, written as their differences from the base."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import Parameter

from .keys import diff_key, kohya_name, text_diff_key, text_name, text_stem
from .method import Method, check_keys, freeze, need_parts
from .words import WORD

if TYPE_CHECKING:
    from .base import Base

PARTS = ("unet", "text_encoder", "vae")
NORMS = (nn.GroupNorm, nn.LayerNorm)

Chosen = dict[tuple[str, str], Parameter]
"""(part, name within it) -> parameter."""


class DirectMethod(Method):
    """A method that is told by which parameters it trains. Its option `text_encoder`, where it has one, adds that part."""

    @abstractmethod
    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        """Whether to train parameter `end` (`weight`, `bias`, ...) of the module at `path` of a part."""

    def trains(self, base: Base) -> set[str]:
        return {"unet", "text_encoder"} if getattr(self.config, "text_encoder", False) else {"unet"}

    def chosen(self, base: Base) -> Chosen:
        """The trained parameters, part by part in the order of the networks."""
        trained = self.trains(base)
        return {(part, name): parameter for part in PARTS if part in trained
                for name, parameter in self._of_part(part, getattr(base, part))}

    def _of_part(self, part: str, network: nn.Module) -> Iterator[tuple[str, Parameter]]:
        for path, module in network.named_modules():
            for end, parameter in module.named_parameters(recurse=False):
                if not end.startswith(WORD) and self.picks(part, path, module, end):
                    yield f"{path}.{end}", parameter

    def attach(self, base: Base, generator: Generator) -> None:
        need_parts(base, self.trains(base), self.name)
        freeze(base)
        self.extend(base)
        for parameter in self.chosen(base).values():
            parameter.requires_grad_(True)

    def extend(self, base: Base) -> None:
        """Add what the method trains and the base has not, such as scales."""

    def named(self, base: Base) -> dict[str, Parameter]:
        return {name if part == "unet" else f"{part}.{name}": parameter for (part, name), parameter in self.chosen(base).items()}

    def parameters(self, base: Base) -> list[dict[str, Any]]:
        groups: dict[str, list[Parameter]] = {}
        for (part, _), parameter in self.chosen(base).items():
            groups.setdefault(part, []).append(parameter)
        return [{"name": part, "params": parameters} for part, parameters in groups.items()]

    def export(self, base: Base) -> dict[str, Tensor]:
        return differences(base, self.chosen(base))

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        chosen = self.chosen(base)
        check_keys(tensors, shapes(base, chosen), self.name)
        restore(base, chosen, tensors)


def key_of(base: Base, part: str, name: str) -> str:
    """The key that carries the difference of one parameter of the U-Net or the text encoder."""
    return diff_key(name) if part == "unet" else text_diff_key(name, base.kind)


def stem_of(base: Base, part: str, path: str) -> str:
    """What the keys of one module of the U-Net or the text encoder begin with."""
    return kohya_name(path) if part == "unet" else text_stem(base.kind) + text_name(path)


def shapes(base: Base, chosen: Chosen) -> dict[str, torch.Size]:
    """Key -> shape of what `differences` gives."""
    return {key_of(base, part, name): parameter.shape for (part, name), parameter in chosen.items()}


def differences(base: Base, chosen: Chosen) -> dict[str, Tensor]:
    """What training has added to each parameter, by key."""
    originals = _originals(base, chosen)
    return {key_of(base, part, name): plain(parameter) - originals[part][name].float()
            for (part, name), parameter in chosen.items()}


@torch.no_grad()
def restore(base: Base, chosen: Chosen, tensors: Mapping[str, Tensor]) -> None:
    """Put differences back: the inverse of `differences`."""
    originals = _originals(base, chosen)
    for (part, name), parameter in chosen.items():
        parameter.copy_(originals[part][name].float() + tensors[key_of(base, part, name)])


def _originals(base: Base, chosen: Chosen) -> dict[str, dict[str, Tensor]]:
    return {part: base.original(part) for part in dict.fromkeys(part for part, _ in chosen)}


def plain(parameter: Tensor) -> Tensor:
    """A copy of a parameter as it is written: float32, contiguous, on the CPU."""
    return parameter.detach().to("cpu", torch.float32, copy=True).contiguous()


def named_layers(network: nn.Module, kinds: tuple[type, ...]) -> list[tuple[str, nn.Module]]:
    """(path, module) of every layer of these kinds."""
    return [(path, module) for path, module in network.named_modules() if isinstance(module, kinds)]
