"""The feature spaces that an evaluation needs besides the chosen one, each extracted once for all metrics that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..data.record import Record
from .extractor import EXTRACTORS, Extractor, Labeller
from .features import Features, extract
from .metric import CAPTIONS, CHOSEN, LABELS

Pair = tuple[Features, Features]


@dataclass
class Spaces:
    """Pairs of (real, generated) features by the space's name.

    ``captions`` is an extractor that reads text, ``labels`` one that gives probabilities of findings; where they are not given, the
    chosen extractor serves if it can. ``read`` are the arguments of ``extract`` that say how images are read and where features
    are kept.
    """

    real: Sequence[Record]
    fake: Sequence[Record]
    chosen: Extractor
    captions: Extractor | None = None
    labels: Labeller | None = None
    read: dict[str, object] = field(default_factory=dict)
    on_progress: Callable[[int, int], None] | None = None
    known: dict[str, Pair] = field(default_factory=dict)

    def find(self, space: str) -> Pair | str:
        """The features in a space, or the reason why there are none."""
        extractor = self.extractor(space)
        if isinstance(extractor, str):
            return extractor
        if space not in self.known:
            self.known[space] = self._extract(extractor)
        return self.known[space]

    def extractor(self, space: str) -> Extractor | str:
        """The extractor of a space, or the reason why there is none."""
        if space == CHOSEN:
            return self.chosen
        if space == CAPTIONS:
            found = self.captions or (self.chosen if self.chosen.reads_text else None)
            return found or "no image-text model was given: choose an extractor that reads captions, such as open-clip"
        if space == LABELS:
            return self.labels or self.chosen.labeller() or (
                f"the extractor {self.chosen.name} tells no findings: choose one that does, such as in-domain")
        return EXTRACTORS[space].prepare(EXTRACTORS[space].Config(), ())

    def _extract(self, extractor: Extractor) -> Pair:
        total = len(self.real) + len(self.fake)

        def progress(offset: int) -> Callable[[int, int], None] | None:
            return (lambda done, _: self.on_progress(offset + done, total)) if self.on_progress is not None else None

        return (extract(self.real, extractor, **self.read, on_progress=progress(0)),
                extract(self.fake, extractor, **self.read, on_progress=progress(len(self.real))))
