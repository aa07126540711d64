"""An autoencoder as a VAE file, which the stock VAELoader reads: LDM's names without a prefix, or TAESD's for its layout.

The LDM names are not a table: diffusers' own converter is run over a marker for every name that could occur, and inverted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .layout import LATENT_SCALE

if TYPE_CHECKING:
    from .base import Base

_RESNET = ("norm1", "conv1", "norm2", "conv2", "nin_shortcut")
_SCALARS = ("vae_scale", "vae_shift")


def is_tiny(vae: nn.Module) -> bool:
    """Whether an autoencoder has TAESD's layout."""
    return "encoder_block_out_channels" in vae.config


def vae_keys(vae: nn.Module) -> dict[str, str]:
    """diffusers' name -> the name in a VAE file, for every tensor of an autoencoder."""
    if is_tiny(vae):
        return {name: _taesd_name(name) for name in vae.state_dict()}
    config = {key: value for key, value in dict(vae.config).items() if not key.startswith("_")}
    return dict(_ldm_keys(tuple(vae.state_dict()), json.dumps(config, sort_keys=True, default=list)))


def _taesd_name(name: str) -> str:
    """`decoder.layers.0.weight` -> `taesd_decoder.1.weight`: TAESD's decoder begins with a clamp."""
    side, _, index, rest = name.split(".", 3)
    return f"taesd_{side}.{int(index) + (side == 'decoder')}.{rest}"


@lru_cache(maxsize=4)
def _ldm_keys(wanted: tuple[str, ...], config_json: str) -> dict[str, str]:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = json.loads(config_json)
    candidates = _ldm_candidates(config)
    converted = convert_ldm_vae_checkpoint({name: torch.tensor(index) for index, name in enumerate(candidates)}, config)
    names = {name: candidates[int(converted[name])] for name in wanted if name in converted}
    if len(names) != len(wanted) or len(set(names.values())) != len(wanted):
        raise RuntimeError(f"diffusers' LDM converter names {len(names)} of the autoencoder's {len(wanted)} tensors")
    return names


def _ldm_candidates(config: Mapping[str, Any]) -> list[str]:
    """Every LDM name that an autoencoder of this depth could have; what the converter makes of the superfluous ones is dropped."""
    levels, layers = range(len(config["block_out_channels"])), range(config["layers_per_block"] + 1)
    stems = ["quant_conv", "post_quant_conv"]
    for side, direction, sampler in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        stems += [f"{side}.{part}" for part in ("conv_in", "norm_out", "conv_out")]
        stems += [f"{side}.mid.block_{i}.{part}" for i, part in product((1, 2), _RESNET)]
        stems += [f"{side}.mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")]
        stems += [f"{side}.{direction}.{level}.block.{i}.{part}" for level, i, part in product(levels, layers, _RESNET)]
        stems += [f"{side}.{direction}.{level}.{sampler}.conv" for level in levels]
    return [f"{stem}.{end}" for stem, end in product(stems, ("weight", "bias"))]


def _file_shape(name: str, shape: torch.Size) -> tuple[int, ...]:
    """The shape in a VAE file: LDM's attention has convolutions of one pixel where diffusers has linear layers."""
    return (*shape, 1, 1) if ".attn_1." in name and len(shape) == 2 else tuple(shape)


def vae_shapes(vae: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that `vae_tensors` gives."""
    keys = vae_keys(vae)
    shapes = {keys[name]: _file_shape(keys[name], value.shape) for name, value in vae.state_dict().items()}
    return shapes | (dict.fromkeys(_SCALARS, ()) if is_tiny(vae) else {})


def vae_tensors(base: Base) -> dict[str, Tensor]:
    """The base's autoencoder as a VAE file has it: float32, contiguous, on the CPU."""
    keys = vae_keys(base.vae)
    weights = {keys[name]: value.detach().to("cpu", torch.float32, copy=True) for name, value in base.vae.state_dict().items()}
    tensors = {key: value.reshape(_file_shape(key, value.shape)).contiguous() for key, value in weights.items()}
    return tensors | vae_scalars(base)


def vae_scalars(base: Base) -> dict[str, Tensor]:
    """What a file of TAESD's layout says of the scale of its latents: ComfyUI subtracts the shift and multiplies before decoding."""
    if not is_tiny(base.vae):
        return {}
    scale, shift = base.latent_scale
    return {"vae_scale": torch.tensor(LATENT_SCALE / scale), "vae_shift": torch.tensor(shift * scale / LATENT_SCALE)}


def vae_weights(vae: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a VAE file holds under the names and in the shapes of `vae`; the file must have the tensors of `vae_shapes`."""
    keys = vae_keys(vae)
    return {name: tensors[keys[name]].reshape(value.shape) for name, value in vae.state_dict().items()}
