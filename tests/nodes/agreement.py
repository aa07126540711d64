"""Run with a ComfyUI's Python, in its folder: what it makes of the embedded base and of each method's files, against the library.

agreement.py BASE_FILE CASES FOLDER writes FOLDER/agreement.json: relative errors (norm of the difference over norm of the library's).
CASES is `all`, or `one` for each method's default settings and those that train the text encoder besides.
"""

# ruff: noqa: E402, I001

import gc
import json
import os
import sys
from pathlib import Path

base_file, chosen, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
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
PARTS = ("text-encoder", "vae", "unet+text-encoder+vae")
CASES = {name: [{}] for name in METHODS} | {
    "lora": [{}, {"targets": "all", "rank": 4, "alpha": 4.0}],
    "full": [{}, *({"parts": parts} for parts in PARTS)],
    **{name: [{}, {"text_encoder": True}] for name in ("attention", "bitfit", "norm", "difffit", "delta", "ia3", "svdiff")},
    **{name: [{}, {"targets": "all", "text_encoder": True}] for name in ("dora", "loha", "lokr", "oft", "boft", "vera")},
}
CASES["lora"] += [{"start": "pissa"}, {"patterns": "attn2=4, conv=2", "rank_stabilised": True, "text_encoder": True}]
CASES["loha"] += [{"targets": "all", "tucker": True}]
CASES["lokr"] += [{"targets": "all", "decompose_both": True, "rank": 2}, {"rank": 32, "factor": 8}]
if chosen == "one":
    CASES = {name: cases[:1] + [case for case in cases[1:] if case.get("text_encoder")][:1] for name, cases in CASES.items()}
FROM_ZERO = {"vera": 0.2}  # its trained numbers are scales of small ones


def error(mine, theirs):
    return float((theirs.float() - mine.float()).norm() / mine.float().norm())


def unet(model, latents, times, states):
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    return model.model.diffusion_model(latents, times, context=states)


def perturbed(base, method, generator):
    """The base as a training leaves it: each trained value moved by a tenth of its layer's size, or a little from zero."""
    method.attach(base, generator)
    with torch.no_grad():
        for parameter in method.named(base).values():
            size = float(parameter.abs().mean()) * 0.1 or FROM_ZERO.get(method.name, 0.02)
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


@torch.inference_mode()
def base_errors(model, clip, vae, latents, times):
    base = load_base(base_file)
    states = base.encode_prompts(PROMPTS)
    comfy_states = torch.cat([clip.encode_from_tokens(clip.tokenize(prompt)) for prompt in PROMPTS])
    small = latents[:, :4] * 0.5
    images = base.decode_latents(small)
    return {
        "text": error(states, comfy_states),
        "unet": error(base.unet(latents, times, states).sample, unet(model, latents, times, states)),
        "decode": error(images, host_images(vae.decode(small / model.model.latent_format.scale_factor))),
        "encode": error(base.encode_images(images), vae.encode(images.permute(0, 2, 3, 1)) * model.model.latent_format.scale_factor),
    }


def host_images(images):
    return images.permute(0, 3, 1, 2)


@torch.no_grad()
def library_outputs(base, words, given):
    """What each part of a base gives; `words` end the prompts."""
    latents, times, states = given
    return {"unet": base.unet(latents, times, states).sample,
            "text": base.encode_prompts([f"{prompt}{words}" for prompt in PROMPTS]),
            "decode": base.decode_latents(latents[:, :4, :16, :16] * 0.5), "encode": base.encode_images(pictures())}


@torch.inference_mode()
def comfy_outputs(model, clip, vae, words, given):
    """The same, of ComfyUI's models."""
    scale = model.model.latent_format.scale_factor
    images = vae.decode(given[0][:, :4, :16, :16] * 0.5 / scale)
    return {"unet": unet(model, *given),
            "text": torch.cat([clip.encode_from_tokens(clip.tokenize(f"{prompt}{words}")) for prompt in PROMPTS]),
            "decode": host_images(images), "encode": vae.encode(pictures().permute(0, 2, 3, 1)) * scale}


def pictures():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


def load(kind, path, models):
    """ComfyUI's models with one file, put where its stock node looks for it."""
    model, clip, vae = models
    with torch.inference_mode():
        if kind == "adapter":
            model, clip = stock.LoraLoader().load_lora(model, clip, path.name, 1.0, 1.0)
        if kind == "vae":
            (vae,) = stock.VAELoader().load_vae(path.name)
    return model, clip, vae


FOLDERS = {"adapter": folder / "output" / "loras", "vae": folder / "models" / "vae", "embedding": folder / "models" / "embeddings"}


def trained(name, options, given):
    """The library's outputs before and after a training, the prompts' ending, and the files by kind; nothing else is kept of it."""
    generator, method, base = torch.Generator().manual_seed(5), METHODS[name](METHODS[name].Config(**options)), load_base(base_file)
    words = "".join(f", embedding:{word}" for word in method.words())
    with torch.no_grad():
        given = (*given, base.encode_prompts(PROMPTS))
    before = library_outputs(base, "", given)
    perturbed(base, method, generator)
    after = library_outputs(base, words, given)
    stem = next(iter(method.words()), "-".join([name, *map(str, options.values())]))
    files = {kind: write_adapter(FOLDERS[kind] / f"{stem}.safetensors", tensors, {"medtune.method": name})
             for kind, tensors in method.products(base).items()}
    return before, after, words, given, files


def adapter_errors(name, options, models, given):
    before, after, words, given, files = trained(name, options, given)
    gc.collect()
    for kind, path in files.items():
        models = load(kind, path, models)
    loaded = comfy_outputs(*models, words, given)
    if chosen == "one":
        for path in files.values():
            path.unlink()  # with checkpoints of true sizes all of them would fill a disk
    changed = [part for part in after if error(before[part], after[part]) > 1e-6]
    found = {"parts": changed, "output": max(error(after[part], loaded[part]) for part in after),
             "change": max(error(after[part] - before[part], loaded[part] - before[part]) for part in changed),
             "effect": max(error(before[part], after[part]) for part in changed)}
    if chosen == "all" and not options:
        found["plain"] = plain_error(models[0], models[1], after["unet"], given)
    return found


def plain_error(model, clip, after, given):
    """A base built from the patched MODEL's plain weights, against training's U-Net."""
    with torch.inference_mode(False), torch.no_grad():
        comfy.model_management.unload_all_models()
        kind, prediction = host.describe(model)
        base = base_from_tensors(host.unet_weights(model), host.text_weights(clip), None, kind, prediction=prediction)
        return error(after, base.unet(*(value.clone() for value in given)).sample)


def main():
    host.register_base()
    folder_paths.add_model_folder_path("loras", str(FOLDERS["adapter"]))
    with torch.inference_mode():
        model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(base_file), output_vae=True, output_clip=True,
                                                                     embedding_directory=[str(FOLDERS["embedding"])])
    generator = torch.Generator().manual_seed(3)
    channels, side = model.model.model_config.unet_config["in_channels"], 16
    latents, times = torch.randn(2, channels, side, side, generator=generator), torch.tensor([37, 803])
    found = {"base": base_errors(model, clip, vae, latents, times), "adapters": {}, "methods": list(METHODS)}
    for name, cases in CASES.items():
        for options in cases:
            label = name + (f" {options}" if options else "")
            found["adapters"][label] = adapter_errors(name, options, (model, clip, vae), (latents, times))
            print(label, found["adapters"][label], flush=True)  # with checkpoints of true sizes it takes hours
            gc.collect()
    (folder / "agreement.json").write_text(json.dumps(found, indent=1))


main()
