"""A training as kohya's sd-scripts does it: data-set file, images with captions, and the command line, written to a folder.

Checked against https://github.com/kohya-ss/sd-scripts (docs/config_README-en.md, library/config_util.py, networks/lora.py) and
LyCORIS 4.1 (lycoris/kohya.py). Other random numbers are drawn there: the adapters are alike, not equal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.image import read_image, save_image
from ..data.problems import Problems
from ..data.record import Record
from ..errors import ConfigError, DataError, near
from ..files import write_json, write_text
from .kohya_command import differences, script, shared_arguments
from .kohya_network import METHODS_THERE, PRESET, network_of
from .objective import ObjectiveOptions
from .options import TrainOptions

if TYPE_CHECKING:
    from .base import Base
    from .method import Method

READABLE = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}  # with 8 bits at most: others lose their range there

@dataclass(frozen=True)
class KohyaTraining:
    """What was written: data-set file, command to run in a checkout of sd-scripts, and what differs from MedTune's training."""

    folder: Path
    dataset: Path
    command: list[str]
    images: int
    notices: list[str] = field(default_factory=list)


def write_training(folder: str | Path, records: Sequence[Record], base: Base, method: Method, *, options: TrainOptions,
                   objective: ObjectiveOptions | None = None, reference: bool = False) -> KohyaTraining:
    """Write what sd-scripts needs to train the same adapter on the same images.

    `base` may be on `meta`. The images are written anew, as training sees them; with `reference` the data-set file names the original
    ones, which must be of a kind that sd-scripts reads.

    Raises ConfigError for a method, base or setting that sd-scripts has not, DataError for images that it cannot read.
    """
    folder, objective = Path(folder).resolve(), objective or ObjectiveOptions()
    check_possible(base, method, options, objective)
    network = network_of(base, method)
    if not records:
        raise DataError("there are no images to write for sd-scripts")
    records = [replace(record, caption=network.caption(record.caption)) for record in records]
    if reference:
        check_readable(records)
    in_metadata = reference or network.script == "fine_tune.py"
    subsets = _write_images(folder, records, options, reference, in_metadata)
    write_text(folder / "dataset.toml", dataset_toml(subsets, options))
    if network.preset:
        write_text(folder / PRESET, network.preset)
    own = [word.replace(PRESET, str(folder / PRESET)) for word in network.arguments(options.lr or method.facts.lr)]
    command = ["accelerate", "launch", "--num_cpu_threads_per_process", "1", network.script,
               "--pretrained_model_name_or_path", _whole(base.ref), "--dataset_config", str(folder / "dataset.toml"),
               "--output_dir", str(folder / "output"), "--output_name", f"{method.name}-kohya",
               *shared_arguments(base, method, options, objective), *own]
    notices = [*differences(options), *network.notices]
    write_text(folder / "train.sh", script(command, notices))
    (folder / "train.sh").chmod(0o755)
    return KohyaTraining(folder, folder / "dataset.toml", command, len(records), notices)


def check_possible(base: Base, method: Method, options: TrainOptions, objective: ObjectiveOptions) -> None:
    """Raise ConfigError naming everything that sd-scripts does not do."""
    if method.name not in METHODS_THERE:
        raise ConfigError(f"sd-scripts cannot train {method.name!r}{near(method.name, METHODS_THERE)}; of MedTune's methods it has: "
                          f"{', '.join(METHODS_THERE)}")
    if base.kind not in ("sd1", "sd2") or base.channels != 4:
        raise ConfigError(f"sd-scripts trains Stable Diffusion 1.x and 2.x with 4 channels, and {base.ref} is {base.kind} with "
                          f"{base.channels}. Choose another base.")
    wanted = {"ema": options.ema > 0, "masked": objective.masked, "prior_weight": objective.prior_weight > 0,
              "inpainting": objective.inpainting != "off", "inflate": objective.inflate,
              "weighting=debiased of a base that predicts v": objective.weighting == "debiased" and base.prediction == "v_prediction"}
    if lacking := [name for name, set_ in wanted.items() if set_]:
        raise ConfigError(f"sd-scripts has no like of: {', '.join(lacking)}. Train with MedTune, or without.")


def check_readable(records: Sequence[Record]) -> None:
    """Raise DataError naming the images that sd-scripts cannot read, or would read with less range."""
    from PIL import Image, UnidentifiedImageError

    problems = Problems("images")
    for record in records:
        if record.image.suffix.lower() not in READABLE:
            problems.add(record.image, f"sd-scripts does not read {record.image.suffix or 'a file without an ending'}")
            continue
        try:
            with Image.open(record.image) as image:
                if image.mode not in _MODES:
                    problems.add(record.image, f"it has more than 8 bits a channel (mode {image.mode}), which sd-scripts would cut")
        except (OSError, UnidentifiedImageError) as error:
            problems.add(record.image, str(error))
    problems.check(len(records), "Have the images written anew instead of named by reference.")


@dataclass(frozen=True)
class _Subset:
    folder: Path
    repeats: int
    metadata: Path | None = None


def _write_images(folder: Path, records: Sequence[Record], options: TrainOptions, reference: bool, in_metadata: bool) -> list[_Subset]:
    """One subset for each number of repeats: a folder of images with captions beside them, or a JSON file of captions by image."""
    subsets, problems = [], Problems("images")
    for repeats in sorted({record.repeats for record in records}):
        own = [record for record in records if record.repeats == repeats]
        into = folder / "images" / f"{repeats}_images"
        captions = {}
        for index, record in enumerate(own):
            image = record.image.resolve() if reference else into / f"{index:06d}.png"
            captions[str(image)] = record.caption
            if not reference:
                _write_image(record, image, options, problems)
            if not in_metadata and record.caption.strip():  # sd-scripts stops at an empty file, and takes none for no caption
                write_text(image.with_suffix(".txt"), " ".join(record.caption.split()) + "\n")
        metadata = folder / f"{repeats}_images.json" if in_metadata else None
        if metadata:
            write_json(metadata, {image: {"caption": " ".join(caption.split())} for image, caption in captions.items()})
        subsets.append(_Subset(into, repeats, metadata))
    problems.check(len(records))
    return subsets


def _write_image(record: Record, path: Path, options: TrainOptions, problems: Problems) -> None:
    try:
        save_image(read_image(record.image, options.size, options.fit), path)
    except DataError as error:
        problems.add(record.image, str(error))


def dataset_toml(subsets: Sequence[_Subset], options: TrainOptions) -> str:
    """The data-set file."""
    lines = ["[general]", f"caption_dropout_rate = {float(options.caption_dropout)}", f"flip_aug = {str(options.flips).lower()}",
             "shuffle_caption = false", "", "[[datasets]]", f"resolution = {options.size}", f"batch_size = {options.batch or 1}",
             "enable_bucket = false"]
    for subset in subsets:
        lines += ["", "  [[datasets.subsets]]"]
        if subset.metadata:
            lines += [f"  metadata_file = {toml_text(str(subset.metadata))}"]
        else:
            lines += [f"  image_dir = {toml_text(str(subset.folder))}", "  caption_extension = '.txt'"]
        lines += [f"  num_repeats = {subset.repeats}"]
    return "\n".join(lines) + "\n"


def toml_text(text: str) -> str:
    """A text as TOML writes it: JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)


def _whole(ref: str) -> str:
    path = Path(ref).expanduser()
    return str(path.resolve()) if path.exists() else ref
