"""What every fine-tuning method offers, and METHODS, the catalogue: one file per method in `methods/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Generator, Tensor
from torch.nn import Parameter

from .. import config as options
from ..errors import ModelError, listing
from ..registry import Registry

if TYPE_CHECKING:
    from .base import Base

METHODS: Registry[type[Method]] = Registry("method", __package__ + ".methods")


@dataclass(frozen=True)
class Facts:
    """What a user wants to know of a method before choosing it.

    `trains` names what is trained, `cost` the number of parameters on Stable Diffusion 1.5, `merges` whether the result can be folded
    into the base's weights, `file` what is written, `zero_start` whether step 0 is exactly the base, `lr` the default learning rate,
    `continues` whether `load` can put the file's content back so that training goes on from it.
    """

    title: str
    paper: str
    year: int
    trains: str
    cost: str
    merges: bool
    file: str
    zero_start: bool
    lr: float
    continues: bool = True


class Method(ABC):
    """One way to fine-tune: what it trains and how that is written in the keys of stock loaders."""

    name: ClassVar[str]
    facts: ClassVar[Facts]
    Config: ClassVar[type]

    def __init__(self, config: Any = None):
        self.config = options.check(self.Config() if config is None else config)

    @abstractmethod
    def attach(self, base: Base, generator: Generator) -> None:
        """Prepare the base in place: gradients on exactly what is trained, everything else frozen.

        Random starting values are drawn from the generator. Raises ConfigError where the base is too small for the setting.
        """

    @abstractmethod
    def named(self, base: Base) -> dict[str, Parameter]:
        """The trained parameters of an attached base, under names that do not change between runs."""

    @abstractmethod
    def export(self, base: Base) -> dict[str, Tensor]:
        """All that was trained, in native keys: float32, contiguous, on the CPU."""

    @abstractmethod
    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        """Put what `export` gave back into an attached base. Raises ModelError for keys that do not fit."""

    def products(self, base: Base) -> dict[str, dict[str, Tensor]]:
        """The files of a training by kind (`products.KINDS`), the principal one first: what `export` gives, a file for each loader."""
        return {"adapter": self.export(base)}

    def parameters(self, base: Base) -> list[dict[str, Any]]:
        """torch optimiser groups, each with `params` and a `name`.

        Where a group learns at another rate than the run's, `lr_scale` multiplies that, or `lr` stands in its place.
        """
        return [{"name": self.name, "params": list(self.named(base).values())}]

    def trains(self, base: Base) -> set[str]:
        """The parts of the base that change: `unet`, `text_encoder`, `vae`; what is not among them can be cached."""
        return {"unet"}

    def caption(self, caption: str) -> str:
        """What the text encoder reads for a record's caption."""
        return caption

    def words(self) -> dict[str, int]:
        """The words that the method teaches, each with the number of tokens that it stands for."""
        return {}

    def count(self, base: Base) -> int:
        """The number of trained values."""
        return sum(parameter.numel() for parameter in self.named(base).values())


def freeze(base: Base) -> None:
    """Take gradients off every part of the base."""
    for network in (base.unet, base.text_encoder, base.vae):
        if network is not None:
            network.requires_grad_(False)


def need_parts(base: Base, parts: Iterable[str], method: str) -> None:
    """Raise ModelError where the base was made without a part that the method trains."""
    lacking = [part.replace("_", " ") for part in sorted(parts) if getattr(base, part) is None]
    if lacking:
        raise ModelError(f"method {method!r} with these settings trains the {' and the '.join(lacking)}, and the base "
                         f"{base.ref} was made without. Connect it, load the whole checkpoint, or train other parts.")


def check_keys(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], method: str) -> None:
    """Raise ModelError unless the tensors have exactly these keys and shapes."""
    if problems := misfits(tensors, shapes):
        raise ModelError(f"these tensors are not what method {method!r} with its present settings writes for this base "
                         f"({problems}). Use the settings and the base that the adapter was made with.")


def misfits(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> str:
    """How the keys and shapes of tensors differ from these, in words; nothing where they do not."""
    missing = [key for key in shapes if key not in tensors]
    unknown = [key for key in tensors if key not in shapes]
    wrong = [f"{key} {tuple(tensors[key].shape)}, not {tuple(shape)}" for key, shape in shapes.items()
             if key in tensors and tuple(tensors[key].shape) != tuple(shape)]
    return "; ".join(f"{len(found)} {kind}: {listing(found)}" for kind, found in
                     (("missing", missing), ("unknown", unknown), ("of another shape", wrong)) if found)
