"""kohya's folders: ``10_name`` is shown ten times an epoch; ``picture.txt`` beside ``picture.png`` is its caption."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...config import option
from ...errors import DataError
from ..image import SUFFIXES
from ..problems import Problems
from ..record import Record
from ..source import SOURCES, Source, list_images

REPEATS = re.compile(r"(\d+)_(.+)")


@dataclass(frozen=True)
class KohyaConfig:
    """How captions are found."""

    extension: str = option(".txt", "Ending of the caption files.")
    missing: str = option("refuse", "An image without a caption, or with an empty one: refuse it, take the folder's name, or "
                                    "train it without a caption.", choices=("refuse", "name", "empty"))


@SOURCES.register("kohya")
class KohyaSource(Source):
    """Folders of pictures with caption files, with or without the number of repeats."""

    name = "kohya"
    description = "images with same-name .txt captions, in folders 10_name (repeats and name) or in one folder"
    Config = KohyaConfig

    def recognises(self, path: Path) -> bool:
        if not path.is_dir() or any(path.glob("metadata.*")):
            return False
        return bool(_folders(path)) or any(image.with_suffix(".txt").exists() for image in list_images(path))

    def read(self, path: Path, config: KohyaConfig) -> list[Record]:
        folders = _folders(path) or [(path, 1, path.name)]
        problems, records = Problems("images"), []
        for folder, repeats, name in folders:
            images = list_images(folder)
            if not images:
                problems.add(folder, "the folder has no images")
            _check_names(images, problems)
            for image in images:
                text = _caption(image, name, config, problems)
                records.append(Record(image, text, repeats=repeats))
        problems.check(len(records), "Add what is missing, or choose what to do about missing captions.")
        return records


def _folders(path: Path) -> list[tuple[Path, int, str]]:
    """(folder, repeats, name) of each sub-folder named for its repeats."""
    found = [(folder, match) for folder in sorted(path.iterdir()) if folder.is_dir() and (match := REPEATS.fullmatch(folder.name))]
    for folder, match in found:
        if int(match[1]) < 1:
            raise DataError(f"{folder} is to be shown {match[1]} times; name it for at least 1, or move it away")
    return [(folder, int(match[1]), match[2]) for folder, match in found]


def _check_names(images: list[Path], problems: Problems) -> None:
    held: dict[str, Path] = {}
    for image in images:
        other = held.setdefault(image.stem, image)
        if other is not image:
            problems.add(image, f"has the same name as {other.name}, so that one caption file would serve both; rename one")


def _caption(image: Path, name: str, config: KohyaConfig, problems: Problems) -> str:
    path = image.with_suffix(config.extension) if config.extension.startswith(".") else Path(f"{image}{config.extension}")
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"the caption ending {config.extension!r} is that of images; give that of the caption files, as .txt")
    text = ""
    if path.exists():
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as error:
            problems.add(path, f"the caption is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8")
            return ""
    if not text and config.missing == "refuse":
        problems.add(path, "the caption is empty" if path.exists() else f"there is no caption for {image.name}")
    return text or (name if config.missing == "name" else "")
