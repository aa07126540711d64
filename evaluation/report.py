"""Arms with their scores -> scores.json, scores.csv and one self-contained page, report.html."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.image_set import ImageSet
from ..data.record import Record
from ..errors import DataError
from ..files import write_json, write_text
from .comparison import standings
from .metric import Score
from .page import render
from .run import Scores

COLUMNS = ("arm", "metric", "label", "value", "low", "high", "direction", "standing", "n_real", "n_fake", "reason", "extractor")


@dataclass(frozen=True)
class Arm:
    """One set of generated images: what it scored, its records, what made it, and the losses of the training behind it.

    ``made_by`` is the image set's ``medtune.json``. A ``reference`` arm (real images against real images) shows what could be
    reached; it takes no part in the comparison.
    """

    name: str
    scores: Scores
    records: Sequence[Record] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    losses: Sequence[float] = ()
    reference: bool = False

    @classmethod
    def of(cls, name: str, folder: str | Path, scores: Scores, losses: Sequence[float] | None = None) -> Arm:
        """The arm of an image set; its losses are read from the file that the adapter's entry ``losses`` names, if it is there."""
        image_set = ImageSet(folder)
        made_by = image_set.read_info()
        path = (made_by.get("adapter") or {}).get("losses")
        if losses is None:
            losses = read_losses(path) if path and Path(path).is_file() else ()
        return cls(name, scores, tuple(image_set.records), made_by, tuple(losses))

    @property
    def tuned(self) -> bool:
        """Whether an adapter made the images."""
        return bool(self.made_by.get("adapter"))


def write_report(out: str | Path, arms: Sequence[Arm], real: Sequence[Record], *, title: str = "MedTune report",
                 notices: Sequence[str] = (), columns: int = 8) -> Path:
    """Write scores.json, scores.csv and report.html into a folder; the path of the page.

    ``real`` are the held-out images that the arms were scored against; ``notices`` stand at the top of the page; ``columns`` is
    how many images a row of the picture grid has.
    """
    _check(arms)
    out = Path(out)
    notices = list(dict.fromkeys([*notices, *_notices(arms)]))
    table = rows(arms)
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    kept = [{"name": arm.name, "reference": arm.reference, "made_by": arm.made_by, "steps": len(arm.losses), **arm.scores.to_json()}
            for arm in arms]
    write_json(out / "scores.json", {"title": title, "created": created, "notices": notices, "scores": table, "arms": kept})
    write_text(out / "scores.csv", _csv(table))
    write_text(out / "report.html", render(arms, real, table, title=title, created=created, notices=notices, columns=columns))
    return out / "report.html"


def rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Every figure of every arm as one row, with its standing among the arms."""
    made = []
    for metric, label in dict.fromkeys((score.metric, score.label) for arm in arms for score in arm.scores.scores):
        scores = {arm.name: arm.scores.find(metric, label) for arm in arms}
        rivals = [arm.name for arm in arms if not arm.reference]
        told = dict(zip(rivals, standings([scores[name] for name in rivals])))
        made += [_row(arm.name, scores[arm.name], told.get(arm.name, "reference")) for arm in arms if scores[arm.name] is not None]
    return made


def _row(name: str, score: Score, standing: str) -> dict[str, Any]:
    return {"arm": name, **{key: getattr(score, key) for key in COLUMNS if hasattr(score, key)}, "standing": standing}


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


def _check(arms: Sequence[Arm]) -> None:
    if not arms:
        raise DataError("a report needs at least one arm with scores; evaluate an image set first")
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"two arms are called {', '.join(map(repr, twice))}; give each its own name")


def _notices(arms: Sequence[Arm]) -> list[str]:
    """What the bases, the sampling and the evaluation had to say."""
    said = [(arm.made_by.get("base") or {}).get("notice") for arm in arms]
    said += [notice for arm in arms for notice in arm.made_by.get("notices") or ()]
    said += [notice for arm in arms if not arm.reference for notice in arm.scores.notices]
    if len({arm.scores.extractor.get("id") for arm in arms}) > 1:
        said.append("the arms were scored with different extractors: their figures cannot be compared")
    return [notice for notice in said if notice]


def _csv(table: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
