"""Which base a set of tensors is, by the shapes of its U-Net, and its three parts in diffusers' and transformers' names.

The key work is diffusers' own (`diffusers.loaders.single_file_utils`); what is missing or too much is named, never skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..errors import ModelError, listing
from . import configs
from .embedded import architecture as small
from .file_kind import describe
from .keys import UNET_PREFIX, text_name, unet_keys

TEXT_PREFIX, OPEN_CLIP_PREFIX, VAE_PREFIX = "cond_stage_model.transformer.", "cond_stage_model.model.", "first_stage_model."
LATENT_SCALE = 0.18215

IGNORED_TEXT = ("position_ids", "text_projection.weight", "text_projection", "logit_scale")  # in files, in no forward pass here


@dataclass(frozen=True)
class Layout:
    """The configurations of a kind of base: what is built before weights are put in."""

    kind: str
    unet: dict[str, Any]
    text: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any]

    @property
    def tiny_vae(self) -> bool:
        """Whether the autoencoder has TAESD's layout."""
        return "encoder_block_out_channels" in self.vae

    def with_channels(self, channels: int) -> Layout:
        """The same with this many input channels of the U-Net."""
        return replace(self, unet={**self.unet, "in_channels": channels})


LAYOUTS = {
    "sd1": Layout("sd1", configs.UNET_1, configs.TEXT_1, configs.VAE, configs.SCHEDULER),
    "sd2": Layout("sd2", configs.UNET_2, configs.TEXT_2, configs.VAE, configs.SCHEDULER),
    "embedded": Layout("embedded", small.UNET, small.TEXT_ENCODER, small.VAE, small.SCHEDULER),
}

_OTHER_INPUTS = {5: "depth-to-image", 7: "upscaling", 8: "InstructPix2Pix"}
SUPPORTED = "Bases that can be tuned: Stable Diffusion 1.x and 2.x (also v-prediction and 9-channel inpainting), and 'embedded'."


def find_layout(shapes: Mapping[str, tuple[int, ...]], name: str) -> Layout:
    """The layout of a file's tensors (`model.diffusion_model....` names). Raises ModelError that says what the file is instead."""
    what = describe(shapes)
    first = shapes.get(UNET_PREFIX + "input_blocks.0.0.weight")
    if what != "a Stable Diffusion checkpoint":
        raise ModelError(f"{name} is {what or 'not a checkpoint of a known kind'}, not a base. {SUPPORTED}")
    keys = shapes.get(UNET_PREFIX + "middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    if first is None or keys is None:
        raise ModelError(f"{name} lacks {UNET_PREFIX}input_blocks.0.0.weight or {UNET_PREFIX}middle_block.1.transformer_blocks.0."
                         "attn2.to_k.weight, which tell what it is: it is incomplete. Take the whole checkpoint.")
    return match_layout(first[1], first[0], keys[1], name)


def match_layout(channels: int, width: int, context: int, name: str) -> Layout:
    """The layout with these input channels, first block's width and text width. Raises ModelError when there is none."""
    found = next((layout for layout in LAYOUTS.values()
                  if (layout.unet["block_out_channels"][0], layout.unet["cross_attention_dim"]) == (width, context)), None)
    if found is None:
        known = "; ".join(f"{layout.kind} {layout.unet['block_out_channels'][0]} and {layout.unet['cross_attention_dim']}"
                          for layout in LAYOUTS.values())
        raise ModelError(f"{name} has a U-Net {width} channels wide for text states of {context}, which is none of: {known}. "
                         f"{SUPPORTED}")
    if channels not in (4, 9):
        other = _OTHER_INPUTS.get(channels, "another kind")
        raise ModelError(f"{name} is a model of {other}, whose U-Net takes {channels} channels; 4 (text-to-image) and 9 (inpainting) "
                         "can be tuned.")
    return found.with_channels(channels)


def convert_unet(tensors: Mapping[str, Tensor], layout: Layout, name: str) -> dict[str, Tensor]:
    """The U-Net in diffusers' names, from `model.diffusion_model....`."""
    names = unet_keys(layout.unet)
    given = {key for key in tensors if key.startswith(UNET_PREFIX)}
    expected = {UNET_PREFIX + ldm for ldm in names.values()}
    refuse(name, "U-Net", missing=expected - given, unknown=given - expected)
    return {key: tensors[UNET_PREFIX + ldm] for key, ldm in names.items()}


def convert_text(tensors: Mapping[str, Tensor], layout: Layout, name: str) -> dict[str, Tensor]:
    """The text encoder as `text_model....`, from CLIP's or OpenCLIP's (Stable Diffusion 2) layout."""
    if any(key.startswith(OPEN_CLIP_PREFIX) for key in tensors):
        found = _convert_open_clip(tensors, layout)
    else:
        found = {key.removeprefix(TEXT_PREFIX): value for key, value in tensors.items() if key.startswith(TEXT_PREFIX)}
    found = {text_name(key): value for key, value in found.items() if not key.endswith(IGNORED_TEXT)}
    beyond = f"text_model.encoder.layers.{layout.text['num_hidden_layers']}."  # of SD2's 24 layers the last is never used
    return {key: value for key, value in found.items() if not (layout.kind == "sd2" and key.startswith(beyond))}


def _convert_open_clip(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    from types import SimpleNamespace

    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    part = {key: value for key, value in tensors.items() if key.startswith(OPEN_CLIP_PREFIX)}
    return convert_open_clip_checkpoint(SimpleNamespace(config=SimpleNamespace(**layout.text)), part, prefix=OPEN_CLIP_PREFIX)


def convert_vae(tensors: Mapping[str, Tensor], layout: Layout, name: str) -> dict[str, Tensor]:
    """The autoencoder in diffusers' names, from `first_stage_model....`; TAESD's layout is one of them."""
    part = {key: value for key, value in tensors.items() if key.startswith(VAE_PREFIX)}
    if layout.tiny_vae:
        return {_tiny_name(key): value for key, value in part.items() if not key.endswith(("vae_scale", "vae_shift"))}
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    return convert_ldm_vae_checkpoint(part, layout.vae)


def _tiny_name(key: str) -> str:
    """TAESD's `taesd_decoder.1.weight` -> diffusers' `decoder.layers.0.weight`: TAESD's decoder begins with a clamp."""
    side, index, rest = key.removeprefix(VAE_PREFIX).removeprefix("taesd_").split(".", 2)
    return f"{side}.layers.{int(index) - (side == 'decoder')}.{rest}"


def refuse(name: str, part: str, missing: Iterable[str], unknown: Iterable[str] = (), wrong: Iterable[str] = ()) -> None:
    """Raise ModelError naming every tensor that is missing, unknown or of a wrong shape, if there is any."""
    problems = [f"{len(found)} {what}: {listing(found, 1000)}" for what, found in
                (("missing", sorted(missing)), ("unknown", sorted(unknown)), ("of a wrong shape", sorted(wrong))) if found]
    if problems:
        raise ModelError(f"the {part} of {name} is not complete and exact: {'; '.join(problems)}. Take the whole, original "
                         "checkpoint.")
