"""Nodes for data sets: read, phantoms, split, load an image set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import config
from ..data.image_set import ImageSet
from ..data.phantom import FINDINGS, write_phantoms
from ..data.record import Record
from ..data.source import SOURCES, read_records, recognise
from ..data.split import check_split, select, split
from ..errors import ConfigError, DataError
from ..files import hash_json
from . import host
from .host import RECORDS, io
from .widgets import seed as seed_input

CATEGORY = "MedTune/data"


class ReadData(io.ComfyNode):
    """A folder in any of the known layouts -> records."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneReadData", display_name="Read Medical Data Set", category=CATEGORY,
            description="Reads images with captions, labels and patients from a folder: image sets (metadata.jsonl or .csv), kohya "
                        "folders, one folder per class, tables of CheXpert, NIH, APTOS 2019, EyePACS and ISIC 2019, or any table "
                        "whose columns you name.",
            inputs=[
                io.Combo.Input("folder", options=host.data_folders(),
                               tooltip="A folder or table below datasets/, input/ or output/."),
                io.Combo.Input("source", options=["auto", *SOURCES], default="auto", tooltip="The layout; auto finds it out."),
                io.String.Input("options", default="", multiline=True, optional=True,
                                tooltip="The source's own options, one name=value a line (see help)."),
                io.Combo.Input("split", options=["all", "train", "val", "test"], default="all", optional=True,
                               tooltip="Only the images that the data set itself puts in this split."),
            ],
            outputs=[RECORDS.Output("records", display_name="records"), io.String.Output("summary", display_name="summary"),
                     io.Int.Output("count", display_name="count")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def validate_inputs(cls, folder=None):
        return True if folder is None else _valid(lambda: _existing(folder))

    @classmethod
    def fingerprint_inputs(cls, folder=None, **_):
        return _state(folder)

    @classmethod
    def execute(cls, folder, source, options="", split="all"):
        path = _existing(folder)
        source = recognise(path) if source == "auto" else source
        records = read_records(path, source, **_options(source, options))
        check_split(records)
        records = records if split == "all" else select(records, split)
        summary = summarise(records)
        host.Progress(cls).say(summary)
        return io.NodeOutput(records, summary, len(records))


class Phantoms(io.ComfyNode):
    """Synthetic chest radiographs -> records."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTunePhantoms", display_name="Phantom Radiographs", category=CATEGORY,
            description="Synthetic chest radiographs with findings, captions, boxes and masks: a data set for trying everything "
                        f"without any patient's image. Findings: {', '.join(FINDINGS)}, and normal, in turn.",
            inputs=[
                io.Int.Input("count", default=60, min=1, max=100_000, tooltip="Number of images."),
                seed_input(),
                io.Int.Input("size", default=512, min=64, max=2048, step=64, tooltip="Side of the images in pixels."),
                io.Int.Input("images_per_patient", default=2, min=1, max=100, tooltip="Images that share one anatomy."),
            ],
            outputs=[RECORDS.Output("records", display_name="records"), io.String.Output("summary", display_name="summary")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, count, seed, size, images_per_patient):
        folder = host.product_folder("phantoms", f"seed{seed}-{size}px-{images_per_patient}")
        progress = host.Progress(cls, count)
        for done in range(0, count, 10):  # a larger set begins with the smaller one's images
            progress(done, count, f"{done} of {count} images")
            write_phantoms(folder, min(done + 10, count), seed=seed, size=size, images_per_patient=images_per_patient)
        records = ImageSet(folder).records[:count]
        progress(count, count, summarise(records))
        return io.NodeOutput(records, summarise(records))


class Split(io.ComfyNode):
    """Records -> training, validation and test records with no patient in two of them."""

    @classmethod
    def define_schema(cls):
        def share(name, default, tooltip):
            return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.05, tooltip=tooltip)

        return io.Schema(
            node_id="MedTuneSplit", display_name="Split by Patient", category=CATEGORY,
            description="Splits a data set so that every patient is on one side only, with labels spread evenly.",
            inputs=[RECORDS.Input("records"), share("train", 0.8, "Share of the images to train on."),
                    share("val", 0.1, "Share for validation."), share("test", 0.1, "Share held out for scoring."), seed_input()],
            outputs=[RECORDS.Output("train_records", display_name="train"), RECORDS.Output("val_records", display_name="val"),
                     RECORDS.Output("test_records", display_name="test")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, records, train, val, test, seed):
        done = split(records, {"train": train, "val": val, "test": test}, seed)
        parts = [[record for record in done if record.split == name] for name in ("train", "val", "test")]
        host.Progress(cls).say(", ".join(f"{name} {len(part)}" for name, part in zip(("train", "val", "test"), parts)) + " images")
        return io.NodeOutput(*parts)


class LoadImageSet(io.ComfyNode):
    """An image set's folder -> records."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneLoadImageSet", display_name="Load Image Set", category=CATEGORY,
            description="Loads a folder of images with metadata.jsonl, such as sampling writes to output/medtune.",
            inputs=[io.Combo.Input("folder", options=host.data_folders(), tooltip="The image set's folder.")],
            outputs=[RECORDS.Output("records", display_name="records"), io.String.Output("summary", display_name="summary")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def validate_inputs(cls, folder=None):
        return True if folder is None else _valid(lambda: _existing(folder))

    @classmethod
    def fingerprint_inputs(cls, folder=None):
        return _state(folder)

    @classmethod
    def execute(cls, folder):
        records = read_records(_existing(folder), "image-set")
        host.Progress(cls).say(summarise(records))
        return io.NodeOutput(records, summarise(records))


def summarise(records: Sequence[Record]) -> str:
    """How many images, patients and images of each label."""
    patients = {record.patient for record in records if record.patient is not None}
    labels = Counter(label for record in records for label in record.labels)
    return (f"{len(records)} images" + (f", {len(patients)} patients" if patients else "")
            + (": " + ", ".join(f"{label} {count}" for label, count in labels.most_common(12)) if labels else ""))


def _existing(folder: str) -> Path:
    path = host.resolve(folder)
    if not path.exists():
        raise DataError(f"there is no {folder!r}; ComfyUI's folders hold: {', '.join(host.data_folders()[:20]) or 'no data folders'}")
    return path


def _valid(check) -> bool | str:
    try:
        check()
        return True
    except (ConfigError, DataError) as error:
        return str(error)


def _state(folder: str | Path | None) -> str | None:
    """Changes when a file below the folder does: names, sizes and times of change."""
    if folder is None:
        return None
    try:
        path = folder if isinstance(folder, Path) else host.resolve(folder)
    except ConfigError:
        return None
    start = path.parent if path.is_file() else path  # a table speaks of the images beside it
    files = [Path(root, name) for root, _, names in os.walk(start) for name in names]
    stats = [(str(file), stat.st_size, stat.st_mtime_ns) for file in sorted(files) if (stat := file.stat())]
    return hash_json(stats)


def _options(source: str, text: str) -> dict[str, Any]:
    """The source's options from lines name=value; a folder among them stays within ComfyUI's."""
    values = config.to_json(config.parse(SOURCES[source].Config, [line.strip() for line in text.splitlines() if line.strip()]))
    return {**values, "images": str(host.resolve(values["images"]))} if values.get("images") else values


def nodes() -> list[type]:
    """The nodes of this file."""
    return [ReadData, Phantoms, Split, LoadImageSet]
