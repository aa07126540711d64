"""Run with a ComfyUI's Python, in its folder: what it makes of a merged checkpoint, and of adapters that `inspect` has judged.

merged.py BASE_FILE FOLDER writes FOLDER/merged.json: relative errors (norm of the difference over norm of the library's).
"""

# ruff: noqa: E402, I001

import json
import os
import sys
from pathlib import Path

base_file, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.argv = [sys.argv[0], "--cpu", "--fp32-text-enc", "--base-directory", str(folder)]
sys.path.insert(0, os.getcwd())

import comfy.options

comfy.options.enable_args_parsing()
import utils.install_util  # noqa: F401  (ComfyUI's own utils, before its nodes put another on the path)
import comfy.model_management
import comfy.sd
import torch
from medtune.nodes import host
from medtune.training.adapter import apply_adapter, read_adapter, write_adapter
from medtune.training.anatomy import examine
from medtune.training.base import load_base
from medtune.training.export import export
from medtune.training.method import METHODS
from safetensors.torch import save_file

SAID = {"modelspec.architecture": "medtune-embedded/lora"}
STEM = "mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
CASES = {"lora": {"targets": "all", "text_encoder": True}, "bitfit": {}, "norm": {}, "loha": {"targets": "all"},
         "lokr": {"targets": "all"}, "dora": {}}


def error(mine, theirs):
    return float((theirs.float() - mine.float()).norm() / mine.float().norm())


def trained(name, options, generator):
    """The file of a method whose trained values were moved."""
    base, method = load_base(base_file), METHODS[name](METHODS[name].Config(**options))
    method.attach(base, generator)
    with torch.no_grad():
        for parameter in method.named(base).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return write_adapter(folder / f"{name}.safetensors", method.export(base), SAID)


def odd(generator):
    """Files of others, with what a loader may pass over."""
    up, down = (torch.randn(shape, generator=generator) for shape in ((128, 4), (4, 128)))
    blocks, rows = torch.randn((32, 4, 4), generator=generator) * 0.2, torch.rand((128, 1), generator=generator) + 0.5
    columns = torch.rand((1, 128), generator=generator) + 0.5
    lora = {f"lora_unet_{STEM}.lora_up.weight": up, f"lora_unet_{STEM}.lora_down.weight": down}
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    files = {"oft": {f"lora_unet_{STEM}.oft_blocks": blocks},
             "columns": lora | {f"lora_unet_{STEM}.dora_scale": columns},
             "scaled": {**lora, f"lora_unet_{STEM}.lora_up.weight": up * 0, f"lora_unet_{STEM}.dora_scale": rows},
             "diffusers": {f"unet.{path}.lora_B.weight": up, f"unet.{path}.lora_A.weight": down},
             "processor": {f"unet.{path.replace('.to_q', '.processor.to_q')}_lora.{side}.weight": value
                           for side, value in (("up", up), ("down", down))}}
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors", metadata=SAID)
    return [folder / f"{name}.safetensors" for name in files]


def output(model, given):
    comfy.model_management.unload_all_models()
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    return model.model.diffusion_model(given[0], given[1], context=given[2]).clone()


def loaders(file, model, clip, given):
    """What `inspect` says of each loader, and the loader's error against the library's reading of the file."""
    with torch.inference_mode(False), torch.no_grad():
        base = load_base(base_file)
        apply_adapter(base, read_adapter(file))
        wanted = base.unet(*(value.clone() for value in given)).sample
    said, found = examine(file).loaders, {}
    for name, function in (("LoraLoader", "load_lora_for_models"), ("LoraLoaderBypass", "load_bypass_lora_for_models")):
        if not hasattr(comfy.sd, function):
            continue
        tensors = comfy.utils.load_torch_file(str(file), safe_load=True)
        try:
            patched, _ = getattr(comfy.sd, function)(model, clip, tensors, 1.0, 1.0)
            found[name] = [said[name], error(wanted, output(patched, given))]
        except Exception as failure:  # what a loader does with what it cannot use is its own affair
            found[name] = [said[name], str(failure)[:200] or type(failure).__name__]
        comfy.model_management.unload_all_models()
    return found


def merged(file, given):
    """A merged checkpoint in the stock loader, against base and adapter."""
    with torch.inference_mode(False), torch.no_grad():
        export(read_adapter(file), str(base_file), "checkpoint", folder / "merged.safetensors")
        base, plain = load_base(base_file), load_base(base_file)
        apply_adapter(base, read_adapter(file))
        own = [value.clone() for value in given]
        wanted, before, states = base.unet(*own).sample, plain.unet(*own).sample, base.encode_prompts(["a lung"])
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(folder / "merged.safetensors"), output_vae=True, output_clip=True)
    loaded = output(model, given)
    return {"unet": error(wanted, loaded), "effect": error(before, loaded),
            "text": error(states, clip.encode_from_tokens(clip.tokenize("a lung"))),
            "decode": error(base.decode_latents(given[0] * 0.5), vae.decode(
                given[0] * 0.5 / model.model.latent_format.scale_factor).permute(0, 3, 1, 2))}


def main():
    host.register_base()
    generator = torch.Generator().manual_seed(3)
    files = [trained(name, options, generator) for name, options in CASES.items()] + odd(generator)
    given = (torch.randn((2, 4, 16, 16), generator=generator), torch.tensor([37, 803]), torch.randn((2, 77, 64), generator=generator))
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(base_file), output_vae=False, output_clip=True)
        found = {"loaders": {file.stem: loaders(file, model, clip, given) for file in files}, "merged": merged(files[0], given)}
    (folder / "merged.json").write_text(json.dumps(found, indent=1))


main()
