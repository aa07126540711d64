"""The images themselves, read anew in each step: what a trained autoencoder encodes, whose latents cannot be cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..data.image import read_image
from ..data.problems import Problems
from ..data.record import Record
from ..errors import DataError, listing
from .sampler import SCALE


class Images:
    """The images of a data set, by index; ``shape`` is that of their latents (4, h, w)."""

    def __init__(self, records: Sequence[Record], shape: tuple[int, ...], size: int, fit: str):
        self.records, self.shape, self.size, self.fit = list(records), shape, size, fit

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, indices: Sequence[int], flipped: Sequence[bool]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], each as it is or mirrored."""
        images = [read_image(self.records[index].image, self.size, self.fit) for index in indices]
        return torch.stack([image.flip(-1) if flip else image for image, flip in zip(images, flipped, strict=True)])


def find_images(records: Sequence[Record], *, size: int = 512, fit: str = "crop",
                on_progress: Callable[[int, int], None] | None = None) -> Images:
    """Read each image once. Raises DataError naming every one that cannot be read or that is of another shape."""
    shapes, problems = {}, Problems("images")
    for number, record in enumerate(records):
        try:
            shapes.setdefault(tuple(read_image(record.image, size, fit).shape[1:]), record.image)
        except DataError as error:
            problems.add(record.image, str(error))
        if on_progress is not None:
            on_progress(number + 1, len(records))
    problems.check(len(records))
    check_shapes(shapes)
    height, width = next(iter(shapes))
    return Images(records, (4, height // SCALE, width // SCALE), size, fit)


def check_shapes(shapes: dict) -> None:
    """Raise DataError unless there is one (H, W), each of which is given with an image that has it, in whole latents."""
    found = [f"{path} gives {width} x {height}" for (height, width), path in shapes.items()]
    if len(shapes) > 1:
        raise DataError(f"images of {len(shapes)} sizes cannot be one batch: {listing(found)}. Set fit to crop or pad")
    if any(side % SCALE for shape in shapes for side in shape):
        raise DataError(f"{found[0]}, whose sides are no multiples of {SCALE}. Set fit to crop or pad")
