"""A base as one file in LDM layout, which every tool reads as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .keys import UNET_PREFIX, text_name, unet_keys
from .layout import OPEN_CLIP_PREFIX, TEXT_PREFIX, VAE_PREFIX
from .vae_file import vae_tensors

if TYPE_CHECKING:
    from .base import Base

_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
              "mlp.fc2": "mlp.c_proj"}
_OPEN_CLIP_ENDS = {"embeddings.token_embedding.weight": "token_embedding.weight",
                   "embeddings.position_embedding.weight": "positional_embedding",
                   "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias"}


def checkpoint_tensors(base: Base) -> dict[str, Tensor]:
    """All weights of a base as they are: float32, contiguous, on the CPU. Raises ModelError where it was made without a part."""
    names = unet_keys(base.unet.config)
    unet = {UNET_PREFIX + names[name]: value for name, value in base.unet.state_dict().items()}
    text = {text_name(name): value for name, value in base.need("text_encoder").named_parameters()}
    base.need("vae")
    text = open_clip_tensors(text) if base.kind == "sd2" else {TEXT_PREFIX + name: value for name, value in text.items()}
    vae = {VAE_PREFIX + name: value for name, value in vae_tensors(base).items()}
    return {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in (unet | text | vae).items()}


def open_clip_tensors(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stable Diffusion 2's text encoder, `text_model....`, in OpenCLIP's names.

    Its last layer, which such files have and nothing uses, is not among the base's: it is a copy of the one before.
    """
    found, layers = {}, {}
    for name, value in text.items():
        short = name.removeprefix("text_model.")
        if short in _OPEN_CLIP_ENDS:
            found[OPEN_CLIP_PREFIX + _OPEN_CLIP_ENDS[short]] = value
        else:
            _, _, index, rest = short.split(".", 3)
            layers.setdefault(int(index), {})[rest] = value
    layers[len(layers)] = layers[len(layers) - 1]
    for index, layer in layers.items():
        stem = f"{OPEN_CLIP_PREFIX}transformer.resblocks.{index}."
        for end in ("weight", "bias"):
            found[f"{stem}attn.in_proj_{end}"] = torch.cat([layer[f"self_attn.{side}_proj.{end}"] for side in "qkv"])
            found |= {f"{stem}{theirs}.{end}": layer[f"{ours}.{end}"] for ours, theirs in _OPEN_CLIP.items()}
    return found
