"""Run with a ComfyUI's Python, in its folder: what the stock LoraLoader makes of other tools' adapters, against the library's reader.

reading.py BASE_FILE FILES FOLDER writes FOLDER/reading.json: relative errors by file and strength. FILES is JSON: name -> path.
"""

# ruff: noqa: E402, I001

import json
import os
import shutil
import sys
from pathlib import Path

base_file, files, folder = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
sys.argv = [sys.argv[0], "--cpu", "--fp32-text-enc", "--base-directory", str(folder)]
sys.path.insert(0, os.getcwd())

import comfy.options

comfy.options.enable_args_parsing()
import utils.install_util  # noqa: F401  (ComfyUI's own utils, before its nodes put another on the path)
import comfy.model_management
import comfy.sd
import folder_paths
import nodes as stock
import torch
from medtune.nodes import host
from medtune.training.adapter import apply_adapter, read_adapter, write_adapter
from medtune.training.base import load_base

PROMPTS = ["Chest X-ray showing Cardiomegaly, Pleural Effusion", "a large bright circle, left, on a dark background"]
LORAS = folder / "output" / "loras"


def error(mine, theirs):
    return float((theirs.float() - mine.float()).norm() / mine.float().norm())


@torch.no_grad()
def ours(adapter, strength, latents, times):
    base = load_base(base_file)
    if adapter is not None:
        apply_adapter(base, adapter, strength)
    return base.unet(latents, times, base.encode_prompts(PROMPTS)).sample


@torch.inference_mode()
def theirs(loaded, name, strength, latents, times):
    model, clip = stock.LoraLoader().load_lora(*loaded, name, strength, strength)
    states = torch.cat([clip.encode_from_tokens(clip.tokenize(prompt)) for prompt in PROMPTS])
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    return model.model.diffusion_model(latents, times, context=states)


def put(path, name, adapter):
    """The file itself where stock reads its keys; what the reader made of it where its maker's keys are not read (peft, diffusers)."""
    LORAS.mkdir(parents=True, exist_ok=True)
    if name.startswith(("peft", "diffusers-pipeline", "diffusers-model")):
        write_adapter(LORAS / f"{name}.safetensors", adapter.tensors, {})
    else:
        shutil.copy(path, LORAS / f"{name}.safetensors")


def main():
    host.register_base()
    folder_paths.add_model_folder_path("loras", str(LORAS))
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(base_file), output_vae=False, output_clip=True)
    generator = torch.Generator().manual_seed(3)
    given = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([37, 803])
    before, found = ours(None, 1.0, *given), {}
    for name, path in files.items():
        adapter = read_adapter(path)
        put(path, name, adapter)
        for strength in (1.0, 0.4):
            mine = ours(adapter, strength, *given)
            stocks = theirs((model, clip), f"{name}.safetensors", strength, *given)
            found[f"{name} at {strength:g}"] = {"error": error(mine, stocks), "effect": error(before, mine)}
    (folder / "reading.json").write_text(json.dumps(found, indent=1))


main()
