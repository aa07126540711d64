"""A base without its values: the names and shapes of its weights alone, for what need not hold a model in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from .base import Base, empty
from .keys import targets
from .layout import LAYOUTS
from .source import Source

KINDS = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "embedded": "the embedded base"}

Shapes = Mapping[str, tuple[int, ...]]

_TEXT_WIDTHS = {768: "sd1", 1024: "sd2", 64: "embedded"}
_OWN_ARCHITECTURES = (("stable-diffusion-v1", "sd1"), ("stable-diffusion-v2", "sd2"), ("medtune-embedded", "embedded"))


def outline(kind: str, channels: int = 4) -> Base:
    """A base of a kind whose U-Net and text encoder have names and shapes and no values; it has no autoencoder.

    `channels` are those of the U-Net's input: 4, or 9 for inpainting.
    """
    layout = LAYOUTS[kind].with_channels(channels)
    source = Source(kind, "", layout, "epsilon", lambda part: empty(part, layout).state_dict(), without=frozenset({"vae"}))
    return Base(source, kind, "meta", torch.float32)


def stems(kind: str) -> dict[str, tuple[str, str]]:
    """What an adapter's key may begin with -> (part, module), for a kind of base."""
    base = outline(kind)
    return targets(dict(base.unet.named_parameters()), base.unet.config, dict(base.text_encoder.named_parameters()), kind)


def said_kind(header: Mapping[str, str]) -> str | None:
    """The kind of base that a file's header names, or None."""
    architecture = header.get("modelspec.architecture", "")
    for start, kind in _OWN_ARCHITECTURES:
        if architecture.startswith(start):
            return kind
    version = header.get("ss_base_model_version", "")
    if version.startswith(("sdxl", "sd3", "flux")):
        return None
    return "sd2" if version.startswith("sd_v2") or header.get("ss_v2") == "True" else "sd1" if version.startswith("sd_v1") else None


def find_kind(shapes: Shapes, header: Mapping[str, str]) -> str | None:
    """The kind of base that an adapter is for, by its header, or else by its keys and shapes; None for none that is known here."""
    if said := said_kind(header):
        return said
    widths = {size for key, shape in shapes.items() if "attn2" in key and ("to_k" in key or "to_v" in key) for size in shape}
    for width, kind in _TEXT_WIDTHS.items():
        if width in widths and 2048 not in widths:  # 2048: Stable Diffusion XL, whose keys look alike
            return kind
    fitting = [kind for kind in KINDS if _share(shapes, stems(kind)) > 0.9]
    return fitting[0] if len(fitting) == 1 else None


def _share(shapes: Collection[str], known: Mapping[str, tuple[str, str]]) -> float:
    """The share of keys that begin with a known name."""
    return sum(any(key[:end] in known for end in _dots(key)) for key in shapes) / max(len(shapes), 1)


def _dots(key: str) -> list[int]:
    return [index for index, letter in enumerate(key) if letter == "."]


def input_channels(shapes: Shapes) -> int:
    """9 where an adapter changes the first convolution of an inpainting U-Net, else 4."""
    first = [shape for key, shape in shapes.items() if ("conv_in." in key or "input_blocks_0_0." in key or "input_blocks.0.0." in key)]
    return 9 if any(len(shape) == 4 and shape[1] == 9 for shape in first) else 4
