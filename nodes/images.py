"""Nodes between ComfyUI's images and image sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.image import check_image, read_image, read_mask, transform_box
from ..data.image_set import ImageSet
from ..data.record import Record
from ..errors import DataError, UnknownName
from ..files import hash_json
from . import host
from .data import CATEGORY
from .host import RECORDS, io

FITS = ("crop", "pad")


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


class ImageGrid(io.ComfyNode):
    """A batch of images -> one picture with a label under each."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneImageGrid", display_name="Labelled Image Grid", category=CATEGORY,
            description="Lays the images of a batch out in rows, with a line of text under each.",
            inputs=[
                io.Image.Input("images"),
                io.String.Input("labels", default="", multiline=True, optional=True, tooltip="One line for each image; may be empty."),
                io.Int.Input("columns", default=4, min=1, max=64, optional=True, tooltip="Images in a row."),
                io.Int.Input("side", default=256, min=32, max=2048, step=32, optional=True, tooltip="Longer side of each image in the "
                                                                                                    "grid, in pixels."),
            ],
            outputs=[io.Image.Output("grid", display_name="grid")])

    @classmethod
    def execute(cls, images, labels="", columns=4, side=256):
        lines = labels.splitlines()
        if lines and len(lines) != len(images):
            raise DataError(f"there are {len(lines)} labels for {len(images)} images; give a line for each, or none at all")
        return io.NodeOutput(host.to_comfy(labelled_grid(host.to_library(images), lines, columns, side)[None]))


def labelled_grid(images: torch.Tensor, labels: Sequence[str], columns: int, side: int) -> torch.Tensor:
    """One picture (3, H, W) of images (N, 3, h, w) in [0, 1], each `side` pixels at its longer side, with its label under it."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = images.shape[-2:]
    size = round(side * width / max(height, width)), round(side * height / max(height, width))
    line = 24 if labels else 0
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (size[0] * min(columns, len(images)), (size[1] + line) * rows), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(16)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        corner = column * size[0], row * (size[1] + line)
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        grid.paste(picture.resize(size, Image.Resampling.LANCZOS), corner)
        if labels:
            draw.text((corner[0] + 4, corner[1] + size[1] + 2), labels[index], fill="black", font=font)
    return torch.from_numpy(np.array(grid)).permute(2, 0, 1).float() / 255


def _boxes(record: Record, size: int, fit: str) -> list[dict[str, Any]]:
    placed = [transform_box(box, check_image(record.image), size, fit) for box in record.boxes]
    return [{"x": box.x, "y": box.y, "width": box.width, "height": box.height, "label": box.label, "score": 1.0}
            for box in placed if box is not None]


def _each(values: Sequence[Any] | None, count: int, what: str) -> list[Any]:
    values = list(values or [None])
    if len(values) not in (1, count):
        raise DataError(f"there are {len(values)} {what} for {count} images; give one for each, or one for all")
    return values * count if len(values) == 1 else values


def _digest(image: torch.Tensor) -> str:
    return hashlib.sha256(image.numpy().tobytes()).hexdigest()


def nodes() -> list[type]:
    """The nodes of this file."""
    return [ImagesToSet, SetToImages, ImageGrid]
