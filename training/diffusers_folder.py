"""A base as diffusers saves a pipeline: a folder that StableDiffusionPipeline.from_pretrained and `load_base` read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..files import write_json, write_text
from .deltas import Rounding
from .tokenizer import LENGTH, merges

if TYPE_CHECKING:
    from .base import Base

_TOKENS = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def write_diffusers(folder: Path, base: Base, dtype: torch.dtype) -> Rounding:
    """Write a base with its present weights, which take on the type; returns what rounding took of their changes."""
    from diffusers import DDIMScheduler
    from diffusers import __version__ as version

    rounding = Rounding()
    for part in ("unet", "text_encoder", "vae"):
        _note(rounding, base, part, dtype)
        network = nn.Module.to(getattr(base, part), dtype)  # diffusers' own `to` warns of types that it would have kept
        network.save_pretrained(folder / part)
    DDIMScheduler.from_config(base.scheduler_config).save_pretrained(folder / "scheduler")
    _write_tokenizer(folder / "tokenizer", base)
    vae = type(base.vae).__name__
    write_json(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline" if base.channels == 4 else "StableDiffusionInpaintPipeline",
        "_diffusers_version": version, "feature_extractor": [None, None], "safety_checker": [None, None],
        "requires_safety_checker": False, "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", vae]})
    return rounding


def _note(rounding: Rounding, base: Base, part: str, dtype: torch.dtype) -> None:
    """Compare the present weights with the original ones, before and after rounding."""
    original = base.original(part)
    for name, parameter in getattr(base, part).named_parameters():
        before = original[name].float()
        wanted = parameter.detach().cpu().float() - before
        if wanted.any():
            rounding.note(f"{part}.{name}", wanted, parameter.detach().cpu().to(dtype).float() - before)


def _write_tokenizer(folder: Path, base: Base) -> None:
    """CLIP's vocabulary and merges in transformers' files."""
    vocabulary = base.tokenizer.words.get_vocab()
    padding = next(word for word, index in vocabulary.items() if index == base.tokenizer.pad)
    write_text(folder / "vocab.json", json.dumps(dict(sorted(vocabulary.items(), key=lambda entry: entry[1])), ensure_ascii=False))
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges())]) + "\n")
    write_json(folder / "special_tokens_map.json", {**_TOKENS, "pad_token": padding})
    write_json(folder / "tokenizer_config.json", {**_TOKENS, "pad_token": padding, "model_max_length": LENGTH, "do_lower_case": True,
                                                  "add_prefix_space": False, "errors": "replace", "tokenizer_class": "CLIPTokenizer"})
