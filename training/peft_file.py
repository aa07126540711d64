"""Files of peft and diffusers in native keys: their modules by kohya's names, and the alpha that they keep beside the tensors.

peft saves a folder, `adapter_model.safetensors` with `adapter_config.json`; diffusers one file, with the same settings in its header.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import Missing, ModelError, listing
from .changes import ENDS, SYNONYMS
from .keys import kohya_name, text_kohya_name

TENSORS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."

_IN_HEADER = "lora_adapter_metadata"
_TYPES = {"LORA": "lora_", "LOHA": "hada_", "LOKR": "lokr_"}


def tensors_file(path: Path) -> Path:
    """The file that holds the tensors of a path: itself, or that of a folder as peft saves it."""
    if not path.is_dir():
        return path
    if not (path / TENSORS).is_file():
        raise Missing(f"the folder {path} has no {TENSORS}, in which peft saves an adapter. Give such a folder, or an adapter's file.")
    return path / TENSORS


def native(tensors: Mapping[str, Tensor], header: Mapping[str, str], path: Path) -> dict[str, Tensor]:
    """The tensors of a file of peft or diffusers in native keys; those of others as they are.

    Raises Missing or ModelError where peft's settings are not beside the file, or are of a kind that cannot be said in native keys.
    """
    if any(key.startswith(PREFIX) for key in tensors):
        settings = _beside(path)
        return _converted({key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}, settings, path)
    if _IN_HEADER not in header:
        return dict(tensors)
    settings, found, rest = json.loads(header[_IN_HEADER]), {}, dict(tensors)
    for part in ("unet.", "text_encoder.", ""):
        own = {key.removeprefix(part): rest.pop(key) for key in list(rest) if key.startswith(part)}
        if own:
            found |= _converted(own, {key.removeprefix(part): value for key, value in settings.items() if key.startswith(part)}, path)
    return found


def _beside(path: Path) -> dict[str, Any]:
    file = path.parent / SETTINGS
    if not file.is_file():
        raise Missing(f"{path} was made by peft, and {file} is not there, which says how strong it is (alpha). Keep the two together.")
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{file} cannot be read as peft's settings ({error}). Save the adapter again by save_pretrained.") from error


def _converted(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    kind = str(settings.get("peft_type", "LORA")).rpartition(".")[2]
    if kind not in _TYPES or settings.get("use_dora"):
        raise ModelError(f"{path} is a {'DoRA' if kind == 'LORA' else kind} of peft, which cannot be said in the keys that stock "
                         f"loaders read; {', '.join(_TYPES)} can. Merge it into its model with peft (merge_and_unload), and load that "
                         "as a base.")
    layers: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        module, end = _split(key)
        if end is None or not end.startswith(_TYPES[kind]):
            unknown.append(key)
        else:
            layers.setdefault(module, {})[end] = tensor
    if unknown:
        raise ModelError(f"{path} has {len(unknown)} tensors that are no part of a {kind} of peft: {listing(unknown)}. Save it again "
                         "with bias none and without modules_to_save.")
    found = {}
    for module, ends in layers.items():
        stem = text_kohya_name(module) if module.startswith(("text_model.", "encoder.layers.")) else kohya_name(module)
        found |= {f"{stem}.{end}": tensor for end, tensor in _with_alpha(module, ends, settings).items()}
    return found


def _split(key: str) -> tuple[str, str | None]:
    for end in sorted([*ENDS, *SYNONYMS], key=len, reverse=True):
        if key.endswith(f".{end}"):
            return key[:-len(end) - 1], SYNONYMS.get(end, end)
    return key, None


def _with_alpha(module: str, ends: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """A layer's tensors with the alpha that gives stock loaders the scale that peft had."""
    alpha = _of_pattern(settings.get("alpha_pattern"), module, settings.get("lora_alpha", settings.get("alpha")))
    rank = _of_pattern(settings.get("rank_pattern"), module, settings.get("r"))
    if alpha is None or rank is None:
        return dict(ends)
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    if {"lokr_w1", "lokr_w2"} <= ends.keys():  # stock loaders pass over its alpha
        return {**ends, "lokr_w1": ends["lokr_w1"].float() * scale}
    return {**ends, "alpha": torch.tensor(float(scale * rank))}


def _of_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """peft's rule: the first pattern that matches the end of a module's name."""
    return next((value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", module)), default)
