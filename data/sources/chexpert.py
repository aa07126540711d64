"""CheXpert's tables (a column a finding) and NIH ChestX-ray14's (``Finding Labels`` in one column)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...config import option
from ...errors import DataError
from ..caption import caption, check_template
from ..record import Record
from ..rows import find_tables, locate, read_header, read_records
from ..source import SOURCES, Source, caption_option
from ..split import SPLITS, split_name

FINDINGS = ("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
            "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices")
PATHS, PATIENTS, LABELS = ("Path", "Image Index"), ("PatientID", "Patient ID"), "Finding Labels"
PATIENT = re.compile(r"patient\d+")


@dataclass(frozen=True)
class CheXpertConfig:
    """What counts as a finding, which views, and where the images are."""

    caption: str = caption_option("chest-xray")
    uncertain: str = option("negative", "Findings marked -1: negative counts them as absent, positive as present, ignore leaves "
                                        "such images out.", choices=("ignore", "positive", "negative"))
    frontal_only: bool = option(False, "Take frontal views alone, by the column Frontal/Lateral or the file's name.")
    images: str = option("", "Folder that the paths in the table start from; empty: the table's own.", advanced=True)


@SOURCES.register("chexpert")
class CheXpertSource(Source):
    """A table with a column Path, or a folder with such tables (train.csv, valid.csv)."""

    name = "chexpert"
    description = "CSV with Path and a column a finding (CheXpert), or Path, PatientID, Split, Finding Labels (NIH)"
    Config = CheXpertConfig

    def recognises(self, path: Path) -> bool:
        return bool(_tables(path))

    def read(self, path: Path, config: CheXpertConfig) -> list[Record]:
        check_template(config.caption)
        tables = _tables(path)
        if not tables:
            shown = f"its columns are: {', '.join(read_header(path))}" if path.is_file() else "there is no such CSV in the folder"
            raise DataError(f"{path} lacks the columns Path and {LABELS!r} (NIH), or Path and one of CheXpert's findings "
                            f"({', '.join(FINDINGS[:4])}, ...); {shown}")
        return read_records(tables, lambda table: partial(_record, table, config))


def _fits(table: Path) -> bool:
    header = set(read_header(table))
    return bool(header & set(PATHS)) and (LABELS in header or bool(header & set(FINDINGS)))


def _tables(path: Path) -> list[Path]:
    return find_tables(path, _fits)


def _record(table: Path, config: CheXpertConfig, row: dict[str, str]) -> Record | None:
    """The row's record, or None where the options leave it out."""
    name = next(row[column] for column in PATHS if column in row)
    image = _locate(table, name, config)
    if config.frontal_only and not _frontal(row, name):
        return None
    labels = _labels(row, config.uncertain)
    if labels is None:
        return None
    split = split_name(row["Split"]) if row.get("Split") else split_name(table.stem) if split_name(table.stem) in SPLITS else None
    return Record(image, caption(labels, config.caption), tuple(sorted(labels)), _patient(row, name), split)


def _locate(table: Path, name: str, config: CheXpertConfig) -> Path:
    """The image file. CheXpert's paths begin with the name of the folder that the table lies in, whatever it is called now."""
    root = Path(config.images) if config.images else table.parent
    path = locate(root, name)
    parts = Path(name).parts
    if not path.exists() and len(parts) > 1 and (below := locate(root, str(Path(*parts[1:])))).exists():
        return below
    if not path.exists() and len(parts) == 1 and (below := root / "images" / name).exists():
        return below
    if not path.exists():
        raise DataError(f"there is no {path}; set images to the folder that the paths start from")
    return path


def _patient(row: dict[str, str], name: str) -> str | None:
    given = next((row[column] for column in PATIENTS if row.get(column)), None)
    match = PATIENT.search(name)
    return given or (match[0] if match else None)


def _frontal(row: dict[str, str], name: str) -> bool:
    view = row.get("Frontal/Lateral") or row.get("View Position")
    if view:
        return view.lower() in ("frontal", "pa", "ap")
    if "lateral" in name.lower() or "frontal" in name.lower():
        return "frontal" in name.lower()
    raise DataError(f"{name}: neither a column Frontal/Lateral nor the file's name says which view it is; do without frontal_only")


def _labels(row: dict[str, str], uncertain: str) -> list[str] | None:
    if LABELS in row:
        labels = [label.strip() for label in row[LABELS].split("|") if label.strip()]
        if not labels:
            raise DataError(f"{LABELS} is empty; a normal image says 'No Finding'")
        return labels
    found, doubtful = [], False
    for finding in FINDINGS:
        mark = _mark(finding, row.get(finding, ""))
        doubtful |= mark == -1
        if mark == 1 or (mark == -1 and uncertain == "positive"):
            found.append(finding)
    return None if doubtful and uncertain == "ignore" else found


def _mark(finding: str, text: str) -> int:
    if not text:
        return 0
    try:
        value = float(text)
    except ValueError:
        value = None
    if value not in (0, 1, -1):
        raise DataError(f"{finding} is {text!r}; it must be 1, 0, -1 or blank")
    return int(value)
