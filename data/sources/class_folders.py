"""One folder a class: ``pneumonia/a.png``, or ``train/pneumonia/a.png`` with the split on top."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...config import option
from ...errors import ConfigError, DataError, listing
from ..caption import caption, check_template
from ..problems import Problems
from ..record import Record
from ..source import SOURCES, Source, caption_option, list_images
from ..split import SPLITS, split_name

REPEATS = re.compile(r"\d+_.+")


@dataclass(frozen=True)
class ClassFoldersConfig:
    """How captions and patients come from names."""

    caption: str = caption_option("{labels}")
    patient: str = option("", "Regular expression whose first group (or whole match) in a file's path is its patient, as "
                              r"(patient\d+); empty: not known.", advanced=True)


@SOURCES.register("class-folders")
class ClassFoldersSource(Source):
    """Sub-folders whose names are the labels."""

    name = "class-folders"
    description = "one sub-folder of images a class, at most below train, val and test"
    Config = ClassFoldersConfig

    def recognises(self, path: Path) -> bool:
        if not path.is_dir() or list_images(path) or any(path.glob("*.csv")) or any(path.glob("metadata.*")):
            return False
        folders = _folders(path)
        if any(any(folder.glob("metadata.*")) for folder in folders) or any(REPEATS.fullmatch(folder.name) for folder in folders):
            return False
        return any(list_images(folder, deep=True) for folder in folders)

    def read(self, path: Path, config: ClassFoldersConfig) -> list[Record]:
        check_template(config.caption)
        pattern = _pattern(config.patient)
        loose = list_images(path)
        if loose:
            raise DataError(f"{len(loose)} images lie in {path} itself, outside of any class: {listing(loose)}; "
                            "move them into their class's folder")
        problems, records = Problems("images"), []
        for folder, split in _classes(path):
            images = list_images(folder, deep=True)
            if not images:
                problems.add(folder, "the class has no images; add some or remove the folder")
            for image in images:
                patient = _patient(pattern, image.relative_to(path).as_posix(), problems)
                records.append(Record(image, caption([folder.name], config.caption), (folder.name,), patient, split))
        problems.check(len(records))
        return records


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _classes(path: Path) -> list[tuple[Path, str | None]]:
    """(class folder, split): the classes, or those below folders that are all named for splits."""
    folders = _folders(path)
    if folders and all(split_name(folder.name) in SPLITS for folder in folders):
        return [(inner, split_name(folder.name)) for folder in folders for inner in _folders(folder)]
    return [(folder, None) for folder in folders]


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise ConfigError(f"patient is {text!r}, which is no regular expression: {error}") from error


def _patient(pattern: re.Pattern[str] | None, name: str, problems: Problems) -> str | None:
    if pattern is None:
        return None
    match = pattern.search(name)
    if match is None:
        problems.add(name, f"the patient pattern {pattern.pattern!r} is not in its path")
        return None
    return match[1] if pattern.groups else match[0]
