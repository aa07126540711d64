"""Adapters added up with weights: LoRAs exactly, by laying their ranks side by side; all else as whole differences.

For LoRAs B1 A1 and B2 A2 of one layer, w1 B1 A1 + w2 B2 A2 = [w1 B1, w2 B2] [A1; A2].
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError, ModelError
from .adapter import Adapter, write_adapter
from .base import Base, load_base
from .deltas import Deltas, Place
from .kohya_keys import diff_end, stem
from .outline import KINDS, find_kind, input_channels, outline

_OF_THE_BASE = ("modelspec.sai_model_spec", "modelspec.architecture", "modelspec.prediction_type", "modelspec.resolution",
                "modelspec.implementation", "ss_base_model_version", "ss_v2", "ss_sd_model_name", "ss_sd_model_hash",
                "ss_new_sd_model_hash", "medtune.base", "medtune.base_hash", "medtune.notice")


@dataclass(frozen=True)
class Merged:
    """What was written: how many layers stayed low-rank and how many became whole differences, and what a user should know."""

    path: Path
    low_rank: int
    whole: int
    notices: list[str] = field(default_factory=list)


def merge(adapters: Sequence[Adapter], weights: Sequence[float], path: str | Path, base_ref: str | None = None, *,
          force: bool = False) -> Merged:
    """Write the sum of adapters, each times its weight.

    `base_ref` is needed only where the files do not tell their kind of base, or hold changes that depend on its weights.

    Raises:
        ConfigError: fewer than two adapters, as many weights as there are not adapters, or a weight that is not finite.
        ModelError: adapters of different bases, unless `force` says that this is known; keys that do not fit.
    """
    check_weights(adapters, weights)
    notices = check_bases(adapters, force)
    base = load_base(base_ref, device="meta") if base_ref else _outline(adapters)
    if base_ref:
        notices += [f"{adapter.name} was trained on another base than {base.ref}" for adapter in adapters
                    if adapter.header.get("medtune.base_hash", base.hash) != base.hash]
    terms: dict[Place, list[tuple[float, Deltas]]] = {}
    for adapter, weight in zip(adapters, weights):
        deltas = Deltas(base, adapter)
        for place in deltas.changes:
            terms.setdefault(place, []).append((weight, deltas))
    found: dict[str, Tensor] = {}
    low_rank = 0
    for (part, name), own in terms.items():
        summed = add_low_rank((part, name), own)
        low_rank += summed is not None
        summed = summed or {diff_end(name): sum(weight * deltas.amount((part, name)) for weight, deltas in own)}
        found |= {f"{stem(base.kind, part, name)}.{end}": value.contiguous() for end, value in summed.items()}
    write_adapter(path, found, merged_header(adapters, weights, Path(path).stem))
    return Merged(Path(path), low_rank, len(terms) - low_rank, notices)


def check_weights(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    """Raise ConfigError unless there are at least two adapters and a finite weight for each."""
    if len(adapters) < 2:
        raise ConfigError(f"there is {len(adapters)} adapter to merge; give at least two")
    if len(weights) != len(adapters):
        raise ConfigError(f"there are {len(weights)} weights for {len(adapters)} adapters; give one for each")
    for weight in weights:
        if not math.isfinite(weight):
            raise ConfigError(f"a weight is {weight}; it must be a finite number")
    for adapter in adapters:
        if adapter.kind != "adapter":
            raise ConfigError(f"{adapter.name} is no adapter (it is a product of kind {adapter.kind!r}); adapters alone can be merged")


def check_bases(adapters: Sequence[Adapter], force: bool) -> list[str]:
    """Notices on the adapters' bases. Raises ModelError where they differ, unless forced."""
    said = [(adapter.name, adapter.header.get("medtune.base_hash") or adapter.header.get("ss_new_sd_model_hash"), _base_name(adapter))
            for adapter in adapters]
    notices = [f"{name} does not say which base it was trained on" for name, digest, _ in said if not digest]
    if len({digest for _, digest, _ in said if digest}) > 1:
        told = "; ".join(f"{name} on {base} (SHA-256 {digest[:12]})" for name, digest, base in said if digest)
        if not force:
            raise ModelError(f"these adapters were trained on different bases: {told}. What each adds makes sense on its own base. "
                             "Train them on one base, or merge them all the same with --force.")
        notices.insert(0, f"FORCED: adapters of different bases were merged: {told}. The sum is that of no training on any of them.")
    return notices


def _base_name(adapter: Adapter) -> str:
    return adapter.header.get("medtune.base") or adapter.header.get("ss_sd_model_name") or "a base without a name"


def _outline(adapters: Sequence[Adapter]) -> Base:
    """The names and shapes of the base that all of the adapters are for."""
    shapes = [{key: tuple(value.shape) for key, value in adapter.tensors.items()} for adapter in adapters]
    told = [(adapter.name, find_kind(own, adapter.header)) for adapter, own in zip(adapters, shapes)]
    kinds = sorted({kind for _, kind in told if kind})
    if not kinds:
        raise ModelError(f"{told[0][0]} does not tell which base it is for; known are {', '.join(KINDS.values())}. Name its base.")
    if len(kinds) > 1:
        raise ModelError("these adapters are for different kinds of base, whose layers differ: "
                         + ", ".join(f"{name} for {kind}" for name, kind in told) + ". They cannot be added.")
    return outline(kinds[0], max(map(input_channels, shapes)))


def add_low_rank(place: Place, terms: Sequence[tuple[float, Deltas]]) -> dict[str, Tensor] | None:
    """The sum of low-rank changes as one, exactly; None where one is not low-rank, or where a whole difference is no larger."""
    if not all(deltas.is_low_rank(place) for _, deltas in terms):
        return None
    ups, downs = [], []
    for weight, deltas in terms:
        tensors = deltas.changes[place].tensors
        down = tensors["lora_down.weight"].float()
        scale = tensors["alpha"].item() / down.shape[0] if "alpha" in tensors else 1.0
        ups.append(tensors["lora_up.weight"].float() * (weight * scale))
        downs.append(down)
    up, down = torch.cat(ups, dim=1), torch.cat(downs)
    if up.numel() + down.numel() >= up.shape[0] * down[0].numel():
        return None
    return {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(float(down.shape[0]))}


def merged_header(adapters: Sequence[Adapter], weights: Sequence[float], title: str) -> dict[str, str]:
    """The header of the sum: the first adapter's word on the base, and what was added."""
    told = next((adapter.header for adapter in adapters if "medtune.base_hash" in adapter.header), adapters[0].header)
    made_of = [{"file": adapter.name, "hash": adapter.info()["hash"], "method": adapter.header.get("medtune.method"), "weight": weight}
               for adapter, weight in zip(adapters, weights)]
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    named = " + ".join(f"{weight:g} x {adapter.name}" for adapter, weight in zip(adapters, weights))
    return {**{key: told[key] for key in _OF_THE_BASE if key in told}, "modelspec.title": title, "modelspec.date": now,
            "modelspec.description": f"{named}; merged by MedTune", "ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic",
            "medtune.format": "1", "medtune.merged": json.dumps(made_of)}
