"""Reading a data set, whatever its layout on disk: one file of ``sources`` a layout."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from ..config import from_json, option
from ..errors import ConfigError, DataError, Missing, listing
from ..registry import Registry
from .caption import TEMPLATES
from .image import SUFFIXES, check_image
from .problems import Problems
from .record import Record
from .split import check_split


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """A source without options."""


class Source(ABC):
    """A layout of data sets on disk."""

    name: ClassVar[str]
    description: ClassVar[str]
    Config: ClassVar[type] = NoOptions

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether a folder or file has this layout, by its names alone."""

    @abstractmethod
    def read(self, path: Path, config: Any) -> list[Record]:
        """The records, with DataError for whatever cannot be used."""


SOURCES: Registry[type[Source]] = Registry("source", __package__ + ".sources")
CHECKS = ("none", "header", "decode")


def read_records(path: str | Path, source: str = "auto", *, check: str = "header", shared_patients: bool = False,
                 **options: Any) -> list[Record]:
    """The records of a data set, sorted by image path.

    ``source`` is a name of SOURCES, or ``auto`` to go by the layout; ``options`` are the source's.
    ``check`` says how closely images are looked at: ``none``, ``header`` (there, not empty, of a known kind and not too
    large), or ``decode`` (every pixel). All that is wrong is gathered into one DataError. A patient in two splits is
    refused, unless ``shared_patients`` says that this is known.
    """
    path = Path(path)
    if check not in CHECKS:
        raise ConfigError(f"check is {check!r}; it must be one of: {', '.join(CHECKS)}")
    if not path.exists():
        raise Missing(f"there is no {path}; give a folder of images or a table")
    reader = SOURCES[recognise(path) if source == "auto" else source]()
    records = reader.read(path, from_json(reader.Config, options))
    if not records:
        raise DataError(f"{path} holds no images (read as {reader.name}); known are {', '.join(SUFFIXES)}")
    check_records(records, decode=check == "decode", look=check != "none")
    if not shared_patients:
        check_split(records)
    return sorted(records, key=lambda record: record.image.as_posix())


def recognise(path: Path) -> str:
    """The name of the source whose layout this is; DataError when none or several fit."""
    fitting = [name for name, source in SOURCES.items() if source().recognises(path)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(f"{path} fits several layouts: {', '.join(fitting)}; name the one that is meant as the source")
    known = "; ".join(f"{name}: {source.description}" for name, source in SOURCES.items())
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path} is an empty folder; give one with images. Known layouts: {known}")
    raise DataError(f"{path} has no layout that is known; name the source, or arrange it as one of: {known}")


def check_records(records: list[Record], decode: bool = False, look: bool = True) -> None:
    """DataError, naming the images, where one is listed twice, is missing, broken, or has a mask of another shape."""
    twice = [str(image) for image, count in Counter(record.image for record in records).items() if count > 1]
    if twice:
        raise DataError(f"{len(twice)} images are listed more than once: {listing(twice)}; list each once")
    problems = Problems("images")
    for record in records if look else ():
        try:
            shape = check_image(record.image, decode)
            if record.mask is not None and (held := check_image(record.mask, decode)) != shape:
                problems.add(record.mask, f"the mask is {held[0]} x {held[1]}, its image {shape[0]} x {shape[1]}")
        except DataError as error:
            problems.add(record.image, str(error))
    problems.check(len(records))


def list_images(folder: Path, deep: bool = False) -> list[Path]:
    """The image files of a folder, sorted; hidden ones left aside."""
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."))


def caption_option(default: str) -> Any:
    """The option that says how captions are made from labels."""
    return option(default, f"How captions are made from labels: {TEMPLATES}.")
