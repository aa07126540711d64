"""Arms with their scores -> scores.json, scores.csv, differences.csv, tables.tex and one self-contained page, report.html."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.record import Record
from ...errors import DataError
from ...files import write_json, write_text
from .arm import Arm, read_losses
from .latex import latex
from .limits import limits
from .page import Contents, render
from .prose import methods
from .score_table import COLUMNS, comparisons, rows

if TYPE_CHECKING:
    from ..downstream.result import Downstream

__all__ = ["Arm", "read_losses", "rows", "write_report"]

PAIR_COLUMNS = ("metric", "label", "first", "second", "difference", "low", "high", "p", "p_holm", "holds", "detectable")


def write_report(out: str | Path, arms: Sequence[Arm], real: Sequence[Record], *, title: str = "MedTune report",
                 notices: Sequence[str] = (), columns: int = 8, downstream: Downstream | None = None) -> Path:
    """Write a report's files into a folder; the path of the page.

    ``real`` are the held-out images that the arms were scored against; ``notices`` stand at the top of the page; ``columns`` is
    how many images a row of the picture grid has; ``downstream`` is a study of classifiers to show besides.
    """
    _check(arms)
    contents = _contents(arms, real, title=title, notices=notices, columns=columns, downstream=downstream)
    out, pairs = Path(out), _pairs(contents)
    write_json(out / "scores.json", _json(contents, pairs))
    write_text(out / "scores.csv", _csv(contents.table, COLUMNS))
    write_text(out / "differences.csv", _csv(pairs, PAIR_COLUMNS))
    write_text(out / "tables.tex", latex(contents.tables(), title, contents.methods, contents.limits))
    write_text(out / "report.html", render(contents))
    return out / "report.html"


def _contents(arms: Sequence[Arm], real: Sequence[Record], *, notices: Sequence[str], downstream: Downstream | None,
              **others: Any) -> Contents:
    notices = list(dict.fromkeys([*notices, *_notices(arms)]))
    compared = comparisons(arms)
    return Contents(created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), arms=arms, real=real,
                    table=rows(arms), compared=compared, notices=notices, methods=methods(arms, downstream),
                    limits=limits(arms, real, compared, notices, downstream), downstream=downstream, **others)


def _pairs(contents: Contents) -> list[dict[str, Any]]:
    """The difference of every two arms at every metric and label as one row."""
    names = [arm.name for arm in contents.arms if not arm.reference]
    return [{"metric": metric, "label": label, **contrast.to_json(names)}
            for (metric, label), comparison in contents.compared.items() for contrast in comparison.contrasts]


def _json(contents: Contents, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kept = [{"name": arm.name, "reference": arm.reference, "made_by": arm.made_by, "steps": len(arm.losses), **arm.scores.to_json(),
             **({"privacy": dict(arm.privacy)} if arm.privacy else {})} for arm in contents.arms]
    return {"title": contents.title, "created": contents.created, "notices": list(contents.notices), "methods": list(contents.methods),
            "limits": list(contents.limits), "scores": list(contents.table), "differences": list(pairs), "arms": kept,
            **({"downstream": contents.downstream.to_json()} if contents.downstream else {})}


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


def _csv(table: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
