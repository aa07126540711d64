"""How many values each method trains on a base, counted on networks of its shape that have no weights: seconds, whatever the size."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Generator

from ..errors import MedTuneError, Missing
from .base import Base, empty
from .file_kind import read_header
from .layout import LAYOUTS, Layout, find_layout
from .method import METHODS, Method
from .source import PARTS, Source, open_folder


def empty_base(ref: str | Path) -> Base:
    """A base of a kind (`sd1`, `sd2`, `embedded`), or of the kind of a file or diffusers folder, on torch's meta device.

    Of a file only the header is read. Raises Missing or ModelError for what is not a base.
    """
    return base_of(_layout(ref), str(ref))


def base_of(layout: Layout, ref: str) -> Base:
    """A base of a layout, on torch's meta device."""
    shapes = {part: empty(part, layout) for part in PARTS}

    def read(part: str) -> dict[str, torch.Tensor]:
        return shapes[part].to("meta").state_dict()

    return Base(Source(ref, "", layout, layout.scheduler["prediction_type"], read), ref, "meta", torch.float32)


def _layout(ref: str | Path) -> Layout:
    if str(ref) in LAYOUTS:
        return LAYOUTS[str(ref)]
    path = Path(ref).expanduser()
    if path.is_dir():
        return open_folder(path).layout
    if not path.exists():
        raise Missing(f"there is no base {str(ref)!r}; give {', '.join(LAYOUTS)}, a .safetensors checkpoint, or a diffusers folder")
    return find_layout(read_header(path).shapes, str(path))


def count(method: Method, base: Base) -> int:
    """The number of values that a method trains on an empty base, which stays as it is. Raises what `attach` does."""
    fresh = copy.copy(base)
    for part in PARTS:
        setattr(fresh, part, copy.deepcopy(getattr(base, part)))
    method.attach(fresh, Generator().manual_seed(0))
    return method.count(fresh)


def count_all(ref: str | Path) -> dict[str, int | str]:
    """The number of trained values of each method with its default settings, or why it cannot be used on this base."""
    base = empty_base(ref)
    return {name: _count_or_reason(entry(), base) for name, entry in METHODS.items()}


def _count_or_reason(method: Method, base: Base) -> int | str:
    try:
        return count(method, base)
    except MedTuneError as error:
        return str(error)
