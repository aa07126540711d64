"""What the methods share that peft puts beside weights: choosing layers, drawing from a given generator, files."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import Parameter

from ..errors import ModelError
from .method import check_keys, freeze, need_parts
from .placed import PARTS, PlacedMethod, plain
from .targets import Place, key_of, title_of

if TYPE_CHECKING:
    from peft import PeftConfig

    from .base import Base

ADAPTER = "medtune"


@dataclass(frozen=True)
class Injection:
    """One layer that peft has wrapped: where it is, what its keys begin with, and its trained parameters by peft's names."""

    part: str
    name: str
    layer: nn.Module

    @property
    def title(self) -> str:
        """A name that no other layer of the base has."""
        return title_of(self.part, self.name)

    @property
    def key(self) -> str:
        """What its keys begin with."""
        return key_of(self.part, self.name)

    @property
    def base(self) -> nn.Module:
        """The layer of the base within."""
        return self.layer.get_base_layer()

    @property
    def weight(self) -> Tensor:
        """The base's weight."""
        return self.base.weight

    @property
    def parameters(self) -> dict[str, Parameter]:
        """peft's name, such as `lora_A` -> trained parameter."""
        held = {name: getattr(self.layer, name) for name in self.layer.adapter_layer_names}
        return {name: holder[ADAPTER] if isinstance(holder[ADAPTER], Parameter) else holder[ADAPTER].weight
                for name, holder in held.items() if ADAPTER in holder}


class InjectedMethod(PlacedMethod):
    """A method that peft has for linear layers, and mostly for convolutions."""

    drawn: ClassVar[tuple[str, ...]] = ()  # the parameters that start as random numbers

    @abstractmethod
    def settings(self, places: list[Place]) -> PeftConfig:
        """What peft is to do to these layers of one part."""

    @abstractmethod
    def written(self, injection: Injection) -> dict[str, Tensor]:
        """What the file says of a layer, by the end of the key."""

    def read(self, injection: Injection, tensors: Mapping[str, Tensor]) -> None:
        """Put what `written` gave back, where the method can. Raises ModelError for what it cannot have written."""
        raise self.no_way_back()

    def attach(self, base: Base, generator: Generator) -> None:
        need_parts(base, self.trains(base), self.name)
        freeze(base)
        chosen = self.chosen(base)
        for part in PARTS:
            if places := [place for place in chosen if place.part == part]:
                network = getattr(base, part)
                with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; what it draws is replaced below
                    self.inject(network, self.settings(places))
                network.train(network.training)  # new layers come in training mode, whose dropout must not reach samples
        for injection in self.injections(base):
            self.start(injection, generator)

    def inject(self, network: nn.Module, settings: PeftConfig) -> None:
        """Have peft wrap the layers of a network, in place."""
        from peft import inject_adapter_in_model

        inject_adapter_in_model(settings, network, adapter_name=ADAPTER)

    def start(self, injection: Injection, generator: Generator) -> None:
        """Give a layer's parameters their starting values: those of peft, with the random ones drawn from the generator."""
        for name, parameter in injection.parameters.items():
            if name in self.drawn:
                draw_uniform(parameter, generator)

    def injections(self, base: Base) -> Iterator[Injection]:
        """Each wrapped layer, in the order of the networks."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for part in PARTS:
            if part in self.trains(base):
                for name, module in getattr(base, part).named_modules():
                    if isinstance(module, BaseTunerLayer):
                        yield Injection(part, name, module)

    def named(self, base: Base) -> dict[str, Parameter]:
        return {f"{injection.title}.{name}": parameter for injection in self.injections(base)
                for name, parameter in injection.parameters.items()}

    @torch.no_grad()
    def export(self, base: Base) -> dict[str, Tensor]:
        return {injection.key + end: plain(tensor) for injection in self.injections(base)
                for end, tensor in self.written(injection).items()}

    def restore(self, base: Base, tensors: dict[str, Tensor]) -> None:
        injections = list(self.injections(base))
        ends = {injection.key: self.written(injection) for injection in injections}
        check_keys(tensors, {key + end: tensor.shape for key, written in ends.items() for end, tensor in written.items()}, self.name)
        for injection in injections:
            self.read(injection, {end: tensors[injection.key + end].to(injection.weight.device)
                                  for end in ends[injection.key]})


def names(places: Iterable[Place]) -> list[str]:
    """The modules that peft is to wrap."""
    return [place.name for place in places]


def rank_pattern(places: Iterable[Place]) -> dict[str, int]:
    """peft's pattern for each layer whose rank is not the method's."""
    return {re.escape(place.name): place.size for place in places if place.size}


def draw_uniform(weight: Tensor, generator: Generator) -> None:
    """Kaiming's uniform start, as peft and the papers' code have it: within 1 / sqrt(inputs)."""
    bound = weight[0].numel() ** -0.5
    drawn = torch.rand(weight.shape, generator=generator, device=generator.device) * 2 * bound - bound
    with torch.no_grad():
        weight.copy_(drawn)


def read_factors(injection: Injection, tensors: Mapping[str, Tensor]) -> None:
    """Put back a layer's parameters by peft's names, and hold the file's `alpha` against the settings."""
    check_scale(injection, tensors[".alpha"], injection.layer.r[ADAPTER])
    for name, parameter in injection.parameters.items():
        parameter.copy_(tensors[f".{name}"])


def check_scale(injection: Injection, alpha: Tensor, rank: int) -> None:
    """Raise ModelError unless a file's alpha over its rank is the scale of the settings."""
    found, scale = float(alpha), injection.layer.scaling[ADAPTER]
    if abs(found / rank - scale) > 1e-6 * abs(scale):
        raise ModelError(f"this adapter was made with alpha {found} ({injection.key}), a scale of {found / rank:g}, and the settings "
                         f"give {scale:g}. Set alpha to the file's.")
