"""Any CSV or TSV file with a row an image: which column is what is said in the options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...config import option
from ...errors import ConfigError, DataError
from ..caption import caption, check_template
from ..record import Record
from ..rows import locate, read_records, read_rows
from ..source import SOURCES, Source, caption_option
from ..split import split_name


@dataclass(frozen=True)
class TableConfig:
    """The columns by name; an empty name means that there is none."""

    image: str = option("image", "Column with the image's path.")
    text: str = option("", "Column with the caption; empty: captions are made from the labels.")
    labels: str = option("", "Column with the labels.")
    separator: str = option("|", "What stands between two labels.", advanced=True)
    patient: str = option("", "Column with the patient.")
    split: str = option("", "Column with the split (train, val, test).")
    mask: str = option("", "Column with the mask's path.", advanced=True)
    caption: str = caption_option("{labels}")
    images: str = option("", "Folder that the paths in the table start from; empty: the table's own.", advanced=True)


@SOURCES.register("table")
class TableSource(Source):
    """A table whose columns are named in the options; never taken by itself, as the columns must be known."""

    name = "table"
    description = "a CSV or TSV file; the options name its columns (image, text, labels, patient, split, mask)"
    Config = TableConfig

    def recognises(self, path: Path) -> bool:
        return False

    def read(self, path: Path, config: TableConfig) -> list[Record]:
        if not path.is_file():
            raise DataError(f"{path} is a folder; give the CSV or TSV file itself")
        if not config.text and not config.labels:
            raise ConfigError("TableConfig.text and TableConfig.labels are both empty; name the column with captions "
                              "or the one with labels")
        if not config.separator:
            raise ConfigError("TableConfig.separator is empty; give what stands between two labels, as |")
        check_template(config.caption)
        columns = [config.image, config.text, config.labels, config.patient, config.split, config.mask]
        root = Path(config.images) if config.images else path.parent
        return read_records([path], lambda _: partial(_record, root, config),
                            partial(read_rows, columns=[column for column in columns if column]))


def _record(root: Path, config: TableConfig, row: dict[str, str]) -> Record:
    labels = [label.strip() for label in row.get(config.labels, "").split(config.separator) if label.strip()]
    text = row[config.text] if config.text else caption(labels, config.caption)
    if not text.strip():
        raise DataError(f"{row[config.image]} has neither caption nor labels")
    return Record(locate(root, row[config.image]), text, tuple(sorted(labels)), row.get(config.patient) or None,
                  split_name(row[config.split]) if config.split and row[config.split] else None,
                  locate(root, row[config.mask]) if config.mask and row[config.mask] else None)
