"""MedTune's training options in the words of sd-scripts' command line, and what it does otherwise."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Base
    from .method import Method
    from .objective import ObjectiveOptions
    from .options import TrainOptions

_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def shared_arguments(base: Base, method: Method, options: TrainOptions, objective: ObjectiveOptions) -> list[str]:
    """What all scripts of sd-scripts take for these settings."""
    lr = getattr(method.config, "lr_unet", 0) or options.lr or method.facts.lr
    schedule = "constant_with_warmup" if options.schedule == "constant" and options.warmup else options.schedule
    found = ["--save_model_as", "safetensors", "--save_precision", "float", "--learning_rate", f"{lr:g}",
             "--max_train_steps", str(options.steps),
             "--optimizer_type", options.optimizer, "--lr_scheduler", schedule, "--lr_warmup_steps", str(options.warmup),
             "--max_grad_norm", f"{options.clip:g}", "--gradient_accumulation_steps", str(options.accumulation),
             "--mixed_precision", _PRECISIONS[options.precision], "--seed", str(options.seed % 2**32), "--sdpa", "--no_half_vae"]
    if options.optimizer.startswith("AdamW"):
        found += ["--optimizer_args", f"weight_decay={options.weight_decay:g}"]
    found += ["--cache_latents"] if options.posterior == "mode" else []
    found += ["--gradient_checkpointing"] if options.gradient_checkpointing else []
    found += ["--v2"] if base.kind == "sd2" else []
    found += ["--v_parameterization"] if base.prediction == "v_prediction" else []
    return found + _objective(objective)


def _objective(objective: ObjectiveOptions) -> list[str]:
    found = ["--min_snr_gamma", f"{objective.snr_gamma:g}"] if objective.weighting == "min-snr" else []
    found += ["--debiased_estimation_loss"] if objective.weighting == "debiased" else []
    found += ["--noise_offset", f"{objective.noise_offset:g}"] if objective.noise_offset else []
    found += ["--ip_noise_gamma", f"{objective.input_perturbation:g}"] if objective.input_perturbation else []
    return found + (["--zero_terminal_snr"] if objective.zero_terminal_snr else [])


def differences(options: TrainOptions) -> list[str]:
    """Where sd-scripts trains otherwise, whatever the method."""
    found = ["order, noise and starting values are other random numbers of the same distributions"]
    if options.posterior == "mode":
        found.append("sd-scripts caches one sample of the autoencoder's posterior, MedTune its mode")
    if options.batch == 0:
        found.append("the batch size is 1: MedTune finds the largest one on the machine that trains")
    return found


def script(command: Sequence[str], notices: Sequence[str]) -> str:
    """A shell script that runs the command in a checkout of sd-scripts."""
    lines, line = [], ""
    for word in map(shlex.quote, command):
        if word.startswith("--") and len(line) > 70:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    body = " \\\n  ".join([*lines, line])
    comments = [f"# - {notice}" for notice in notices]
    return "\n".join(["#!/bin/sh", "# Run this in a checkout of https://github.com/kohya-ss/sd-scripts, in its Python environment.",
                      "# What differs from the training of MedTune that it stands for:", *comments, "set -e", body]) + "\n"
