"""kohya's data-set files: subsets that are folders of images with caption files, or JSON files of captions by image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import option
from ...errors import DataError
from ..image import SUFFIXES
from ..kohya_config import read_toml, subsets
from ..problems import Problems
from ..record import Record
from ..source import SOURCES, Source, list_images


@dataclass(frozen=True)
class KohyaTomlConfig:
    """What to do with what MedTune does otherwise or not at all."""

    missing: str = option("refuse", "An image without a caption, or with an empty one, where there are no class_tokens: refuse it, "
                                    "or train it without a caption.", choices=("refuse", "empty"))
    changing: str = option("refuse", "Settings that change images or captions while training, as shuffle_caption: refuse them, or go "
                                     "on without.", choices=("refuse", "ignore"), advanced=True)
    regularisation: str = option("refuse", "Subsets of regularisation images: refuse them, leave them out, or train them as the "
                                           "others.", choices=("refuse", "leave-out", "train"), advanced=True)


@SOURCES.register("kohya-toml")
class KohyaTomlSource(Source):
    """The images that a data-set TOML of sd-scripts names."""

    name = "kohya-toml"
    description = "a .toml file as sd-scripts takes it by --dataset_config: [general], [[datasets]], [[datasets.subsets]]"
    Config = KohyaTomlConfig

    def recognises(self, path: Path) -> bool:
        if path.suffix.lower() != ".toml" or not path.is_file():
            return False
        try:
            return "datasets" in read_toml(path)
        except DataError:
            return False

    def read(self, path: Path, config: KohyaTomlConfig) -> list[Record]:
        problems, records = Problems(f"images of {path}"), []
        for title, subset in subsets(path, config.changing, config.regularisation):
            if subset.get("is_reg") and config.regularisation == "leave-out":
                continue
            own = _from_metadata if "metadata_file" in subset else _from_folder
            records += own(path, title, subset, config, problems)
        problems.check(len(records), "Add what is missing, or choose what to do about missing captions.")
        return records


def _located(path: Path, name: str) -> Path:
    """A path that the file names: absolute, else beside the file, else in the present folder as sd-scripts has it."""
    given = Path(name).expanduser()
    beside = path.parent / given
    return beside if beside.exists() else given


def _from_folder(path: Path, title: str, subset: Mapping[str, Any], config: KohyaTomlConfig, problems: Problems) -> list[Record]:
    folder = _located(path, subset["image_dir"])
    if not folder.is_dir():
        raise DataError(f"{title}: there is no folder {subset['image_dir']!r}, beside the file or here ({Path.cwd()})")
    images = list_images(folder)
    if not images:
        problems.add(folder, "the folder has no images; they lie directly in image_dir, not in folders below it")
    extension = subset.get("caption_extension", ".caption")
    if extension.lower() in SUFFIXES:
        raise DataError(f"{title}: caption_extension is {extension!r}, that of images; give that of the caption files, as '.txt'")
    records = []
    for image in images:
        text = _caption(image, extension, problems)
        text = text if text is not None else subset.get("class_tokens")
        if not text and config.missing == "refuse":
            problems.add(image, _why(image, extension, text))
        records.append(Record(image, _framed(text or "", subset), repeats=subset.get("num_repeats", 1)))
    return records


def _caption(image: Path, extension: str, problems: Problems) -> str | None:
    """The first line of an image's caption file, as sd-scripts reads it; None where there is no file."""
    file = image.with_name(image.stem + extension)
    if not file.is_file():
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        problems.add(file, f"the caption is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8")
        return ""
    return lines[0].strip() if lines else ""


def _why(image: Path, extension: str, text: str | None) -> str:
    if text is not None:
        return f"the caption in {image.stem}{extension} is empty"
    other = next((image.with_suffix(end).name for end in (".txt", ".caption") if image.with_suffix(end).is_file()), None)
    hint = f"; {other} is there: set caption_extension" if other else ""
    return f"there is no {image.stem}{extension} for it, and no class_tokens{hint}"


def _framed(text: str, subset: Mapping[str, Any]) -> str:
    """A caption with the subset's prefix and suffix, each parted by a space."""
    return " ".join(part for part in (subset.get("caption_prefix"), text, subset.get("caption_suffix")) if part)


def _from_metadata(path: Path, title: str, subset: Mapping[str, Any], config: KohyaTomlConfig, problems: Problems) -> list[Record]:
    file = _located(path, subset["metadata_file"])
    folder = _located(path, subset["image_dir"]) if subset.get("image_dir") else None
    records = []
    for name, entry in _entries(file, title).items():
        if not Path(name).is_absolute() and folder is None:
            raise DataError(f"{title}: {name} in {file} is no whole path, and there is no image_dir; give the folder of the images")
        image = Path(name) if folder is None else folder / name
        text = subset.get("caption_separator", ",").join(
            part for part in (entry.get("caption"), entry.get("tags")) if isinstance(part, str) and part)
        text = text.split("\n")[0].strip()
        if not text and config.missing == "refuse":
            problems.add(image, f"it has no caption in {file.name}")
        records.append(Record(image, _framed(text, subset), repeats=subset.get("num_repeats", 1)))
    return records


def _entries(file: Path, title: str) -> dict[str, dict[str, Any]]:
    """Image -> its entry in a metadata file: one JSON object, or (.jsonl) one with ``image_path`` a line."""
    if not file.is_file():
        raise DataError(f"{title}: there is no metadata_file {str(file)!r}")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".jsonl":
            found = {line["image_path"]: line for line in map(json.loads, filter(str.strip, text.splitlines()))}
        else:
            found = json.loads(text)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{title}: cannot read {file} as JSON of captions by image ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise DataError(f"{title}: {file} is not an object of images with an object each, as {{\"a.png\": {{\"caption\": \"...\"}}}}")
    return found
