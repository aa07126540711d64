"""Retinal photographs with a level of diabetic retinopathy, as Kaggle publishes them: APTOS 2019 and EyePACS (2015).

APTOS: train.csv (id_code, diagnosis), images in train_images; neither patient nor eye is told.
EyePACS: trainLabels.csv (image, level), images in train, named ``10_left``: the number is the patient. The answers to its test
part, retinopathy_solution.csv, belong to the folder test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...config import option
from ...errors import DataError
from ..caption import caption, check_template
from ..classes import EYES, RETINOPATHY
from ..named_images import NamedImages
from ..record import Record
from ..rows import find_tables, read_header, read_records
from ..source import SOURCES, Source, caption_option
from ..split import SPLITS, split_name

APTOS, EYEPACS = ("id_code", "diagnosis"), ("image", "level")
NAME = re.compile(r"(\d+)_(left|right)(\.\w+)?")
UNANSWERED = "sample_submission.csv"  # has APTOS' columns, filled in with zeros
PARTS = {"trainlabels": "train", "retinopathy_solution": "test"}
FOLDERS = {"train": ("train_images", "train", "images"), "val": ("val_images", "valid_images", "val", "valid", "images"),
           "test": ("test_images", "test", "images")}


@dataclass(frozen=True)
class RetinopathyConfig:
    """Captions, eyes, and where the images are."""

    caption: str = caption_option("retinopathy")
    eye: bool = option(True, "Make the eye a label, and so a word of the caption, where the image's name tells it.")
    images: str = option("", "Folder with the images, at any depth; empty: train_images, train, test or images beside the table.",
                         advanced=True)


@SOURCES.register("retinopathy")
class RetinopathySource(Source):
    """A table with levels 0 to 4, or the folder that it lies in."""

    name = "retinopathy"
    description = "train.csv with id_code, diagnosis (APTOS 2019), or trainLabels.csv with image, level (EyePACS: 10_left, 10_right)"
    Config = RetinopathyConfig

    def recognises(self, path: Path) -> bool:
        return bool(_tables(path))

    def read(self, path: Path, config: RetinopathyConfig) -> list[Record]:
        check_template(config.caption)
        tables = _tables(path)
        if not tables:
            shown = f"its columns are: {', '.join(read_header(path))}" if path.is_file() else "there is no such CSV in the folder"
            raise DataError(f"{path} has neither the columns {', '.join(APTOS)} (APTOS) nor {', '.join(EYEPACS)} (EyePACS); {shown}")
        return read_records(tables, lambda table: partial(
            _record, images=NamedImages(_folder(table, config.images)), split=_split(table), config=config))


def _tables(path: Path) -> list[Path]:
    return find_tables(path, _fits)


def _fits(table: Path) -> bool:
    header = set(read_header(table))
    return table.name != UNANSWERED and (set(APTOS) <= header or set(EYEPACS) <= header)


def _split(table: Path) -> str | None:
    name = PARTS.get(table.stem.lower(), split_name(table.stem))
    return name if name in SPLITS else None


def _folder(table: Path, given: str) -> Path:
    """The folder with a table's images. DataError where the one that was named is not there."""
    if given:
        if not Path(given).is_dir():
            raise DataError(f"images is {given!r}, and there is no such folder; give the folder with the images of {table.name}")
        return Path(given)
    return next((folder for name in FOLDERS[_split(table) or "train"] if (folder := table.parent / name).is_dir()), table.parent)


def _record(row: dict[str, str], images: NamedImages, split: str | None, config: RetinopathyConfig) -> Record:
    if EYEPACS[0] not in row:
        name, level, patient, eye = row[APTOS[0]], _level(APTOS[1], row[APTOS[1]]), None, []
    else:
        name, level = row[EYEPACS[0]], _level(EYEPACS[1], row[EYEPACS[1]])
        match = NAME.fullmatch(name)
        if match is None:
            raise DataError(f"image is {name!r}; EyePACS names are the patient's number and the eye, as 10_left")
        patient, eye = match[1], [EYES[match[2]]]
    labels = tuple(sorted([RETINOPATHY[level], *(eye if config.eye else [])]))
    return Record(images.find(name), caption(labels, config.caption), labels, patient, split)


def _level(column: str, text: str) -> int:
    if text not in ("0", "1", "2", "3", "4"):
        raise DataError(f"{column} is {text!r}; it must be a level from 0 to 4")
    return int(text)
