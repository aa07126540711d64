"""ComfyUI's own Train LoRA node, run headless as `PYTHON comfyui.py JOB` by a ComfyUI's Python in its folder.

The node is called as ComfyUI's executor calls it, on latents and text states from a file and on the checkpoint that its loader
makes of the base; a hook after each update of its optimiser is all that is added.
"""

# ruff: noqa: E402, I001  (the order matters)

from __future__ import annotations

import inspect
import json
import os
import sys
from typing import Any

from turns import Turns

turns = Turns()  # before ComfyUI prints anything
job: dict[str, Any] = json.loads(sys.argv[1])
sys.path[0] = os.getcwd()  # ComfyUI's folder in place of this one
sys.argv = [sys.argv[0], "--base-directory", job["folder"], *(["--cpu"] if job["device"] == "cpu" else [])]

import comfy.options

comfy.options.enable_args_parsing()
import utils.install_util  # noqa: F401  (ComfyUI's own utils, before another is on the path)

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import torch
from comfy_extras.nodes_train import TrainLoraNode
from medtune.nodes import embedded
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.set_num_threads(job["threads"])
embedded.register(comfy.supported_models, comfy.supported_models_base, comfy.sd1_clip)

FIXED = {"steps": 1_000_000, "grad_accumulation_steps": 1, "learning_rate": 1e-4, "optimizer": "AdamW", "loss_function": "MSE",
         "seed": 0, "algorithm": "LoRA", "quantized_backward": False, "checkpoint_depth": 1, "offloading": False,
         "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": False}


def hook() -> Any:
    """Counts a step after each update; the first one says that all is set up."""
    started = []

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if started:
            turns.step()
        else:
            started.append(True)
            turns.ready(trained=sum(weight.numel() for group in optimizer.param_groups for weight in group["params"]),
                        torch=torch.__version__)

    return after


def train(values: dict[str, Any]) -> None:
    """Call the node, of whichever version, with those of the values that it takes."""
    new = hasattr(TrainLoraNode, "execute")
    call = TrainLoraNode.execute if new else TrainLoraNode().train
    taken = {name: values[name] for name in inspect.signature(call).parameters}
    call(**({name: [value] for name, value in taken.items()} if new else taken))


def main() -> None:
    tensors = load_file(job["tensors"])
    model = comfy.sd.load_checkpoint_guess_config(job["base"], output_vae=False, output_clip=False)[0]
    positive = [[states[None], {}] for states in tensors["states"]]
    register_optimizer_step_post_hook(hook())
    with torch.inference_mode():
        train({**FIXED, "model": model, "latents": {"samples": tensors["latents"]}, "positive": positive, "batch_size": job["batch"],
               "rank": job["config"]["rank"], "training_dtype": job["precision"], "lora_dtype": job["precision"],
               "gradient_checkpointing": job["checkpointing"]})


main()
