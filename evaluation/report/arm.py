"""One arm of a report: a set of generated images with what it scored and what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.image_set import ImageSet
from ...data.record import Record
from ...errors import DataError
from ..run import Scores

AUDIT = ("figures", "nearest", "alike", "images", "threshold", "n", "extractor", "options", "notices")
"""What an audit of privacy consists of."""


@dataclass(frozen=True)
class Arm:
    """One set of generated images: what it scored, its records, what made it, and the losses of the training behind it.

    ``made_by`` is the image set's ``medtune.json``. A ``reference`` arm (real images against real images) shows what could be
    reached; it takes no part in the comparison. ``privacy`` is what ``Privacy.to_json`` gives of the set, if that was looked into.
    """

    name: str
    scores: Scores
    records: Sequence[Record] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    losses: Sequence[float] = ()
    reference: bool = False
    privacy: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, name: str, folder: str | Path, scores: Scores, losses: Sequence[float] | None = None,
           privacy: Mapping[str, Any] | None = None) -> Arm:
        """The arm of an image set; its losses are read from the file that the adapter's entry ``losses`` names, if it is there."""
        image_set = ImageSet(folder)
        made_by = image_set.read_info()
        path = (made_by.get("adapter") or {}).get("losses")
        if losses is None:
            losses = read_losses(path) if path and Path(path).is_file() else ()
        return cls(name, scores, tuple(image_set.records), made_by, tuple(losses), privacy=privacy)

    @property
    def tuned(self) -> bool:
        """Whether an adapter made the images."""
        return bool(self.made_by.get("adapter"))


def read_losses(path: str | Path) -> list[float]:
    """The losses of a run, in the order of their steps, from its losses.jsonl; a last line torn by a kill is left out."""
    found = []
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            found.append(float(json.loads(line)["loss"]))
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise DataError(f"{path}: line {number} holds no loss: {line[:60]!r}; it must look like "
                                '{"step": 1, "loss": 0.1}') from error
    return found


def read_privacy(path: str | Path) -> dict[str, Any]:
    """An audit from the privacy.json of `medtune privacy`; DataError when the file holds something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read an audit of privacy from {path}: {error}") from error
    lacking = [name for name in AUDIT if not isinstance(found, dict) or name not in found]
    if lacking:
        raise DataError(f"{path} is no result of medtune privacy: it lacks {', '.join(lacking)}")
    return found
