"""Rows of a CSV or TSV file by column name, and the image files that they name."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, near
from .problems import Problems
from .record import Record


def read_header(path: Path) -> list[str]:
    """The column names of a CSV or TSV file; empty where it cannot be read as one."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader(file, delimiter=_delimiter(path)), [])]
    except (OSError, ValueError, csv.Error):
        return []


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """(line number, values by column) of each row.

    DataError where the file is not UTF-8 text, lacks one of ``columns``, or has rows of another length than its header.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_delimiter(path), strict=True)
            lines = [(reader.line_num, fields) for fields in reader if fields]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a table: {error}") from error
    if len(lines) < 2:
        raise DataError(f"{path} has no rows below its header; it needs one row an image")
    header = [name.strip() for name in lines[0][1]]
    _check_header(path, header, columns)
    ragged = Problems(f"rows of {path}")
    for number, fields in lines[1:]:
        if len(fields) != len(header):
            ragged.add(f"line {number}", f"{len(fields)} fields where the header has {len(header)}")
    ragged.check(len(lines) - 1, "Quote fields that hold commas, and give every row all columns.")
    return [(number, dict(zip(header, (field.strip() for field in fields), strict=True))) for number, fields in lines[1:]]


def find_tables(path: Path, fits: Callable[[Path], bool]) -> list[Path]:
    """The fitting CSV files of a folder, by name; or the file itself, which may be a TSV file too."""
    found = sorted(path.glob("*.csv")) if path.is_dir() else [path] if path.suffix.lower() in (".csv", ".tsv") else []
    return [table for table in found if fits(table)]


def read_records(tables: Iterable[Path], reader: Callable[[Path], Callable[[dict[str, Any]], Record | None]],
                 rows: Callable[[Path], list[tuple[int, dict[str, Any]]]] = read_rows) -> list[Record]:
    """The records of all tables: ``reader(table)`` gives what turns a row into its record, or into None where it is left out.

    DataError names every faulty row of all tables together.
    """
    problems, records, total = Problems("rows"), [], 0
    for table in tables:
        numbered, to_record = rows(table), reader(table)
        total += len(numbered)
        for number, row in numbered:
            try:
                record = to_record(row)
            except DataError as error:
                problems.add(f"{table}, line {number}", str(error))
                continue
            if record is not None:
                records.append(record)
    problems.check(total)
    return records


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise DataError(f"{path} has no column {', '.join(f'{name!r}{near(name, header)}' for name in lacking)}; "
                        f"its columns are: {', '.join(header)}")
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice:
        raise DataError(f"{path} has the column {', '.join(map(repr, twice))} more than once; give each its own name")


def locate(root: Path, name: str) -> Path:
    """The image that a row names, within ``root``; DataError for an empty name or one that climbs out."""
    if not name:
        raise DataError("no file name")
    base = Path(os.path.normpath(root))
    path = Path(os.path.normpath(base / name))
    if not path.is_relative_to(base):
        raise DataError(f"{name} lies outside of {base}; give paths within it, or name the folder that holds the images")
    return path
