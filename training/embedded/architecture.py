"""The embedded base's shape, in diffusers' and transformers' terms, and its way to and from the LDM file layout.

The autoencoder has TAESD's layout (https://github.com/madebyollin/taesd). The U-Net's key names are diffusers' own: its LDM converter
is run over markers and inverted, so that there is no table here to drift.
"""

from itertools import product

import torch
from torch import Tensor, nn

from . import FILE  # noqa: F401  (part of this module's interface)

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 64, 128, 128),  # not below 64: LDM's norms have 32 groups, and a group of one channel loses its mean
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 64,
    "attention_head_dim": (4, 4, 8, 8),  # the number of heads, as SD2's configurations have it: 16 channels each
    "use_linear_projection": False,
}

TEXT_ENCODER = {
    "vocab_size": 49408,
    "hidden_size": 64,
    "intermediate_size": 256,
    "projection_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "num_encoder_blocks": (1, 3, 3, 3),
    "num_decoder_blocks": (3, 3, 3, 1),
    "scaling_factor": 1.0,
}

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

LATENT_SCALE = 0.18215
"""ComfyUI multiplies SD1.x latents by this; `vae_scale` in the file divides by it first: the U-Net sees the encoder's output."""

UNET_PREFIX = "model.diffusion_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
VAE_PREFIX = "first_stage_model."


def build():
    """The networks with random weights: (UNet2DConditionModel, CLIPTextModel, AutoencoderTiny), float32, evaluation mode."""
    from diffusers import AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(**UNET)
    text_encoder = CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))
    return unet.eval(), text_encoder.eval(), AutoencoderTiny(**VAE).eval()


def to_ldm(unet: nn.Module, text_encoder: nn.Module, vae: nn.Module) -> dict[str, Tensor]:
    """The file's tensors: float16, contiguous, in LDM keys; the two scalars of the autoencoder's scale in float32."""
    names = unet_names()
    tensors = {UNET_PREFIX + names[key]: value for key, value in unet.state_dict().items()}
    for key, value in text_encoder.state_dict().items():
        if not key.endswith("position_ids"):
            tensors[TEXT_PREFIX + key.removeprefix("text_model.")] = value
    for key, value in vae.state_dict().items():
        tensors[VAE_PREFIX + _taesd_name(key)] = value
    tensors = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in tensors.items()}
    tensors[VAE_PREFIX + "vae_scale"] = torch.tensor(LATENT_SCALE)
    tensors[VAE_PREFIX + "vae_shift"] = torch.tensor(0.0)
    return tensors


def from_ldm(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """State dicts (U-Net, text encoder, autoencoder) for the networks of `build`, from the file's tensors.

    Raises KeyError, with the names, when a tensor of the U-Net is missing.
    """
    names = unet_names()
    missing = [ldm for ldm in names.values() if UNET_PREFIX + ldm not in tensors]
    if missing:
        raise KeyError(f"not the embedded base: {len(missing)} U-Net tensors are missing, first {', '.join(missing[:3])}")
    unet = {key: tensors[UNET_PREFIX + ldm] for key, ldm in names.items()}
    prefix = _text_model_prefix()
    text = {prefix + key.removeprefix(TEXT_PREFIX): value for key, value in tensors.items() if key.startswith(TEXT_PREFIX)}
    vae = {}
    for key, value in tensors.items():
        if key.startswith(VAE_PREFIX + "taesd_"):
            vae[_diffusers_tiny_name(key.removeprefix(VAE_PREFIX))] = value
    return unet, text, vae


def unet_names() -> dict[str, str]:
    """diffusers' name -> LDM's name (without its prefix) for every tensor of the U-Net."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    with torch.device("meta"):
        wanted = set(UNet2DConditionModel(**UNET).state_dict())
    candidates = _ldm_candidates(wanted)
    markers = {UNET_PREFIX + name: torch.tensor(i) for i, name in enumerate(candidates)}
    converted = convert_ldm_unet_checkpoint(markers, UNET)
    names = {key: candidates[int(marker)] for key, marker in converted.items() if key in wanted}
    if len(names) != len(wanted) or len(set(names.values())) != len(wanted):
        raise RuntimeError(f"diffusers' LDM converter names {len(names)} of the U-Net's {len(wanted)} tensors")
    return names


def _ldm_candidates(wanted: set[str]) -> list[str]:
    """Every LDM name that a U-Net of this depth could have: more than it has; what the converter makes of the rest is dropped."""
    group = UNET["layers_per_block"] + 1  # LDM blocks per resolution
    count = len(UNET["block_out_channels"]) * group
    resnet = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")
    attention = sorted({key.split(".attentions.")[1].split(".", 1)[1] for key in wanted if ".attentions." in key})
    ends = ("weight", "bias")
    stems = ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2"]
    names = []
    for i in range(count):
        stems += [f"{side}_blocks.{i}.0.{part}" for side, part in product(("input", "output"), resnet)]
        names += [f"{side}_blocks.{i}.1.{part}" for side, part in product(("input", "output"), attention)]
        if i % group == 0:
            stems.append(f"input_blocks.{i}.0.op")
        if i % group == group - 1:  # the upsampler follows the attention, where its level has one
            level = i // group
            stems.append(f"output_blocks.{i}.{2 if f'up_blocks.{level}.attentions.0.norm.weight' in wanted else 1}.conv")
    stems += [f"middle_block.{i}.{part}" for i, part in product((0, 2), resnet)]
    names += [f"middle_block.1.{part}" for part in attention]
    return names + [f"{stem}.{end}" for stem, end in product(stems, ends)]


def _text_model_prefix() -> str:
    """`text_model.` where transformers names CLIPTextModel's tensors so (4.x), nothing where it does not (5.x)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        key = next(iter(CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)).state_dict()))
    return "text_model." if key.startswith("text_model.") else ""


def _taesd_name(key: str) -> str:
    """diffusers' `decoder.layers.0.weight` -> TAESD's `taesd_decoder.1.weight`: its decoder begins with a clamp."""
    side, _, index, rest = key.split(".", 3)
    return f"taesd_{side}.{int(index) + (side == 'decoder')}.{rest}"


def _diffusers_tiny_name(key: str) -> str:
    """The inverse of `_taesd_name`."""
    side, index, rest = key.removeprefix("taesd_").split(".", 2)
    return f"{side}.layers.{int(index) - (side == 'decoder')}.{rest}"
