"""Where each weight of a base lies in an LDM checkpoint: the readers' own converters are run over markers, and inverted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import ModelError
from . import layout as layouts
from .file_kind import read_header
from .keys import UNET_PREFIX, text_name, unet_keys
from .layout import TEXT_PREFIX, VAE_PREFIX, Layout
from .single_file import open_clip_tensors
from .vae_file import vae_shapes

if TYPE_CHECKING:
    from .base import Base

Pieces = list[tuple[str, str]]
"""(part, parameter) of what one tensor of a file holds: one, or the three projections that OpenCLIP keeps in one."""

Shapes = dict[str, tuple[int, ...]]


def places_in_file(base: Base, file: Path) -> tuple[Shapes, dict[str, Pieces]]:
    """Shape of each tensor of a base's single file, and which parameters those of them hold that are weights."""
    head = read_header(file)
    layout = layouts.find_layout(head.shapes, str(file))
    return dict(head.shapes), _pieces(base, head.shapes, layout, str(file))


def places_of_kind(base: Base) -> tuple[Shapes, dict[str, Pieces]]:
    """The same for a base that is no such file, in the layout of files of its kind."""
    unet = {UNET_PREFIX + ldm: base.unet.get_parameter(name).shape for name, ldm in unet_keys(base.unet).items()}
    vae = {VAE_PREFIX + name: shape for name, shape in vae_shapes(base.vae).items()}
    text = {text_name(name): value for name, value in base.text_encoder.named_parameters()}
    if base.kind == "sd2":
        text = open_clip_tensors(text)
    else:
        text = {TEXT_PREFIX + name: value for name, value in text.items()}
    shapes = {name: tuple(shape) for name, shape in (unet | {name: value.shape for name, value in text.items()} | vae).items()}
    config = {key: value for key, value in dict(base.text_encoder.config.to_dict()).items() if key in layouts.LAYOUTS[base.kind].text}
    layout = Layout(base.kind, dict(base.unet.config), config, dict(base.vae.config), {})
    pieces, last = _pieces(base, shapes, layout, base.ref), config["num_hidden_layers"]
    copied = {name: f"resblocks.{last}." for name in shapes if f"resblocks.{last}." in name}  # no layer of the base: of no effect
    return shapes, pieces | {name: pieces[name.replace(layer, f"resblocks.{last - 1}.")] for name, layer in copied.items()}


def _pieces(base: Base, shapes: Mapping[str, tuple[int, ...]], layout: Layout, name: str) -> dict[str, Pieces]:
    """File's name -> what it holds, in the order of its rows."""
    names = list(shapes)
    markers = {key: torch.tensor(index).expand(shapes[key]) for index, key in enumerate(names)}
    found: dict[str, Pieces] = {}
    for part, convert in (("unet", layouts.convert_unet), ("text_encoder", layouts.convert_text), ("vae", layouts.convert_vae)):
        network = getattr(base, part)
        stem = "" if part != "text_encoder" or next(iter(network.state_dict())).startswith("text_model.") else "text_model."
        for parameter, marker in convert(markers, layout, name).items():
            found.setdefault(names[int(marker[(0,) * marker.ndim])], []).append((part, parameter.removeprefix(stem)))
    for key, pieces in found.items():
        pieces.sort(key=lambda piece: [piece[1].find(side) >= 0 for side in (".q_proj", ".k_proj", ".v_proj")], reverse=True)
        if len(pieces) not in (1, 3):
            raise ModelError(f"{key} of {name} would hold {len(pieces)} weights: no known layout. Take the original checkpoint.")
    return found
