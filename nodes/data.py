"""Nodes for data sets: read, phantoms, split, load an image set, ComfyUI's images to an image set and back."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.image import read_image, read_mask, transform_box
from ..data.image_set import ImageSet
from ..data.phantom import FINDINGS, write_phantoms
from ..data.record import Record
from ..data.source import SOURCES, read_records
from ..data.split import check_split, select, split
from ..errors import ConfigError, DataError, UnknownName
from ..files import hash_json
from . import host
from .host import RECORDS, io
from .widgets import seed as seed_input

CATEGORY = "MedTune/data"
FITS = ("crop", "pad")


class ReadData(io.ComfyNode):
    """A folder in any of the known layouts -> records."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneReadData", display_name="Read Medical Data Set", category=CATEGORY,
            description="Reads images with captions, labels and patients from a folder: image sets (metadata.jsonl or .csv), kohya "
                        "folders, one folder per class, CheXpert and NIH tables, or any table whose columns you name.",
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
        records = read_records(_existing(folder), source, **_pairs(options))
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
    def fingerprint_inputs(cls, seed=None, size=None, images_per_patient=None, **_):
        return None if None in (seed, size, images_per_patient) else _state(cls.folder(seed, size, images_per_patient))

    @staticmethod
    def folder(seed: int, size: int, images_per_patient: int) -> Path:
        return host.product_folder("phantoms", f"seed{seed}-{size}px-{images_per_patient}")

    @classmethod
    def execute(cls, count, seed, size, images_per_patient):
        folder, progress = cls.folder(seed, size, images_per_patient), host.Progress(cls, count)
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


class ImagesToSet(io.ComfyNode):
    """Images of a graph -> an image set on disk."""

    @classmethod
    def define_schema(cls):
        def text(name, tooltip):
            return io.String.Input(name, default="", optional=True, tooltip=tooltip)

        return io.Schema(
            node_id="MedTuneImagesToSet", display_name="Images to Image Set", category=CATEGORY, is_input_list=True,
            description="Writes images from any node, such as VAE Decode, with their captions and labels to output/medtune/sets.",
            inputs=[
                io.Image.Input("images", tooltip="A batch, or a list of images or batches."),
                io.String.Input("name", default="images", tooltip="Begins the folder's name."),
                text("captions", "One for each image (a list), or one for all."),
                text("labels", "Findings of each image, separated by |; a list, or one for all."),
                io.Int.Input("seeds", default=0, min=0, max=2**53 - 1, optional=True, force_input=True,
                             tooltip="The seed of each image, where there is one."),
                host.ADAPTER.Input("adapter", optional=True, tooltip="What was applied to the model, for the report."),
            ],
            outputs=[RECORDS.Output("records", display_name="records"), io.String.Output("folder", display_name="folder")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, images, name, captions=("",), labels=("",), seeds=(None,), adapter=(None,)):
        pictures = [picture for batch in images for picture in host.to_library(batch)]
        rows = list(zip(_each(captions, len(pictures), "captions"), _each(labels, len(pictures), "labels"),
                        _each(seeds, len(pictures), "seeds")))
        made_by = adapter[0].made_by() if adapter and adapter[0] is not None else None
        key = hash_json([[_digest(picture) for picture in pictures], rows, made_by])
        image_set = ImageSet(host.product_folder("sets", f"{name[0]}-{key[:12]}"))
        for index in range(len(image_set.records), len(pictures)):
            caption, label, seed = rows[index]
            found = tuple(part.strip() for part in label.split("|") if part.strip())
            image_set.append(pictures[index], caption, labels=found, seed=seed)
        if not image_set.read_info():
            notice = adapter[0].notice() if made_by else None
            image_set.write_info({"made_by": "ComfyUI", "adapter": made_by, "notices": [notice] if notice else []})
        host.Progress(cls).say(f"{len(pictures)} images in {host.shown(Path(image_set.folder))}")
        return io.NodeOutput(image_set.records, host.shown(Path(image_set.folder)))


class SetToImages(io.ComfyNode):
    """Records -> a batch of images with captions, masks and boxes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneSetToImages", display_name="Image Set to Images", category=CATEGORY,
            description="Gives some of a data set's images to the rest of ComfyUI.",
            inputs=[
                RECORDS.Input("records"),
                io.Int.Input("start", default=0, min=0, max=2**31 - 1, tooltip="The first image, counted from 0."),
                io.Int.Input("count", default=16, min=1, max=4096, tooltip="At most so many images."),
                io.Int.Input("size", default=512, min=64, max=2048, step=64, tooltip="Side of the images in pixels."),
                io.Combo.Input("fit", options=list(FITS), default="crop", tooltip="How an image becomes a square."),
            ],
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Mask.Output("masks", display_name="masks", tooltip="Empty where an image has none."),
                io.String.Output("captions", display_name="captions", is_output_list=True),
                io.String.Output("labels", display_name="labels", is_output_list=True, tooltip="Separated by |."),
                io.Custom("BOUNDING_BOX").Output("boxes", display_name="boxes"),
            ])

    @classmethod
    def execute(cls, records, start, count, size, fit):
        if fit not in FITS:
            raise UnknownName("fit", fit, FITS)
        chosen = records[start:start + count]
        if not chosen:
            raise DataError(f"start is {start}, and the data set has {len(records)} images; choose a start below that")
        images = torch.stack([read_image(record.image, size, fit) for record in chosen])
        masks = torch.cat([read_mask(record.mask, size, fit) if record.mask else torch.zeros(1, size, size) for record in chosen])
        return io.NodeOutput(host.to_comfy(images), masks, [record.caption for record in chosen],
                             ["|".join(record.labels) for record in chosen], [_boxes(record, size, fit) for record in chosen])


def summarise(records: Sequence[Record]) -> str:
    """How many images, patients and images of each label."""
    patients = {record.patient for record in records if record.patient is not None}
    labels = Counter(label for record in records for label in record.labels)
    return (f"{len(records)} images" + (f", {len(patients)} patients" if patients else "")
            + (": " + ", ".join(f"{label} {count}" for label, count in labels.most_common(12)) if labels else ""))


def _boxes(record: Record, size: int, fit: str) -> list[dict[str, Any]]:
    from PIL import Image

    if not record.boxes:
        return []
    with Image.open(record.image) as stored:
        shape = stored.size
    placed = [transform_box(box, shape, size, fit) for box in record.boxes]
    return [{"x": box.x, "y": box.y, "width": box.width, "height": box.height, "label": box.label, "score": 1.0}
            for box in placed if box is not None]


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
    files = [path] if path.is_file() else [Path(root, name) for root, _, names in os.walk(path) for name in names]
    stats = [(str(file), stat.st_size, stat.st_mtime_ns) for file in sorted(files) if (stat := file.stat())]
    return hash_json(stats)


def _pairs(text: str) -> dict[str, str]:
    """{name: value} of lines name=value; the source checks the names."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "=" not in line]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is not of the form name=value; give one option a line")
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def _each(values: Sequence[Any] | None, count: int, what: str) -> list[Any]:
    values = list(values or [None])
    if len(values) not in (1, count):
        raise DataError(f"there are {len(values)} {what} for {count} images; give one for each, or one for all")
    return values * count if len(values) == 1 else values


def _digest(image: torch.Tensor) -> str:
    return hashlib.sha256(image.numpy().tobytes()).hexdigest()


def nodes() -> list[type]:
    """The nodes of this file."""
    return [ReadData, Phantoms, Split, LoadImageSet, ImagesToSet, SetToImages]
