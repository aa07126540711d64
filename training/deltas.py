"""What an adapter adds to each parameter of a base, one parameter at a time: nothing is merged, and no model is held in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import ModelError
from .apply import Change, read_changes

if TYPE_CHECKING:
    from .adapter import Adapter
    from .base import Base

Place = tuple[str, str]
"""(part, parameter) of a base."""

_LOW_RANK = frozenset({"lora_up.weight", "lora_down.weight", "alpha"})


class Deltas:
    """The changes of an adapter by place, and what each adds to a base that may be an outline or lie on `meta`.

    Raises ModelError naming the keys and shapes that do not fit.
    """

    def __init__(self, base: Base, adapter: Adapter):
        self.base, self.name = base, adapter.name
        self.changes: dict[Place, Change] = {}
        for change in read_changes(base, adapter):
            part, _, name = change.name.partition(".")
            self.changes[part, name] = change
        self._originals: dict[str, dict[str, Tensor]] = {}

    def amount(self, place: Place, tensors: dict[str, Tensor] | None = None) -> Tensor:
        """What is added to one parameter at strength 1, float32; `tensors` stand in for the change's own.

        Raises ModelError where that depends on the weight, and the base is an outline without values.
        """
        change = self.changes[place]
        held = {end: tensor.float() for end, tensor in (tensors or change.tensors).items()}
        if change.kind is None or change.kind.needs == frozenset({"diff"}):
            return next(iter(held.values()))
        if change.kind.difference is not None and "dora_scale" not in held:
            return change.kind.difference(held, change.parameter.shape)
        weight = self.original(place)
        return change.kind.change(weight, held, 1.0) - weight

    def original(self, place: Place) -> Tensor:
        """The base's own value of a parameter, float32."""
        part, name = place
        if part not in self._originals:
            self._originals[part] = self.base.original(part)
        weight = self._originals[part][name]
        if weight.is_meta:
            kind = self.changes[place].kind
            raise ModelError(f"what {self.name} adds to {part}.{name} ({kind.name if kind else 'a bias'}) depends on the base's own "
                             "weight. Name the base that it is for.")
        return weight.float()

    def is_low_rank(self, place: Place) -> bool:
        """Whether a change is a plain LoRA: up, down and perhaps alpha."""
        return self.changes[place].tensors.keys() <= _LOW_RANK


@dataclass
class Rounding:
    """What rounding took from the changes: squares of what was asked for and of what is missing, by parameter."""

    asked: dict[str, float] = field(default_factory=dict)
    missed: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, wanted: Tensor, got: Tensor) -> None:
        """Compare one change with what was written of it."""
        self.asked[name] = wanted.double().square().sum().item()
        self.missed[name] = (got.double() - wanted.double()).square().sum().item()

    def relative(self) -> float:
        """Relative error of all changes together."""
        return (sum(self.missed.values()) / max(sum(self.asked.values()), 1e-300)) ** 0.5

    def worst(self) -> tuple[str, float]:
        """The parameter with the largest relative error, and that error; of changes that are zero there is none."""
        errors = {name: (self.missed[name] / asked) ** 0.5 for name, asked in self.asked.items() if asked > 0}
        name = max(errors, key=errors.__getitem__, default="")
        return name, errors.get(name, 0.0)
