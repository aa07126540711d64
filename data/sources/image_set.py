"""Image sets: ``metadata.jsonl``, or Hugging Face's imagefolder with ``metadata.csv``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...config import option
from ...errors import DataError
from ..caption import TEMPLATES, caption, check_template
from ..image_set import LINES, read_lines, to_record
from ..record import Record
from ..rows import read_header, read_records, read_rows
from ..source import SOURCES, Source
from ..split import split_name


@dataclass(frozen=True)
class ImageSetConfig:
    """Which column holds the caption."""

    text: str = option("text", "The key or column that holds the caption.")
    caption: str = option("", f"Make captions from the labels by this template instead: {TEMPLATES}.", advanced=True)


@SOURCES.register("image-set")
class ImageSetSource(Source):
    """A folder with metadata.jsonl or metadata.csv, or that file itself; folders below it with their own are read too."""

    name = "image-set"
    description = "a folder with metadata.jsonl (or metadata.csv) whose rows hold file_name and text"
    Config = ImageSetConfig

    def recognises(self, path: Path) -> bool:
        return bool(_tables(path))

    def read(self, path: Path, config: ImageSetConfig) -> list[Record]:
        if config.caption:
            check_template(config.caption)
        tables = _tables(path)
        if not tables:
            raise DataError(f"{path} has no metadata.jsonl, and no metadata.csv with a column file_name")
        return read_records(tables, lambda table: partial(_record, table, config), _rows)


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name == LINES or (path.name == "metadata.csv" and "file_name" in read_header(path)) else []
    here = [table for name in (LINES, "metadata.csv") if (table := path / name).is_file()]
    below = sorted(table for name in (LINES, "metadata.csv") for table in path.glob(f"*/{name}")) if not here else []
    return [table for table in here[:1] + below if table.name == LINES or "file_name" in read_header(table)]


def _rows(table: Path) -> list[tuple[int, dict[str, Any]]]:
    if table.name == LINES:
        return list(enumerate(read_lines(table)[0], 1))
    return [(number, dict(row)) for number, row in read_rows(table, ["file_name"])]


def _from_cells(row: dict[str, str]) -> dict[str, Any]:
    """The row with its texts as JSON would have them: labels are separated by |, an empty cell is no value."""
    values: dict[str, Any] = {key: cell for key, cell in row.items() if cell}
    if "labels" in values:
        values["labels"] = [label.strip() for label in values["labels"].split("|") if label.strip()]
    for key in ("seed", "repeats"):
        if key in values:
            values[key] = int(values[key]) if values[key].isdigit() else values[key]
    if "boxes" in values:
        raise DataError(f"{row['file_name']}: boxes cannot be read from a CSV; use metadata.jsonl")
    return values


def _record(table: Path, config: ImageSetConfig, row: dict[str, Any]) -> Record:
    if table.suffix == ".csv":
        row = _from_cells(row)
    text = caption(row.get("labels") or (), config.caption) if config.caption else row.get(config.text)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{row.get('file_name')} has no caption under {config.text!r} (its keys: {', '.join(row)}); "
                        "write one, name the key, or have captions made from labels")
    split = row.get("split")
    return to_record(table.parent, {**row, "text": text, "split": split_name(split) if isinstance(split, str) else split})
