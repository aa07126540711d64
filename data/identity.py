"""What a set of records is, by content: two data sets that train alike have one hash, wherever they lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..files import hash_file, hash_json
from .problems import Problems
from .record import Record


def hash_records(records: Sequence[Record], read: bool = True) -> str:
    """SHA-256 over image bytes, caption, labels, mask bytes, boxes and repeats of each record, in order.

    With ``read=False`` sizes and times of change stand for the bytes: quick, good for noticing a change on one machine,
    and not the same hash.
    """
    problems = Problems("images")
    content = [_content(record, read, problems) for record in records]
    problems.check(len(records))
    return hash_json(content)


def _content(record: Record, read: bool, problems: Problems) -> list:
    try:
        image, mask = (_file(path, read) if path is not None else None for path in (record.image, record.mask))
    except OSError as error:
        problems.add(record.image, f"cannot be read: {error.strerror or error}")
        return []
    return [image, record.caption, list(record.labels), mask, [dataclasses.astuple(box) for box in record.boxes], record.repeats]


def _file(path: Path, read: bool) -> str:
    if read:
        return hash_file(path)
    facts = path.stat()
    return f"{path}:{facts.st_size}:{facts.st_mtime_ns}"
