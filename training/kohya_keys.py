"""Changes of a base as an adapter file in kohya's keys: compact where the stock loader is exact, else whole differences."""

from __future__ import annotations

import torch
from torch import Tensor

from .deltas import Deltas, Rounding
from .keys import kohya_name, text_kohya_name, text_name, text_stem

_LOW_RANK = {"lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha"}
_LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha"}
_LOKR = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha"}
EXACT = (_LOW_RANK, _LOHA, _LOKR, {"diff"}, {"diff_b"})
"""Ends of keys that may stand together, of which stock loaders make what the file says."""


def to_kohya(deltas: Deltas, dtype: torch.dtype) -> tuple[dict[str, Tensor], Rounding]:
    """The tensors of a file in a type, and what rounding to it took. What stock loaders would get wrong becomes a difference."""
    found, rounding = {}, Rounding()
    for (part, name), change in deltas.changes.items():
        wanted = deltas.amount((part, name))
        exact = any(change.tensors.keys() <= ends for ends in EXACT)
        kept = change.tensors if exact else {diff_end(name): wanted}
        rounded = {end: value if end == "alpha" else value.to(dtype) for end, value in kept.items()}
        found |= {f"{stem(deltas.base.kind, part, name)}.{end}": value.contiguous() for end, value in rounded.items()}
        got = deltas.amount((part, name), rounded) if exact else next(iter(rounded.values())).float()
        rounding.note(f"{part}.{name}", wanted, got)
    return found, rounding


def diff_end(name: str) -> str:
    """`diff` for a weight, `diff_b` for a bias."""
    return "diff_b" if name.endswith(".bias") else "diff"


def stem(kind: str, part: str, name: str) -> str:
    """What the keys of one parameter of a base begin with."""
    module = name.rpartition(".")[0]
    if part == "unet":
        return kohya_name(module)
    full = text_name(f"{module}.weight").rpartition(".")[0]
    linear = ".layers." in full and "layer_norm" not in full
    return text_kohya_name(module) if linear else text_stem(kind) + full
