"""Dermoscopic images of the ISIC 2019 challenge (https://challenge.isic-archive.com/data/#2019): nine classes of lesions.

ISIC_2019_Training_GroundTruth.csv has a column a class, one of them 1; ISIC_2019_Training_Metadata.csv the lesion of each image,
where it is known; the images are in ISIC_2019_Training_Input. The test part is laid out alike, without lesions. Patients are not
published: what stays together in a split is the lesion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...config import option
from ...errors import DataError
from ..caption import caption, check_template
from ..classes import LESIONS
from ..named_images import NamedImages
from ..problems import Problems
from ..record import Record
from ..rows import find_tables, read_header, read_records, read_rows
from ..source import SOURCES, Source, caption_option

TRUTH, METADATA, INPUT = "_GroundTruth.csv", "_Metadata.csv", "_Input"
PARTS = {"training": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class IsicConfig:
    """Captions, lesions, and where the images are."""

    caption: str = caption_option("isic")
    lesions: bool = option(True, "Keep the images of a lesion in one split, by lesion_id of the metadata; off: each image is its own.")
    images: str = option("", "Folder with the images, at any depth; empty: the one with _Input in place of _GroundTruth.csv.",
                         advanced=True)


@SOURCES.register("isic")
class IsicSource(Source):
    """Ground truth with a column a class, or the folder that it lies in."""

    name = "isic"
    description = "ISIC_2019_Training_GroundTruth.csv with a column a lesion class, _Metadata.csv and the folder _Input beside it"
    Config = IsicConfig

    def recognises(self, path: Path) -> bool:
        return bool(_tables(path))

    def read(self, path: Path, config: IsicConfig) -> list[Record]:
        check_template(config.caption)
        tables = _tables(path)
        if not tables:
            shown = f"its columns are: {', '.join(read_header(path))}" if path.is_file() else "there is no such CSV in the folder"
            raise DataError(f"{path} is not ISIC 2019's ground truth, a CSV with the columns image, {', '.join(LESIONS)}; {shown}")
        return read_records(tables, lambda table: partial(
            _record, images=NamedImages(_folder(table, config.images)), lesions=_lesions(table, config), split=_split(table),
            config=config))


def _tables(path: Path) -> list[Path]:
    return find_tables(path, lambda table: {"image", *LESIONS} <= set(read_header(table)))


def _beside(table: Path, ending: str) -> Path:
    """The file or folder that belongs to a table: the same name with another ending."""
    return table.with_name(table.name.removesuffix(TRUTH).removesuffix(".csv") + ending)


def _split(table: Path) -> str | None:
    return next((split for word, split in PARTS.items() if word in table.stem.lower()), None)


def _folder(table: Path, given: str) -> Path:
    folder = Path(given) if given else _beside(table, INPUT)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} with the images of {table.name}; set images to the folder that holds them, "
                        "or give the table of another part itself")
    return folder


def _lesions(table: Path, config: IsicConfig) -> dict[str, str] | None:
    """The lesion of each image, empty where it is not known; None where there are none to be had or wanted.

    DataError where the metadata is not there, or speaks twice of one image.
    """
    path = _beside(table, METADATA)
    if not config.lesions or (_split(table) == "test" and "lesion_id" not in read_header(path)):
        return None
    if not path.is_file():
        raise DataError(f"there is no {path}, by whose lesion_id the images of one lesion stay in one split; put it beside "
                        f"{table.name}, or set lesions to false")
    problems, found = Problems(f"rows of {path}"), {}
    rows = read_rows(path, ("image", "lesion_id"))
    for number, row in rows:
        if found.setdefault(row["image"], row["lesion_id"]) != row["lesion_id"]:
            problems.add(f"line {number}", f"{row['image']} is of another lesion than in a row above")
    problems.check(len(rows))
    return found


def _record(row: dict[str, str], images: NamedImages, lesions: dict[str, str] | None, split: str | None, config: IsicConfig) -> Record:
    name = row["image"]
    label = LESIONS[_code(row)]
    if lesions is not None and name not in lesions:
        raise DataError(f"{name} is not in the metadata")
    return Record(images.find(name), caption([label], config.caption), (label,), (lesions or {}).get(name) or None, split)


def _code(row: dict[str, str]) -> str:
    """The class whose column is 1."""
    for code in LESIONS:
        if row[code] not in ("0", "1", "0.0", "1.0"):
            raise DataError(f"{code} is {row[code]!r}; it must be 0 or 1")
    marked = [code for code in LESIONS if row[code].startswith("1")]
    if len(marked) != 1:
        raise DataError(f"{len(marked)} classes are marked{': ' if marked else ''}{', '.join(marked)}; it must be one")
    return marked[0]
