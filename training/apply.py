"""An adapter merged into a base, with the same result as stock loaders: every key is used, or the file is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import ModelError, listing
from .keys import targets

if TYPE_CHECKING:
    from .adapter import Adapter
    from .base import Base

_SUFFIXES = (".lora_up.weight", ".lora_down.weight", ".alpha", ".diff_b", ".diff")


def apply_adapter(base: Base, adapter: Adapter, strength: float = 1.0) -> list[str]:
    """Merge an adapter into the base's weights in place; what a user should know of it is returned as sentences.

    W + strength * alpha / rank * up @ down for a low-rank update (no alpha means rank), W + strength * diff, bias + strength * diff_b.
    Raises ModelError, before anything is changed, when a key or a shape does not fit the base.
    """
    changes = _changes(base, adapter)
    with torch.no_grad():
        for parameter, tensors in changes:
            merged = parameter.float() + strength * difference(tensors, parameter.shape).to(parameter.device)
            parameter.copy_(merged)
    return notices(base, adapter)


def notices(base: Base, adapter: Adapter) -> list[str]:
    """What a user should know before using an adapter with a base."""
    made_for = adapter.header.get("medtune.base_hash")
    if made_for is None or made_for == base.hash:
        return []
    name = adapter.header.get("medtune.base", "another base")
    return [f"{adapter.name} was trained on {name} (SHA-256 {made_for[:12]}), and is applied to {base.ref} ({base.hash[:12]}): "
            "its effect will differ from what training saw"]


def _changes(base: Base, adapter: Adapter) -> list[tuple[nn.Parameter, dict[str, Tensor]]]:
    """(parameter, {suffix: tensor}) of each weight and bias that the adapter changes."""
    parameters = {part: dict(getattr(base, part).named_parameters()) for part in ("unet", "text_encoder")
                  if getattr(base, part) is not None}
    known = targets(parameters["unet"], base.unet.config, parameters.get("text_encoder", ()), base.kind)
    found, unknown, wrong = {}, [], []
    for key, tensor in adapter.tensors.items():
        stem, suffix = _split(key)
        part, module = known.get(stem, (None, None))
        name = f"{module}.{'bias' if suffix == '.diff_b' else 'weight'}"
        if suffix is None or part is None or name not in parameters[part]:
            unknown.append(key)
        elif suffix in found.setdefault((part, name), {}):
            wrong.append(f"{key} (a second key for one weight)")
        else:
            found[part, name][suffix] = tensor
    for (part, name), tensors in found.items():
        if problem := _misfit(tensors, parameters[part][name].shape):
            wrong.append(f"{part}.{name} ({problem})")
    _refuse(base, adapter, unknown, wrong)
    return [(parameters[part][name], tensors) for (part, name), tensors in found.items()]


def _split(key: str) -> tuple[str, str | None]:
    suffix = next((suffix for suffix in _SUFFIXES if key.endswith(suffix)), None)
    return key.removesuffix(suffix or ""), suffix


def _misfit(tensors: Mapping[str, Tensor], shape: torch.Size) -> str | None:
    """Why these tensors cannot change a weight of this shape, or None."""
    up, down = tensors.get(".lora_up.weight"), tensors.get(".lora_down.weight")
    whole = tensors.get(".diff", tensors.get(".diff_b"))
    if whole is not None:
        if up is not None or down is not None:
            return "both a full difference and a low-rank one, of which stock loaders would use one"
        return None if whole.shape == shape else f"{tuple(whole.shape)} for a weight of {tuple(shape)}"
    if up is None or down is None:
        return f"no {'lora_up' if up is None else 'lora_down'}"
    fits = up.shape[0] == shape[0] and up[0].numel() == down.shape[0] and down[0].numel() == shape[1:].numel()
    return None if fits else f"{tuple(up.shape)} times {tuple(down.shape)} for a weight of {tuple(shape)}"


def difference(tensors: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """What is added to a weight of this shape, float32, from the tensors of one key by their suffix."""
    for suffix in (".diff", ".diff_b"):
        if suffix in tensors:
            return tensors[suffix].float()
    up, down = tensors[".lora_up.weight"].float(), tensors[".lora_down.weight"].float()
    rank = down.shape[0]
    scale = tensors[".alpha"].item() / rank if ".alpha" in tensors else 1.0
    return (up.flatten(1) @ down.flatten(1)).reshape(shape) * scale


def _refuse(base: Base, adapter: Adapter, unknown: list[str], wrong: list[str]) -> None:
    problems = [f"{len(keys)} {what}: {listing(keys)}" for what, keys in
                (("keys that this base has no weight for", unknown), ("that do not fit", wrong)) if keys]
    if problems:
        made_for = adapter.header.get("medtune.base") or adapter.header.get("modelspec.architecture")
        hint = f" It says that it was made for {made_for}." if made_for else ""
        raise ModelError(f"{adapter.name} is an adapter for another base than {base.ref} ({base.kind}), or of a kind that is not "
                         f"known here: {'; '.join(problems)}.{hint} Nothing was changed; use it with the base that it was trained on.")
