"""Names of one weight in three worlds: diffusers' modules, the LDM checkpoint, and the adapter files of kohya's tools.

The U-Net's LDM names are not a table: diffusers' own converter is run over a marker for every name that could occur, and inverted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import nn

UNET_PREFIX = "model.diffusion_model."
KOHYA_UNET, KOHYA_TEXT = "lora_unet_", "lora_te_"

_RESNET = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")


def unet_keys(unet: nn.Module | Mapping[str, Any]) -> dict[str, str]:
    """diffusers' name -> LDM's name, without `model.diffusion_model.`, for every tensor of a U-Net or of its configuration."""
    config = dict(unet if isinstance(unet, Mapping) else unet.config)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return dict(_unet_keys(json.dumps(config, sort_keys=True, default=list)))


@lru_cache(maxsize=8)
def _unet_keys(config_json: str) -> dict[str, str]:
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = json.loads(config_json)
    with init_empty_weights():
        wanted = set(UNet2DConditionModel(**config).state_dict())
    candidates = _ldm_candidates(wanted, config)
    markers = {UNET_PREFIX + name: torch.tensor(i) for i, name in enumerate(candidates)}
    converted = convert_ldm_unet_checkpoint(markers, config)
    names = {key: candidates[int(marker)] for key, marker in converted.items() if key in wanted}
    if len(names) != len(wanted) or len(set(names.values())) != len(wanted):
        raise RuntimeError(f"diffusers' LDM converter names {len(names)} of the U-Net's {len(wanted)} tensors")
    return names


def _ldm_candidates(wanted: set[str], config: dict) -> list[str]:
    """Every LDM name that a U-Net of this depth could have; what the converter makes of the superfluous ones is dropped."""
    group = config["layers_per_block"] + 1  # LDM blocks per resolution
    attention = sorted({key.split(".attentions.")[1].split(".", 1)[1] for key in wanted if ".attentions." in key})
    stems = ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2"]
    stems += [f"middle_block.{i}.{part}" for i, part in product((0, 2), _RESNET)]
    names = [f"middle_block.1.{part}" for part in attention]
    for i in range(len(config["block_out_channels"]) * group):
        stems += [f"{side}_blocks.{i}.0.{part}" for side, part in product(("input", "output"), _RESNET)]
        names += [f"{side}_blocks.{i}.1.{part}" for side, part in product(("input", "output"), attention)]
        if i % group == 0:
            stems.append(f"input_blocks.{i}.0.op")
        if i % group == group - 1:  # the upsampler follows the attention, where its level has one
            attended = f"up_blocks.{i // group}.attentions.0.norm.weight" in wanted
            stems.append(f"output_blocks.{i}.{2 if attended else 1}.conv")
    return names + [f"{stem}.{end}" for stem, end in product(stems, ("weight", "bias"))]


def kohya_name(module: str) -> str:
    """`lora_unet_...` for a module of diffusers' U-Net, such as `conv_in` or `mid_block.resnets.0.conv1`."""
    return KOHYA_UNET + module.replace(".", "_")


def diff_key(parameter: str) -> str:
    """The key that carries the difference of one U-Net parameter: `<kohya name>.diff` of a weight, `.diff_b` of a bias."""
    module, _, end = parameter.rpartition(".")
    return f"{kohya_name(module)}.{'diff_b' if end == 'bias' else 'diff'}"


def text_name(parameter: str) -> str:
    """`text_model....` for a parameter of CLIPTextModel, whose names begin so in transformers 4 and do not in 5."""
    return parameter if parameter.startswith("text_model.") else f"text_model.{parameter}"


def text_kohya_name(module: str) -> str:
    """`lora_te_text_model_...` for a linear layer of CLIPTextModel, such as `encoder.layers.0.mlp.fc1`."""
    return KOHYA_TEXT + text_name(module).replace(".", "_")


def text_encoder_name(kind: str) -> str:
    """ComfyUI's name of the text encoder of a kind of base, which is also the key of its embeddings."""
    return "clip_h" if kind == "sd2" else "clip_l"


def text_stem(kind: str) -> str:
    """What prefixes `text_model.` in keys of the text encoder's norms and embeddings."""
    return f"text_encoders.{text_encoder_name(kind)}.transformer."


def text_diff_key(parameter: str, kind: str) -> str:
    """The key that carries the difference of one text encoder parameter, of any layer: `lora_te_` names reach linears only."""
    module, _, end = text_name(parameter).rpartition(".")
    return f"{text_stem(kind)}{module}.{'diff_b' if end == 'bias' else 'diff'}"


def targets(unet_parameters: Iterable[str], unet_config: Mapping[str, Any], text_parameters: Iterable[str],
            kind: str) -> dict[str, tuple[str, str]]:
    """Adapter key without its suffix -> (part, module), for every name that a file may use for a weight of the base."""
    names, found = unet_keys(unet_config), {}
    for module in {name.rpartition(".")[0] for name in unet_parameters}:
        ldm = names.get(f"{module}.weight", "").rpartition(".")[0]
        found[kohya_name(module)] = ("unet", module)
        for stem in _diffusers_stems(module):
            found[stem] = ("unet", module)
        if ldm:
            found[kohya_name(ldm)] = found[f"diffusion_model.{ldm}"] = ("unet", module)
    for module in {name.rpartition(".")[0] for name in text_parameters}:
        full = text_name(f"{module}.weight").rpartition(".")[0]
        found[text_stem(kind) + full] = ("text_encoder", module)
        if ".layers." in full and "layer_norm" not in full:  # the linears
            for stem in (*(prefix + full.replace(".", "_") for prefix in (KOHYA_TEXT, "lora_te1_")), f"text_encoder.{full}"):
                found[stem] = ("text_encoder", module)
    return found


def _diffusers_stems(module: str) -> list[str]:
    """What LyCORIS calls a module of the U-Net, and diffusers in its files of today and of 2023."""
    processor = module.replace(".to_", ".processor.to_")
    processor = processor.removesuffix(".0") if processor.endswith(".to_out.0") else processor
    return [f"lycoris_{module.replace('.', '_')}", f"unet.{module}", *dict.fromkeys([processor, f"unet.{processor}"])]
