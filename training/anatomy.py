"""What a weights file is, in a page: kind, layers, base, settings, size of the change per block, and which loaders are exact for it.

Tensors are looked at one by one and memory-mapped; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .file_kind import ADAPTER, Header, describe, opened, read_header
from .keys import UNET_PREFIX
from .layers import Layer, blocks, group, measure, place, role
from .layout import VAE_PREFIX
from .loaders import judge, verdicts
from .outline import KINDS, find_kind, input_channels, outline
from .peft_file import tensors_file
from .source import V_SIGN


@dataclass(frozen=True)
class Anatomy:
    """What a file is.

    `kind` in words; `layers`, `targets`, `ranks` and `alphas` count layers; `blocks` are (block, layers, norm of the change or None);
    `loaders` maps each stock loader to `exact`, or to what is not; `unknown` are keys that no loader reads; `problems` spoil the file.
    """

    file: str
    bytes: int
    kind: str
    tensors: int
    values: int
    types: dict[str, int]
    base: dict[str, Any]
    layers: dict[str, int] = field(default_factory=dict)
    targets: dict[str, int] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, int] = field(default_factory=dict)
    blocks: list[tuple[str, int, float | None]] = field(default_factory=list)
    loaders: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def examine(path: str | Path) -> Anatomy:
    """The anatomy of an adapter (a file, or a folder of peft), embedding, VAE or checkpoint.

    Raises Missing or ModelError that says what the file is instead.
    """
    path = tensors_file(Path(path))
    head = read_header(path)
    what = describe(head.shapes)
    facts = {"file": str(path), "bytes": path.stat().st_size, "tensors": len(head.shapes), "values": _count(head.shapes.values()),
             "types": dict(Counter(head.types.values())), "settings": settings(head.metadata)}
    with opened(path) as file:
        problems = list(_broken(file, head))
        if what == ADAPTER:
            return _adapter(file, head, facts, problems)
        other = {"textual inversion embeddings": _embedding, "an autoencoder (VAE) alone": _vae}.get(what or "", _model)
        kind, base, parts = other(file, head, what)
    return Anatomy(kind=kind, base=base, parts=parts, problems=problems, **facts)


def _count(shapes: Any) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def _broken(file: Any, head: Header) -> Iterator[str]:
    """A sentence on values that are not finite."""
    names = [name for name in head.shapes if (value := file.get_tensor(name)).is_floating_point() and not _finite(value)]
    if names:
        yield f"NaN or infinite values in {len(names)} of {len(head.shapes)} tensors: {', '.join(names[:5])}"


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value if value.element_size() > 1 else value.float()).all())


def settings(header: Mapping[str, str]) -> dict[str, Any]:
    """The header's entries with JSON texts read; a picture is only mentioned."""
    found: dict[str, Any] = {}
    for key in sorted(header):
        text = header[key]
        if text.startswith("data:image/"):
            found[key] = f"a picture ({len(text):,} characters)"
            continue
        try:
            found[key] = json.loads(text) if text[:1] in "{[" else text
        except (ValueError, RecursionError):
            found[key] = text
    return found


def _adapter(file: Any, head: Header, facts: dict[str, Any], problems: list[str]) -> Anatomy:
    layers, unknown = group(head)
    kind = find_kind(head.shapes, head.metadata)
    if kind:
        base = outline(kind, input_channels(head.shapes))
        place(layers, base)
        measure([layer for layer in layers if layer.module], file, head, Path(facts["file"]), base)
        unknown += [key for layer in layers if not layer.module for key in layer.keys.values()]
    for layer in layers:
        judge(layer, {ending: file.get_tensor(key) for ending, key in layer.keys.items()})
    kinds = Counter(layer.kind for layer in layers)
    return Anatomy(
        kind=", ".join(name for name, _ in kinds.most_common()) or "an adapter without a layer that is known",
        base=_base(kind, head), layers=dict(kinds), targets=_counted(role(layer) for layer in layers if layer.module),
        ranks=_counted(str(layer.rank) for layer in layers if layer.rank), alphas=_alphas(file, layers),
        blocks=blocks(layers), loaders=verdicts(layers), unknown=sorted(unknown), problems=problems, **facts)


def _base(kind: str | None, head: Header) -> dict[str, Any]:
    """What is known of the base that an adapter was made for."""
    header = head.metadata
    found = {"kind": kind, "title": KINDS.get(kind or "", "not one that is known here"),
             "name": header.get("medtune.base") or header.get("ss_sd_model_name"),
             "hash": header.get("medtune.base_hash") or header.get("ss_new_sd_model_hash"),
             "prediction": header.get("modelspec.prediction_type")}
    if kind and input_channels(head.shapes) == 9:
        found["title"] += " for inpainting"
    return {key: value for key, value in found.items() if value}


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _alphas(file: Any, layers: list[Layer]) -> dict[str, int]:
    values = (file.get_tensor(layer.keys["alpha"]) for layer in layers if "alpha" in layer.keys)
    return _counted(f"{value.item():g}" for value in values if value.numel() == 1)


def _embedding(file: Any, head: Header, what: str | None) -> tuple[str, dict[str, Any], dict[str, int]]:
    """Kind, base and vectors of each text encoder of a textual inversion."""
    widths = {shape[-1] for shape in head.shapes.values() if shape}
    kind = {frozenset({768}): "sd1", frozenset({1024}): "sd2", frozenset({64}): "embedded"}.get(frozenset(widths))
    vectors = {name: shape[0] if len(shape) > 1 else 1 for name, shape in head.shapes.items()}
    return "textual inversion", {"kind": kind, "title": KINDS[kind]} if kind else {}, vectors


def _vae(file: Any, head: Header, what: str | None) -> tuple[str, dict[str, Any], dict[str, int]]:
    """Kind of autoencoder, and the values of its two sides."""
    names = [name.removeprefix(VAE_PREFIX) for name in head.shapes]
    tiny = any(name.startswith("taesd_") for name in names)
    sides = Counter()
    for name, shape in head.shapes.items():
        sides["decoder" if "decoder" in name or "post_quant" in name else "encoder"] += torch.Size(shape).numel()
    return f"autoencoder (VAE) of {'TAESD' if tiny else 'LDM'} layout", {}, dict(sides)


def _model(file: Any, head: Header, what: str | None) -> tuple[str, dict[str, Any], dict[str, int]]:
    """Kind of checkpoint, what its U-Net takes and predicts, and the values of its parts."""
    parts = Counter()
    for name, shape in head.shapes.items():
        part = next((part for part, start in (("unet", UNET_PREFIX), ("text encoder", "cond_stage_model."), ("vae", VAE_PREFIX))
                     if name.startswith(start)), "other")
        parts[part] += torch.Size(shape).numel()
    base: dict[str, Any] = {}
    context = head.shapes.get(UNET_PREFIX + "middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    if what == "a Stable Diffusion checkpoint" and context and (kind := {768: "sd1", 1024: "sd2", 64: "embedded"}.get(context[1])):
        base = {"kind": kind, "title": KINDS[kind], "channels": head.shapes.get(UNET_PREFIX + "input_blocks.0.0.weight", (0, 0))[1],
                "prediction": head.metadata.get("modelspec.prediction_type")}
        if kind == "sd2" and UNET_PREFIX + V_SIGN in head.shapes:
            spread = file.get_tensor(UNET_PREFIX + V_SIGN).float().std(unbiased=False).item()
            base["guessed by ComfyUI"] = "v" if spread > 0.09 and base["channels"] == 4 else "epsilon"
    return what or "no weights file of a known kind", {key: value for key, value in base.items() if value}, dict(parts)
