"""An adapter merged into a base, with the same result as stock loaders: every key is used, or the file is refused.

Read are the files of this library, kohya's sd-scripts, LyCORIS, diffusers and peft (see `peft_file`); `changes` has the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import ModelError, listing
from .changes import ENDS, SYNONYMS, Kind, kind_of
from .keys import targets
from .objective import follow_schedule
from .products import apply_product

if TYPE_CHECKING:
    from .adapter import Adapter
    from .base import Base

_OF_BIASES = ("diff_b", "b_norm")
_ENDS = sorted([*ENDS, *SYNONYMS, *_OF_BIASES], key=len, reverse=True)


@dataclass
class Change:
    """What an adapter says of one weight or bias: its tensors by the ends of their keys, and for a weight the kind that they are."""

    name: str
    parameter: nn.Parameter
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kind: Kind | None = None

    def made(self, strength: float) -> Tensor:
        """The new weight or bias, float32."""
        old = self.parameter.float()
        tensors = {end: tensor.to(old.device, torch.float32) for end, tensor in self.tensors.items()}
        if self.kind is None:
            return old + strength * next(iter(tensors.values()))
        return self.kind.change(old, tensors, strength)


def apply_adapter(base: Base, adapter: Adapter, strength: float = 1.0) -> list[str]:
    """Merge an adapter, or apply another product of a training, to the base in place; what a user should know of it is returned as
    sentences.

    Raises ModelError, before any weight is changed, when a key or a shape does not fit the base.
    """
    follow_schedule(base, adapter.header)
    if adapter.kind != "adapter":
        return [*apply_product(base, adapter, strength), *notices(base, adapter)]
    changes = read_changes(base, adapter)
    with torch.no_grad():
        for change in changes:
            change.parameter.copy_(change.made(strength))
    return [*notices(base, adapter), *_peculiarities(adapter, changes, strength)]


def notices(base: Base, adapter: Adapter) -> list[str]:
    """What a user should know before using an adapter with a base."""
    made_for = adapter.header.get("medtune.base_hash")
    if made_for is None or made_for == base.hash:
        return []
    name = adapter.header.get("medtune.base", "another base")
    return [f"{adapter.name} was trained on {name} (SHA-256 {made_for[:12]}), and is applied to {base.ref} ({base.hash[:12]}): "
            "its effect will differ from what training saw"]


def _peculiarities(adapter: Adapter, changes: list[Change], strength: float) -> list[str]:
    """Where ComfyUI's loader, which is followed here, does not do what the adapter's paper or its trainer does."""
    told = []
    rescaled = [change for change in changes if "dora_scale" in change.tensors and change.kind is not None]
    rows = [change.name for change in rescaled if change.tensors["dora_scale"].shape[0] == change.parameter.shape[0]
            and change.kind.difference(change.tensors, change.parameter.shape).any()]
    if rows:
        told.append(f"{adapter.name} has a dora_scale of the outputs of {len(rows)} weights ({listing(rows)}). ComfyUI, which is "
                    "followed here, divides it by the norm of the weight alone, DoRA's paper and trainers by that of weight and "
                    "update together: its effect is not quite what it was trained to be")
    if kernels := [change.name for change in changes if "lokr_t2" in change.tensors]:
        told.append(f"{adapter.name} has {len(kernels)} LoKr with factored kernels (lokr_t2), on which ComfyUI 0.3.64 to 0.33 fails, "
                    f"leaving the weights as they are ({listing(kernels)}); here they are merged as their trainer meant")
    turned = [change for change in changes if change.kind is not None and change.kind.name in ("OFT", "BOFT")]
    if ignored := [change.name for change in turned if change.kind.name == "OFT" and "rescale" in change.tensors]:
        told.append(f"{adapter.name} has a rescale of {len(ignored)} rotated weights, which ComfyUI passes over, and so is it here")
    if limited := [change.name for change in turned if float(change.tensors.get("alpha", 0)) > 0]:
        told.append(f"{adapter.name} limits {len(limited)} rotations by an alpha above 0, which ComfyUI, followed here, takes as it "
                    "is, and LyCORIS times the number of outputs")
    if turned and strength != 1:
        told.append(f"{adapter.name} rotates weights, where ComfyUI lets a strength act twice: {strength:g} counts as {strength**2:g}")
    return told


def read_changes(base: Base, adapter: Adapter) -> list[Change]:
    """What the adapter changes. Raises ModelError unless every key and shape fits the base."""
    parameters = {part: dict(getattr(base, part).named_parameters()) for part in ("unet", "text_encoder")
                  if getattr(base, part) is not None}
    known = targets(parameters["unet"], base.unet.config, parameters.get("text_encoder", ()), base.kind)
    found: dict[str, Change] = {}
    unknown, wrong = [], []
    for key, tensor in adapter.tensors.items():
        stem, end = split(key)
        part, module = known.get(stem, (None, None))
        name = f"{module}.{'bias' if end in _OF_BIASES else 'weight'}"
        if end is None or part is None or name not in parameters[part]:
            unknown.append(key)
            continue
        change = found.setdefault(f"{part}.{name}", Change(f"{part}.{name}", parameters[part][name]))
        if end in change.tensors:
            wrong.append(f"{key} (a second key for one weight)")
        change.tensors[end] = tensor
    wrong += [f"{name} ({problem})" for name, change in found.items() if (problem := _settle(change, found))]
    _refuse(base, adapter, unknown, wrong)
    return list(found.values())


def split(key: str) -> tuple[str, str | None]:
    """(what names the layer, the end by this library's name) of a key; None for an end that is not known."""
    for end in _ENDS:
        if key.endswith(f".{end}") or (end in ("lora.up.weight", "lora.down.weight") and key.endswith(f"_{end}")):
            return key[:-len(end) - 1], SYNONYMS.get(end, end)
    return key, None


def _settle(change: Change, found: Mapping[str, Change]) -> str | None:
    """Decide on a change's kind; why it cannot be used, or None."""
    shape = change.parameter.shape
    if broken := [end for end, tensor in change.tensors.items() if not torch.isfinite(tensor).all()]:
        return f"NaN or infinite values in {', '.join(broken)}"
    if change.name.endswith(".bias"):
        end, tensor = next(iter(change.tensors.items()))
        if len(change.tensors) > 1:
            return "both diff_b and b_norm, of which stock loaders would use one"
        if end == "b_norm" and "w_norm" not in getattr(found.get(change.name[:-4] + "weight"), "tensors", ()):
            return "a b_norm without a w_norm, which stock loaders pass over: name it diff_b"
        return None if tensor.shape == shape else f"{tuple(tensor.shape)} for a bias of {tuple(shape)}"
    kind = kind_of(change.tensors)
    if isinstance(kind, str):
        return kind
    change.kind = kind
    return kind.misfit(change.tensors, shape)


def _refuse(base: Base, adapter: Adapter, unknown: list[str], wrong: list[str]) -> None:
    problems = [f"{len(keys)} {what}: {listing(keys)}" for what, keys in
                (("keys that this base has no weight for", unknown), ("that do not fit", wrong)) if keys]
    if problems:
        made_for = adapter.header.get("medtune.base") or adapter.header.get("modelspec.architecture")
        hint = f" It says that it was made for {made_for}." if made_for else ""
        raise ModelError(f"{adapter.name} is an adapter for another base than {base.ref} ({base.kind}), or of a kind that is not "
                         f"known here: {'; '.join(problems)}.{hint} Nothing was changed; use it with the base that it was trained on.")
