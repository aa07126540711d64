"""Adapters for the embedded base as others make them: peft, diffusers, LyCORIS, and kohya's layout written out by hand.

`make(base_file, folder)` writes each and gives, by name, where it is and what its maker's own U-Net puts out with it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from medtune.training.base import load_base
from medtune.training.keys import unet_keys
from safetensors.torch import save_file

PROMPTS = ["Chest X-ray showing Cardiomegaly, Pleural Effusion", "a large bright circle, left, on a dark background"]
LAYERS = ["*attn1.to_q", "*attn2.to_out.0", "*ff.net.2", "*resnets.0.conv1", "*resnets.0.conv_shortcut", "time_embedding.linear_1"]


@dataclass
class Made:
    """A file or folder; its maker's own output with it, or None where ComfyUI, which the reader follows, does something else.

    `comfyui` is whether ComfyUI can read it: it fails on the factored kernels of LoKr.
    """

    path: Path
    output: torch.Tensor | None
    comfyui: bool = True


@torch.no_grad()
def run(base):
    """(2, 4, 16, 16): the U-Net's output for fixed latents, times and prompts."""
    generator = torch.Generator().manual_seed(3)
    return base.unet(torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([37, 803]), base.encode_prompts(PROMPTS)).sample


@torch.no_grad()
def disturb(parameters, generator):
    """Move every trained number, those near zero by 0.05 and others by a tenth."""
    for parameter in parameters:
        size = float(parameter.abs().mean()) * 0.1 if float(parameter.abs().mean()) > 0.05 else 0.05
        parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def by_peft(base_file, folder):
    """save_pretrained of three methods, with ranks and alphas of their own, on U-Net and text encoder."""
    from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

    layers = ["to_q", "to_v", "conv1", "ff.net.2"]
    cases = {"peft-lora": ("unet", LoraConfig(r=4, lora_alpha=6, target_modules=layers, rank_pattern={"to_q": 2},
                                              alpha_pattern={"to_v": 3})),
             "peft-rslora": ("unet", LoraConfig(r=4, lora_alpha=6, target_modules=layers, use_rslora=True)),
             "peft-text": ("text_encoder", LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "fc2"])),
             "peft-loha": ("unet", LoHaConfig(r=3, alpha=6, target_modules=layers)),
             "peft-loha-tucker": ("unet", LoHaConfig(r=3, alpha=6, target_modules=layers, use_effective_conv2d=True)),
             "peft-lokr": ("unet", LoKrConfig(r=2, alpha=3, decompose_factor=4, target_modules=layers)),
             "peft-lokr-tucker": ("unet", LoKrConfig(r=2, alpha=3, decompose_both=True, target_modules=layers,
                                                     use_effective_conv2d=True)),
             "peft-lokr-whole": ("unet", LoKrConfig(r=64, alpha=32, decompose_factor=8, target_modules=layers))}
    for name, (part, config) in cases.items():
        base, generator = load_base(base_file), torch.Generator().manual_seed(5)
        model = get_peft_model(getattr(base, part), config).eval()
        disturb([parameter for parameter in model.parameters() if parameter.requires_grad], generator)
        model.save_pretrained(folder / name, save_embedding_layers=False)
        yield name, Made(folder / name, run(base), comfyui=name != "peft-lokr-tucker")


def by_diffusers(base_file, folder):
    """A LoRA of its training scripts, as a pipeline and as a U-Net save it."""
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    base, generator = load_base(base_file), torch.Generator().manual_seed(5)
    base.unet.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_out.0", "conv1"]))
    base.unet.eval()
    disturb([parameter for parameter in base.unet.parameters() if parameter.requires_grad], generator)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(base.unet))
    StableDiffusionPipeline.save_lora_weights(folder / "pipeline", layers, safe_serialization=True,
                                              **_collate_lora_metadata({"unet": base.unet}))
    base.unet.save_lora_adapter(folder / "model", safe_serialization=True)
    for name in ("pipeline", "model"):
        yield f"diffusers-{name}", Made(folder / name / "pytorch_lora_weights.safetensors", run(base))


def by_lycoris(base_file, folder):
    """Each algorithm that ComfyUI knows."""
    from lycoris import LycorisNetwork, create_lycoris

    cases = {"locon": {"algo": "lora"}, "locon-tucker": {"algo": "lora", "use_tucker": True}, "loha": {"algo": "loha"},
             "loha-tucker": {"algo": "loha", "use_tucker": True}, "lokr": {"algo": "lokr", "factor": 4},
             "lokr-both": {"algo": "lokr", "decompose_both": True}, "lokr-tucker": {"algo": "lokr", "use_tucker": True},
             "lokr-whole": {"algo": "lokr", "full_matrix": True}, "oft": {"algo": "diag-oft"}, "boft": {"algo": "boft"},
             "full": {"algo": "full"}, "norms": {"algo": "lora", "train_norm": True},
             "columns": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
             "rows": {"algo": "loha", "dora_wd": True}, "oft-rescaled": {"algo": "diag-oft", "rescaled": True},
             "boft-rescaled": {"algo": "boft", "rescaled": True}, "oft-limited": {"algo": "diag-oft", "constraint": 0.5}}
    not_comfyui = ("rows", "oft-rescaled", "oft-limited")
    for name, settings in cases.items():
        base, generator = load_base(base_file), torch.Generator().manual_seed(5)
        norms = ["*norm1"] if settings.get("train_norm") else []
        LycorisNetwork.apply_preset({"target_module": [], "target_name": LAYERS + norms, "use_fnmatch": True})
        network = create_lycoris(base.unet, 1.0, 8 if "oft" in name else 4, 3.0, warn_on_unmatched=False, **settings)
        network.apply_to()
        disturb(network.parameters(), generator)
        network.eval()
        network.save_weights(str(folder / f"{name}.safetensors"), torch.float32, {})
        output = None if name in not_comfyui else run(base)
        yield f"lycoris-{name}", Made(folder / f"{name}.safetensors", output, comfyui=name != "lokr-tucker")


def by_hand(base_file, folder):
    """kohya's layout, under diffusers' and under LDM's names and with text encoder; and diffusers' files of 2023."""
    base, generator = load_base(base_file), torch.Generator().manual_seed(5)
    ldm = unet_keys(base.unet)
    text = {name.removeprefix("text_model."): weight for name, weight in base.text_encoder.named_parameters()}
    unet = dict(base.unet.named_parameters())
    attention = next(name for name in unet if name.endswith("attn1.to_out.0.weight"))
    convolution, linear = "down_blocks.1.resnets.0.conv1.weight", "encoder.layers.0.self_attn.q_proj.weight"
    stems = {"lora_unet_" + attention[:-7].replace(".", "_"): unet[attention],
             "lora_unet_" + ldm[convolution][:-7].replace(".", "_"): unet[convolution],
             "lora_te_text_model_" + linear[:-7].replace(".", "_"): text[linear]}
    old = f"unet.{attention.replace('.to_out.0.weight', '.processor.to_out')}"
    tensors, oldest = {}, {}
    for stem, weight in stems.items():
        kernel = weight.shape[2:]
        up = torch.randn(weight.shape[0], 3, *[1] * len(kernel), generator=generator) * 0.05
        down = torch.randn(3, weight.shape[1], *kernel, generator=generator) * 0.2
        tensors |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(1.5)}
        if stem.endswith("to_out_0"):
            oldest = {f"{old}_lora.up.weight": up, f"{old}_lora.down.weight": down}
            other = load_base(base_file)
            other.unet.get_parameter(attention).data.add_(up @ down)
        weight.data.add_(0.5 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape))
    for name, content, output in (("kohya", tensors, run(base)), ("diffusers-2023", oldest, run(other))):
        save_file(content, folder / f"{name}.safetensors")
        yield name, Made(folder / f"{name}.safetensors", output)


def make(base_file, folder):
    """Every file, by name."""
    return {name: made for maker in (by_hand, by_diffusers, by_peft, by_lycoris) for name, made in maker(base_file, folder)}
