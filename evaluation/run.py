"""Real and generated images -> scores: features by one extractor, every metric on them, and what a reader must be told."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import config
from ..data.record import Record
from ..errors import DataError
from ..files import write_json
from .extractor import Extractor, Labeller
from .features import Features
from .macro import MACRO, Macro
from .metric import CHOSEN, Metric, Score, check_pair, make_metric
from .selection import STANDARD
from .spaces import Spaces

FEW = 50  # images below which a figure says little


@dataclass(frozen=True)
class Scores:
    """The figures of one set of generated images against one set of real ones.

    ``settings`` say how they were made: how images were read, the options of each metric and the extractor of each feature space.
    """

    scores: tuple[Score, ...]
    n_real: int
    n_fake: int
    extractor: dict[str, Any]
    notices: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def find(self, metric: str, label: str | None = None) -> Score | None:
        """The figure of a metric, of one class or of all images together."""
        return next((score for score in self.scores if score.metric == metric and score.label == label), None)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "scores": [score.to_json() for score in self.scores], "notices": list(self.notices)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Scores:
        """Scores from ``to_json``'s values; DataError when they are something else."""
        try:
            return cls(tuple(map(Score.from_json, values["scores"])), values["n_real"], values["n_fake"], values["extractor"],
                       tuple(values["notices"]), values["versions"], values.get("settings", {}))
        except (KeyError, TypeError) as error:
            raise DataError(f"these are no scores of medtune evaluate ({error!r}); evaluate again") from error

    def write(self, path: str | Path) -> None:
        """Keep them as a JSON file."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Scores:
        """Scores from a file; DataError when it holds something else."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read scores from {path}: {error}") from error


def evaluate(real: Sequence[Record], fake: Sequence[Record], extractor: Extractor, metrics: Sequence[str | Metric] | None = None, *,
             captions: Extractor | None = None, labels: Labeller | None = None, cache: str | Path | None = None,
             per_class: bool = False, equal: bool = False, size: int = 512, fit: str = "crop", batch: int = 16,
             on_progress: Callable[[int, int], None] | None = None) -> Scores:
    """Score generated against real records.

    ``metrics`` are names or metrics with options, the standard ones by default. ``captions`` is an extractor that reads text and
    ``labels`` one that tells findings, for the metrics that need such; without them the extractor itself serves where it can.
    ``per_class`` adds the figures of each label and their mean; ``equal`` compares as many real as generated images, drawn from the
    larger set, as a whole and in each class; ``size`` and ``fit`` say how images of both kinds are read.
    ``on_progress(done, total)`` counts images, once for each feature space.
    """
    read = {"cache": cache, "size": size, "fit": fit, "batch": batch}
    chosen = [make_metric(metric) if isinstance(metric, str) else metric for metric in (metrics if metrics is not None else STANDARD)]
    return score(Spaces(real, fake, extractor, captions, labels, read, on_progress), chosen, per_class=per_class, equal=equal)


def score(spaces: Spaces, metrics: Sequence[Metric], *, per_class: bool = False, equal: bool = False) -> Scores:
    """The metrics, each in its own feature space; null with the reason where the space cannot be had."""
    real, fake = spaces.find(CHOSEN)
    check_pair(real, fake)
    scores = []
    for metric in metrics:
        found = spaces.find(metric.facts.space)
        if isinstance(found, str):
            scores.append(Score(metric.name, None, None, None, len(real), len(fake), metric.facts.direction, found, ""))
        else:
            scores += score_classes(metric, *found, equal) if per_class else [metric.score(*_numbers(*found, equal))]
    about = fake.extractor.about() if fake.extractor is not None else {}
    real, fake = _numbers(real, fake, equal)
    said = _notices(real, fake)
    said += [notice for space, pair in spaces.known.items() if space != CHOSEN for notice in _of_extractor(*pair)]
    return Scores(tuple(scores), len(real), len(fake), about, tuple(dict.fromkeys(said)), versions(),
                  _settings(spaces, metrics, equal))


def _settings(spaces: Spaces, metrics: Sequence[Metric], equal: bool) -> dict[str, Any]:
    """How the figures were made, as JSON values."""
    of_space = {space: pair[1] for space, pair in spaces.known.items()}
    return {"size": of_space[CHOSEN].size, "fit": of_space[CHOSEN].fit, "equal": equal,
            "metrics": {metric.name: {"space": metric.facts.space, "options": config.to_json(metric.config)} for metric in metrics},
            "extractors": {space: fake.extractor.about() for space, fake in of_space.items() if fake.extractor is not None}}


def score_classes(metric: Metric, real: Features, fake: Features, equal: bool = False) -> list[Score]:
    """The figure of all images, of each label's, and the mean over the labels."""
    parts = [(label, *metric.of_label(real, fake, label)) for label in _classes(real, fake)]
    return [metric.score(*_numbers(real, fake, equal)),
            *(of_label.score(*_numbers(a, b, equal), label) for label, of_label, a, b in parts),
            *([Macro(metric).score(*_numbers(real, fake, equal), MACRO)] if parts else [])]


def _numbers(real: Features, fake: Features, equal: bool) -> tuple[Features, Features]:
    """As they are or, for ``equal``, as many of each; which ones depends on nothing but their number."""
    if not equal:
        return real, fake
    count = min(len(real), len(fake))
    return tuple(one.pick(np.sort(np.random.default_rng(0).permutation(len(one))[:count])) for one in (real, fake))


def versions() -> dict[str, str]:
    """The versions of what the figures depend on."""
    found = {}
    for name in ("medtune", "torch", "timm", "diffusers", "numpy", "scipy", "vendi-score"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _classes(real: Features, fake: Features) -> list[str]:
    return sorted({label for features in (real, fake) for record in features.records for label in record.labels})


def _notices(real: Features, fake: Features) -> list[str]:
    said = []
    if min(len(real), len(fake)) < FEW:
        said.append(f"{len(real)} real and {len(fake)} generated images are few: the figures show large differences alone")
    if len(real) != len(fake):
        said.append(f"{len(real)} real and {len(fake)} generated images: figures that depend on the number are those of unequal sets")
    said += _of_extractor(real, fake)
    copies = len(set(real.hashes) & set(fake.hashes))
    if copies:
        said.append(f"{copies} generated images are the same files as real ones")
    return said


def _of_extractor(real: Features, fake: Features) -> list[str]:
    """What makes the figures of one extractor's features doubtful."""
    if fake.extractor is None:
        return []
    seen = fake.extractor.seen()
    known = sum(digest in seen for digest in real.hashes)
    said = f"{known} of {len(real)} real images were used to train the extractor; keep the images to compare with apart"
    return [*([said] if known else []), *_cut_captions(fake), *fake.extractor.limits()]


def _cut_captions(fake: Features) -> list[str]:
    if not fake.extractor.reads_text:
        return []
    captions = sorted({record.caption for record in fake.records})
    cut = sum(fake.extractor.exceeds(captions))
    return [f"{cut} of {len(captions)} captions are longer than what {fake.extractor.name} reads: their ends are cut"] if cut else []
