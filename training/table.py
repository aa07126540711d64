"""A table of label combinations with counts -> prompts: the class-balanced sampling of Pixels Under Pressure."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from ..data.caption import caption
from ..data.classes import COMBINATIONS
from ..data.record import Record
from ..errors import DataError, UnknownName
from .sample import Prompt

Table = list[tuple[tuple[str, ...], int]]
COLUMNS = ("labels", "count")


def read_table(source: str | Path) -> Table:
    """(labels, count) of each row, from a CSV file or its text.

    The columns are ``labels`` (several of them separated by ``|``; none means a normal image) and ``count``. Raises DataError
    naming every row that cannot be used.
    """
    text, name = _read(source)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = list(zip((number for number, _ in lines), csv.reader(line for _, line in lines)))
    header = tuple(cell.strip().lower() for cell in rows[0][1]) if rows else ()
    if header != COLUMNS:
        raise DataError(f"{name} begins with {', '.join(header) or 'nothing'}; the first row must be: {','.join(COLUMNS)}")
    table, faults, seen = [], [], {}
    for number, cells in rows[1:]:
        fault, labels, count = _read_row(cells)
        if not fault and labels in seen:
            fault = f"the labels of row {seen[labels]} again"
        if fault:
            faults.append(f"row {number} ({fault})")
            continue
        seen[labels] = number
        table.append((labels, count))
    if faults or not table:
        raise DataError(f"{name} has {len(faults)} rows that cannot be used: {'; '.join(faults[:5])}" if faults else
                        f"{name} has no rows below its header; add one a label combination, such as: Pneumonia|Edema,10")
    return table


def balanced_table(template: str, count: int) -> Table:
    """``count`` images of each combination of classes that a caption template of closed classes knows: ``retinopathy`` (levels and
    eyes), ``isic`` (lesions). UnknownName for another template, whose classes only the data tell.
    """
    if template not in COMBINATIONS:
        raise UnknownName("template with a closed list of classes", template, COMBINATIONS)
    if count < 1:
        raise DataError(f"a table of {count} images of each class was asked for; it must be at least 1")
    return [(labels, count) for labels in COMBINATIONS[template]]


def prompts_from_table(table: Table, template: str = "chest-xray", seed: int = 0) -> list[Prompt]:
    """One prompt an image: its caption made from the labels, the combinations taken in turn, seeds counting up from ``seed``.

    Taking turns makes any first part of the images as balanced as the whole.
    """
    return [Prompt(caption(labels, template), labels, seed + index) for index, labels in enumerate(_in_turn(table))]


def prompts_from_records(records: Sequence[Record], count: int, seed: int = 0) -> list[Prompt]:
    """A class-balanced list of ``count`` prompts with the captions that the records have; few captions are used several times."""
    captions: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        captions.setdefault(tuple(sorted(record.labels)), []).append(record.caption)
    used, prompts = Counter(), []
    for index, labels in enumerate(_in_turn(table_from_records(records, count))):
        texts = captions[labels]
        prompts.append(Prompt(texts[used[labels] % len(texts)], labels, seed + index))
        used[labels] += 1
    return prompts


def table_from_records(records: Sequence[Record], count: int) -> Table:
    """A class-balanced table of ``count`` images with the label combinations that the records have.

    Each image in turn goes to the label that has fewest so far, and among the combinations with that label to the one that falls
    most short of its share in the records. Records without labels are a class of their own.
    """
    if count < 1:
        raise DataError(f"a table of {count} images was asked for; it must be at least 1")
    combinations = Counter(tuple(sorted(record.labels)) for record in records)
    if not combinations:
        raise DataError("no records to take label combinations from; read a data set that has images")
    classes = sorted({label for labels in combinations for label in labels or ("",)})
    chosen, per_class = Counter(), Counter()
    for _ in range(count):
        rarest = min(classes, key=lambda label: per_class[label])
        able = sorted(labels for labels in combinations if rarest in (labels or ("",)))
        labels = min(able, key=lambda labels: (chosen[labels] + 0.5) / combinations[labels])
        chosen[labels] += 1
        per_class.update(labels or ("",))
    return [(labels, chosen[labels]) for labels in sorted(chosen)]


def _in_turn(table: Table) -> list[tuple[str, ...]]:
    columns = [[labels] * count for labels, count in table]
    return [labels for turn in zip_longest(*columns) for labels in turn if labels is not None]


def _read(source: str | Path) -> tuple[str, str]:
    """The table's text and what to call it: a string of several lines is the text itself, anything else a path."""
    if isinstance(source, str) and "\n" in source:
        return source, "the table"
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8-sig"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the table {path}: {error}. Give a CSV file in UTF-8 with the columns "
                        f"{','.join(COLUMNS)}, or the rows themselves.") from error


def _read_row(cells: list[str]) -> tuple[str, tuple[str, ...], int]:
    """(what is wrong or nothing, labels, count)."""
    if len(cells) != len(COLUMNS):
        return f"{len(cells)} cells instead of {len(COLUMNS)}", (), 0
    labels = tuple(sorted({label.strip() for label in cells[0].split("|") if label.strip()}))
    text = cells[1].strip()
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        return f"count {cells[1]!r} is not a whole number of at least 1", (), 0
    return "", labels, int(text)
