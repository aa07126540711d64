"""A base of 4 input channels widened to an inpainting one of 9, and the whole checkpoint that its training makes.

Rombach et al., CVPR 2022, "High-Resolution Image Synthesis with Latent Diffusion Models": 4 channels of the noisy latent, 1 of the
mask, 4 of the masked image. Stable Diffusion's own inpainting model began so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from ..files import hash_json

if TYPE_CHECKING:
    from .base import Base
    from .source import Source

CHANNELS = 9


def inflate(base: Base) -> Base:
    """Widen a base of 4 input channels to 9, in place: the new columns of its first layer are zero, so that it draws as before.

    Its hash changes with it. Raises ConfigError for a base that has 9.
    """
    if base.channels != 4:
        raise ConfigError(f"{base.ref} takes {base.channels} channels already; only a base of 4 can be inflated")
    narrow = base.unet.conv_in
    with torch.device("meta"):  # where no random values are drawn
        wide = nn.Conv2d(CHANNELS, narrow.out_channels, narrow.kernel_size, narrow.stride, narrow.padding)
    wide.weight, wide.bias = nn.Parameter(_widened(narrow.weight.data), requires_grad=False), narrow.bias
    base.unet.conv_in = wide.train(narrow.training)
    base.unet.register_to_config(in_channels=CHANNELS)
    base.source = _inflated(base.source)
    base.hash, base.channels = base.source.hash, CHANNELS
    return base


def _widened(weight: Tensor) -> Tensor:
    """A first layer's weight (width, 4, 3, 3) with columns of zeros for the further channels."""
    return functional.pad(weight, (0, 0, 0, 0, 0, CHANNELS - weight.shape[1]))


def _inflated(source: Source) -> Source:
    def read(part: str) -> dict[str, Tensor]:
        weights = source.read(part)
        return weights | {"conv_in.weight": _widened(weights["conv_in.weight"])} if part == "unet" else weights

    layout = source.layout.with_channels(CHANNELS)
    return dataclasses.replace(source, hash=hash_json([source.hash, "inflated"]), layout=layout, read=read)


def open_columns(base: Base) -> dict[str, nn.Parameter]:
    """The first layer's weight with gradients for its new columns alone, under its name; nothing where the method trains it itself.

    Hardly any method but full fine-tuning does, and without it an inflated base would never learn to see its mask.
    """
    weight = base.unet.conv_in.weight
    if weight.requires_grad:
        return {}
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: torch.cat([torch.zeros_like(gradient[:, :4]), gradient[:, 4:]], dim=1))
    return {"inpainting.conv_in": weight}


@torch.no_grad()
def inflated_products(base: Base, products: Mapping[str, Mapping[str, Tensor]], opened: bool) -> dict[str, dict[str, Tensor]]:
    """The products of a training of an inflated base: a whole checkpoint in the adapter's place.

    ``opened`` tells that the new columns were trained beside the method.
    """
    from .adapter import Adapter, apply_adapter
    from .base import Base
    from .single_file import checkpoint_tensors

    merged = Base(base.source, base.ref, "cpu", torch.float32)
    if "adapter" in products:
        apply_adapter(merged, Adapter(dict(products["adapter"]), {}))
    if opened:
        trained = base.unet.conv_in.weight.to("cpu", torch.float32) - base.original("unet")["conv_in.weight"].float()
        merged.unet.conv_in.weight.add_(trained)
    return {"model": checkpoint_tensors(merged), **{kind: dict(tensors) for kind, tensors in products.items() if kind != "adapter"}}
