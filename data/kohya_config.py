"""The TOML that sd-scripts takes as ``--dataset_config``: its tables and keys, checked.

The format is that of https://github.com/kohya-ss/sd-scripts (docs/config_README-en.md, library/config_util.py): ``[general]``,
``[[datasets]]`` and ``[[datasets.subsets]]``, of which the inner ones count first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, Missing, near

# What a subset says of its images, and of what types it is.
_READ = {"image_dir": str, "metadata_file": str, "num_repeats": int, "caption_extension": str, "class_tokens": str,
         "caption_prefix": str, "caption_suffix": str, "caption_separator": str, "is_reg": bool}

# What has no bearing on records: the size and mixing of batches are the training's own options.
_OF_TRAINING = {"resolution", "batch_size", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps",
                "bucket_no_upscale", "cache_info", "keep_tokens", "token_warmup_min", "network_multiplier", "resize_interpolation",
                "custom_attributes", "validation_seed"}

# What changes images or captions while training, the values at which it does not, and what there is here instead.
_CHANGING = {
    "flip_aug": "the training option flips", "caption_dropout_rate": "the training option caption-dropout",
    "caption_dropout_every_n_epochs": "the training option caption-dropout", "validation_split": "the split of the data",
    "shuffle_caption": "", "caption_tag_dropout_rate": "", "color_aug": "", "random_crop": "", "face_crop_aug_range": "",
    "enable_wildcard": "", "token_warmup_step": "", "keep_tokens_separator": "", "secondary_separator": "",
    "alpha_mask": "masks in a metadata.jsonl", "conditioning_data_dir": "",
}

KNOWN = {*_READ, *_OF_TRAINING, *_CHANGING}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises DataError where it cannot be read, Missing where Python has no reader for it."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError as error:
            raise Missing(f"reading {path} needs Python 3.11, or the package tomli: pip install tomli") from error
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot read {path} as TOML: {error}. A path with backslashes stands in single quotes") from error


def subsets(path: Path, changing: str = "refuse", regularisation: str = "refuse") -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, settings with those of its data set and of [general]) of each subset.

    Raises DataError for keys that sd-scripts has not and values of a wrong type; and, unless `changing` or `regularisation` say
    otherwise than `refuse`, for what training would do otherwise here.
    """
    tables = read_toml(path)
    if unknown := set(tables) - {"general", "datasets"}:
        raise DataError(f"{path} has {_named(unknown, ('general', 'datasets'))}; it has [general] and [[datasets]] alone")
    general = _table(path, "[general]", tables.get("general", {}))
    datasets = tables.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise DataError(f"{path} has no [[datasets]]; it needs at least one, with [[datasets.subsets]] in it")
    for number, dataset in enumerate(datasets, 1):
        outer = f"[[datasets]] number {number}"
        dataset = dict(_table(path, outer, dataset))
        inner = dataset.pop("subsets", None)
        if not isinstance(inner, list) or not inner:
            raise DataError(f"{outer} of {path} has no [[datasets.subsets]]; give it one for each folder of images")
        for index, subset in enumerate(inner, 1):
            title = f"[[datasets.subsets]] number {index} of {outer} of {path}"
            merged = {**general, **dataset, **_table(path, title, subset)}
            _check(title, merged, changing, regularisation)
            yield title, merged


def _table(path: Path, title: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{title} of {path} is {value!r}; it must be a table")
    return value


def _named(names: Iterable[str], known: Iterable[str]) -> str:
    return ", ".join(f"{name!r}{near(name, known)}" for name in sorted(names))


def _check(title: str, subset: Mapping[str, Any], changing: str, regularisation: str) -> None:
    """Raise DataError for keys that sd-scripts has not, values of a wrong type, and what training would do otherwise here."""
    if unknown := set(subset) - KNOWN:
        raise DataError(f"{title} has {_named(unknown, KNOWN)}, which sd-scripts does not know; remove it or put it right")
    for name, kind in _READ.items():
        value = subset.get(name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise DataError(f"{title}: {name} is {value!r}; it must be {'a whole number' if kind is int else f'a {kind.__name__}'}")
    if not (subset.get("image_dir") or subset.get("metadata_file")):
        raise DataError(f"{title} has no image_dir; give the folder of its images")
    if subset.get("num_repeats", 1) < 1:
        raise DataError(f"{title}: num_repeats is {subset['num_repeats']}; it must be at least 1, or remove the subset")
    if subset.get("is_reg") and regularisation == "refuse":
        raise DataError(f"{title} holds regularisation images (is_reg). MedTune draws the images of a class itself (prior "
                        "preservation): set the source's option regularisation to leave-out, or to train to have them as others.")
    found = sorted(name for name in _CHANGING if subset.get(name))
    if found and changing == "refuse":
        told = ", ".join(f"{name}{f' (here: {_CHANGING[name]})' if _CHANGING[name] else ''}" for name in found)
        raise DataError(f"{title} sets {told}, which changes images or captions while training and is not done here by the data. Set "
                        "the source's option changing to ignore to go on without it.")
