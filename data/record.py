"""What is known of one image, whatever the layout on disk it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Box:
    """A rectangle on the image as stored, in pixels from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    ``labels`` are the positive findings, sorted; ``patient`` and ``split`` are None where the source does not say;
    ``mask`` is an image file whose non-zero pixels are the region; ``repeats`` is how often an epoch shows the image
    (kohya's folder number); ``seed`` is set for generated images.
    """

    image: Path
    caption: str
    labels: tuple[str, ...] = ()
    patient: str | None = None
    split: str | None = None
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    repeats: int = 1
    seed: int | None = None
