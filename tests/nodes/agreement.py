"""Run with a ComfyUI's Python, in its folder: what it makes of the embedded base and of each method's adapter, against the library.

agreement.py BASE_FILE FOLDER writes FOLDER/agreement.json: relative errors (norm of the difference over norm of the library's).
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
import folder_paths
import nodes as stock
import torch
from medtune.nodes import host
from medtune.training.adapter import write_adapter
from medtune.training.base import base_from_tensors, load_base
from medtune.training.method import METHODS

PROMPTS = ["Chest X-ray showing Cardiomegaly, Pleural Effusion", "a large bright circle, left, on a dark background"]
CASES = {name: [{}] for name in METHODS} | {"lora": [{}, {"targets": "all", "rank": 4, "alpha": 4.0}]}


def error(mine, theirs):
    return float((theirs.float() - mine.float()).norm() / mine.float().norm())


def unet(model, latents, times, states):
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    return model.model.diffusion_model(latents, times, context=states)


def perturbed(base, method, generator):
    """The base as a training leaves it: every trained value moved by a tenth of its layer's size, those that start at zero by 0.05."""
    method.attach(base, generator)
    with torch.no_grad():
        for parameter in method.named(base).values():
            size = float(parameter.abs().mean()) * 0.1 or 0.05
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


@torch.inference_mode()
def base_errors(model, clip, vae, latents, times):
    base = load_base(base_file)
    states = base.encode_prompts(PROMPTS)
    comfy_states = torch.cat([clip.encode_from_tokens(clip.tokenize(prompt)) for prompt in PROMPTS])
    images = base.decode_latents(latents * 0.5)
    return {
        "text": error(states, comfy_states),
        "unet": error(base.unet(latents, times, states).sample, unet(model, latents, times, states)),
        "decode": error(images, host_images(vae.decode(latents * 0.5 / model.model.latent_format.scale_factor))),
        "encode": error(base.encode_images(images), vae.encode(images.permute(0, 2, 3, 1)) * model.model.latent_format.scale_factor),
    }


def host_images(images):
    return images.permute(0, 3, 1, 2)


def adapter_errors(name, options, model, clip, given):
    latents, times = given
    generator = torch.Generator().manual_seed(5)
    method, base = METHODS[name](METHODS[name].Config(**options)), load_base(base_file)
    with torch.no_grad():
        states = base.encode_prompts(PROMPTS)
        before = base.unet(latents, times, states).sample
    perturbed(base, method, generator)
    with torch.no_grad():
        after = base.unet(latents, times, states).sample
    write_adapter(folder / "output" / "loras" / f"{name}.safetensors", method.export(base), {"medtune.method": name})
    with torch.inference_mode():
        patched, _ = stock.LoraLoader().load_lora(model, clip, f"{name}.safetensors", 1.0, 1.0)
        loaded = unet(patched, latents, times, states)
        merged = plain_error(patched, clip, after, (latents, times, states))
    return {"output": error(after, loaded), "change": error(after - before, loaded - before), "effect": error(before, after),
            "plain": merged}


def plain_error(model, clip, after, given):
    """A base built from the patched MODEL's plain weights, against training's U-Net."""
    with torch.inference_mode(False), torch.no_grad():
        comfy.model_management.unload_all_models()
        kind, prediction = host.describe(model)
        base = base_from_tensors(host.unet_weights(model), host.text_weights(clip), None, kind, prediction=prediction)
        return error(after, base.unet(*(value.clone() for value in given)).sample)


def main():
    host.register_base()
    folder_paths.add_model_folder_path("loras", str(folder / "output" / "loras"))
    with torch.inference_mode():
        model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(base_file), output_vae=True, output_clip=True)
    generator = torch.Generator().manual_seed(3)
    latents, times = torch.randn(2, 4, 32, 32, generator=generator), torch.tensor([37, 803])
    found = {"base": base_errors(model, clip, vae, latents, times), "adapters": {}}
    for name, cases in CASES.items():
        for options in cases:
            label = name + (f" {options}" if options else "")
            found["adapters"][label] = adapter_errors(name, options, model, clip, (latents, times))
    found["methods"] = list(METHODS)
    (folder / "agreement.json").write_text(json.dumps(found, indent=1))


main()
