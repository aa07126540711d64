"""What an extractor is: images -> feature vectors of one space, with an identity that changes whenever the numbers would.

A new feature space is one file in ``extractors/``: a class with ``facts``, a ``Config``, ``prepare`` (which finds its weights or
makes them from the data set) and ``features``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from .. import config as configs
from ..data.record import Record
from ..registry import Registry
from .features import Features, extract

__all__ = ["EXTRACTORS", "Extractor", "ExtractorFacts", "Features", "Labeller", "extract", "make_extractor"]

EXTRACTORS: Registry[type[Extractor]] = Registry("extractor", __package__ + ".extractors")


@dataclass(frozen=True)
class ExtractorFacts:
    """What a reader should know of a feature space; ``needs`` says in words what it cannot do without."""

    title: str
    says: str
    paper: str
    needs: str


class Extractor(ABC):
    """Images (N, 3, H, W) in [0, 1] -> features (N, D)."""

    name: ClassVar[str]
    facts: ClassVar[ExtractorFacts]
    Config: ClassVar[type]
    reads_text: ClassVar[bool] = False
    """Whether ``text_features`` gives captions a place in the space of the images."""

    @classmethod
    def missing(cls) -> str | None:
        """What it lacks on this machine and where that is to be put, or None when it is ready."""
        return None

    @classmethod
    @abstractmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> Extractor:
        """The extractor, ready to use; raises Missing with the remedy when its weights are not there.

        ``records`` is the data set that it may learn from, ``folder`` where it keeps what it made.
        """

    @property
    @abstractmethod
    def id(self) -> str:
        """Name, weights and resize: two extractors of one id give the same features."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) float32 of images (N, 3, H, W) in [0, 1] of any size; the resize is the extractor's."""

    def text_features(self, captions: Sequence[str]) -> Tensor:
        """Features (N, D) float32 of captions, for an extractor that reads text."""
        raise NotImplementedError(f"{self.name} does not read text")

    def exceeds(self, captions: Sequence[str]) -> list[bool]:
        """Which captions are longer than what an extractor that reads text can read: the rest of them is cut."""
        return [False] * len(captions)

    def labeller(self) -> Labeller | None:
        """The classifier behind these features, for one that has findings to tell; otherwise None."""
        return None

    def about(self) -> dict[str, Any]:
        """What a report says of it, as JSON values."""
        return {"name": self.name, "id": self.id, "title": self.facts.title, "paper": self.facts.paper}

    def seen(self) -> frozenset[str]:
        """Hashes of the images that it learned from, of those that could be scored."""
        return frozenset()

    def limits(self) -> tuple[str, ...]:
        """What makes its figures doubtful; every report says it."""
        return ()


class Labeller(Extractor):
    """An extractor whose features (N, L) are the probabilities, in [0, 1], of the findings that ``labels`` names."""

    labels: tuple[str, ...]


def make_extractor(name: str, records: Sequence[Record] = (), folder: str | Path | None = None,
                   on_progress: Callable[[int, int], None] | None = None, **options: Any) -> Extractor:
    """The extractor of that name, ready to use, with options of its config."""
    kind = EXTRACTORS[name]
    return kind.prepare(configs.from_json(kind.Config, options), records, Path(folder) if folder is not None else None, on_progress)
