"""Run with a ComfyUI's Python, in its folder: what it makes of a checkpoint whose base was inflated, against the library.

inflated.py BASE_FILE FOLDER writes FOLDER/inflated.json: relative errors (norm of the difference over norm of the library's).
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
import nodes as stock
import torch
from medtune.nodes import host
from medtune.training import inflate, inpainting
from medtune.training.adapter import make_header, write_adapter
from medtune.training.base import load_base
from medtune.training.method import METHODS
from medtune.training.products import product_header


def error(mine, theirs):
    return float((theirs.float() - mine.float()).norm() / mine.float().norm())


def trained(generator):
    """An inflated base as a training leaves it, and the method."""
    base, method = inflate.inflate(load_base(base_file)), METHODS["lora"]()
    method.attach(base, generator)
    with torch.no_grad():
        for weight in (*method.named(base).values(), *inflate.open_columns(base).values()):
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return base, method


def main():
    host.register_base()
    generator = torch.Generator().manual_seed(3)
    base, method = trained(generator)
    header = make_header(base, method, title="inflated", steps=1, lr=1e-4, images=1, data_hash="ab" * 32)
    file = write_adapter(folder / "inflated.safetensors", inflate.inflated_products(base, method.products(base), True)["model"],
                         product_header(header, "model"))
    with torch.inference_mode():
        model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(file), output_vae=True, output_clip=True)
        images, masks = torch.rand((1, 64, 64, 3), generator=generator), torch.zeros(1, 64, 64)
        masks[:, 8:40, 16:48] = 1
        given = [[clip.encode_from_tokens(clip.tokenize("a lung")), {}]]
        given, _, latent = stock.InpaintModelConditioning().encode(given, given, images, vae, masks)
        asked = given[0][1]
        channels = model.model.concat_cond(noise=torch.zeros_like(latent["samples"]), device="cpu",
                                           concat_mask=asked["concat_mask"], concat_latent_image=asked["concat_latent_image"])
        small, hidden = inpainting.condition(images[0].permute(2, 0, 1), masks)
        mine = torch.cat([small, base.encode_images(hidden[None])[0]])[None]
        inputs = torch.cat([torch.randn((1, 4, 8, 8), generator=generator), mine], dim=1)
        times, states = torch.tensor([300]), base.encode_prompts(["a lung"])
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        unet = model.model.diffusion_model(inputs, times, context=states)
        found = {"keys": list(model.model.concat_keys), "channels": error(mine, channels), "masked": float(small.sum()),
                 "unet": error(base.unet(inputs, times, states).sample, unet),
                 "effect": error(inflate.inflate(load_base(base_file)).unet(inputs, times, states).sample, unet),
                 "text": error(states, clip.encode_from_tokens(clip.tokenize("a lung")))}
    (folder / "inflated.json").write_text(json.dumps(found, indent=1))


main()
