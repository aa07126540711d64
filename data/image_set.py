"""An image set: a folder of images with ``metadata.jsonl``, the layout that every hop writes and reads.

The layout is that of Hugging Face's imagefolder (``file_name``, ``text``), with ``labels``, ``patient``, ``split``,
``mask``, ``boxes``, ``seed`` and whatever else is known of an image. ``medtune.json`` beside it says what made the set.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .. import files
from ..errors import DataError, listing
from .record import Box, Record

if TYPE_CHECKING:
    import torch

LINES, INFO = "metadata.jsonl", "medtune.json"
KEYS = ("file_name", "text", "labels", "patient", "split", "mask", "boxes", "seed", "repeats")


class ImageSet:
    """A folder of images and what is known of each; made on the first write.

    After a kill the last line of ``metadata.jsonl`` may be torn: it is dropped, and its image counts as not made.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        rows, self._whole = read_lines(self.folder / LINES)
        self._rows = {str(row.get("file_name")): row for row in rows}
        self.records = [to_record(self.folder, row) for row in rows]

    def append(self, image: torch.Tensor, caption: str, labels: Iterable[str] = (), *, patient: str | None = None,
               split: str | None = None, mask: torch.Tensor | None = None, boxes: Iterable[Box] = (), seed: int | None = None,
               file_name: str | None = None, **extra: Any) -> Record:
        """Write one image, (3, H, W) in [0, 1], with its mask, (1, H, W), then its line: a line has its image."""
        from .image import save_image

        name = file_name or f"{len(self.records):06d}.png"
        if name in self._rows:
            raise DataError(f"{self.folder} already holds {name}; give another file name")
        row = {"file_name": name, "text": caption, "labels": list(labels), "patient": patient, "split": split,
               "mask": str(PurePosixPath("masks") / PurePosixPath(name).with_suffix(".png")) if mask is not None else None,
               "boxes": [dataclasses.asdict(box) for box in boxes], "seed": seed, **extra}
        record = to_record(self.folder, row)
        line = _line(row)
        save_image(image, record.image)
        if mask is not None and record.mask is not None:
            save_image(mask, record.mask)
        self._write(line)
        self._rows[name] = row
        self.records.append(record)
        return record

    def _write(self, line: str) -> None:
        with open(self.folder / LINES, "r+b" if (self.folder / LINES).exists() else "wb") as file:
            file.seek(self._whole)
            file.truncate()
            if self._whole and not _ends_line(self.folder / LINES, self._whole):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
            self._whole = file.tell()

    def extra(self, file_name: str) -> dict[str, Any]:
        """What else is known of an image, besides what its record holds."""
        if file_name not in self._rows:
            raise DataError(f"{self.folder} has no image {file_name!r}; it has {listing(self._rows)}")
        return {key: value for key, value in self._rows[file_name].items() if key not in KEYS}

    def write_info(self, info: dict[str, Any]) -> None:
        """Keep what made the set."""
        files.write_json(self.folder / INFO, info)

    def read_info(self) -> dict[str, Any]:
        """What made the set; empty where it does not say."""
        path = self.folder / INFO
        if not path.exists():
            return {}
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not JSON ({error}); delete it if it was edited by hand") from error
        if not isinstance(info, dict):
            raise DataError(f"{path} holds {type(info).__name__}, not a JSON object; delete it if it was edited by hand")
        return info

    def claim(self, info: dict[str, Any]) -> None:
        """Keep what makes the set, or refuse a folder whose images were made otherwise."""
        held = self.read_info()
        wanted = json.loads(json.dumps(info))
        differ = [key for key in sorted({*held, *wanted}) if held.get(key) != wanted.get(key)]
        if held and differ:
            raise DataError(f"{self.folder} holds images made with other settings: "
                            + "; ".join(f"{key} was {held.get(key)!r}, now {wanted.get(key)!r}" for key in differ[:5])
                            + ". Choose another folder, or the same settings to go on with it.")
        if not held and self.records:
            raise DataError(f"{self.folder} already holds {len(self.records)} images and does not say what made them; "
                            "choose another folder")
        if not held:
            self.write_info(info)


def _line(row: dict[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"what is known of {row['file_name']} cannot be kept as JSON: {error}") from error


def _ends_line(path: Path, length: int) -> bool:
    with open(path, "rb") as file:
        file.seek(length - 1)
        return file.read(1) == b"\n"


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a JSON-lines file and the bytes that they take; a last line torn by a kill does not count.

    DataError naming the lines that are not JSON objects; no rows where there is no file.
    """
    if not path.exists():
        return [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    rows, bad, whole = [], [], 0
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is None and number == len(lines) and not line.endswith(b"\n"):
            break
        whole += len(line)
        if row is None and line.strip():
            bad.append(number)
        elif row is not None:
            rows.append(row)
    if bad:
        raise DataError(f"{path}: {len(bad)} of {len(lines)} lines are not JSON objects in UTF-8: line {listing(bad)}")
    return rows, whole


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # UnicodeDecodeError is one too
        return None
    return row if isinstance(row, dict) else None


def inside(folder: Path, name: Any) -> Path:
    """The path of a file that a row names, when it lies in the folder; otherwise DataError."""
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{name!r} is not a file name")
    path = Path(os.path.normpath(folder / name))
    if Path(name).is_absolute() or not path.is_relative_to(os.path.normpath(folder)):
        raise DataError(f"{name} climbs out of {folder}; files must lie in the folder")
    return path


def to_record(folder: Path, row: dict[str, Any]) -> Record:
    """The record of a metadata row; DataError naming the value that is of the wrong kind."""
    name = row.get("file_name")
    image = inside(folder, name)
    text = row.get("text")
    if not isinstance(text, str):
        raise DataError(f"{name}: text is {text!r}; a caption is text")
    labels, boxes, seed = row.get("labels") or (), row.get("boxes") or (), row.get("seed")
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{name}: labels is {labels!r}; it must be a list of texts")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise DataError(f"{name}: seed is {seed!r}; it must be a whole number")
    repeats = row.get("repeats", 1)
    if not isinstance(repeats, int) or repeats < 1:
        raise DataError(f"{name}: repeats is {repeats!r}; it must be a whole number of at least 1")
    return Record(image, text, tuple(sorted(labels)), _text(row, "patient"), _text(row, "split"),
                  inside(folder, row["mask"]) if row.get("mask") is not None else None,
                  tuple(_box(name, box) for box in boxes), repeats, seed)


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{row.get('file_name')}: {key} is {value!r}; it must be text")


def _box(name: Any, value: Any) -> Box:
    try:
        box = Box(float(value["x"]), float(value["y"]), float(value["width"]), float(value["height"]), str(value.get("label", "")))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{name}: {value!r} is not a box; it must be an object with x, y, width, height and label") from error
    if not (box.width > 0 and box.height > 0 and box.x >= 0 and box.y >= 0):
        raise DataError(f"{name}: the box {value!r} is empty or begins outside of the image")
    return box
