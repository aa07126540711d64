"""The layers of an adapter file: where each belongs in a base, and how much it changes there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Missing, ModelError
from . import adapter_keys, peft_file
from .adapter import Adapter
from .deltas import Deltas
from .file_kind import Header
from .outline import stems

if TYPE_CHECKING:
    from .base import Base

_RANKED = ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "_lora.down.weight", "hada_w1_b",
           "lokr_w2_b", "lokr_w1_b")


@dataclass
class Layer:
    """One layer of an adapter: the keys by their endings, the kind of change, and where it belongs where that is known."""

    stem: str
    keys: dict[str, str]
    kind: str = ""
    part: str = ""
    module: str = ""
    norm: float | None = None
    rank: int | None = None
    notes: set[str] = field(default_factory=set)


def group(head: Header) -> tuple[list[Layer], list[str]]:
    """The layers of an adapter file, and the keys that belong to none."""
    found: dict[str, Layer] = {}
    unknown = []
    for key in head.shapes:
        parts = adapter_keys.split(key)
        if parts is None:
            unknown.append(key)
        else:
            found.setdefault(parts[0], Layer(parts[0], {})).keys[parts[1]] = key
    for layer in found.values():
        blocks = layer.keys.get("oft_blocks")
        layer.kind = adapter_keys.kind_of(layer.keys, len(head.shapes[blocks]) if blocks else 0)
        down = next((key for ending, key in layer.keys.items() if ending in _RANKED), None)
        layer.rank = head.shapes[down][0] if down else None
    return list(found.values()), unknown


def place(layers: list[Layer], base: Base) -> None:
    """Give each layer its part and module in an outline of its base."""
    known = stems(base.kind)
    modules = {module: ("unet", module) for module, _ in base.unet.named_modules()}
    modules |= {text: ("text_encoder", module) for module, _ in base.text_encoder.named_modules()
                for text in (module, f"text_model.{module}")}
    for layer in layers:
        if layer.stem.startswith(peft_file.PREFIX):
            layer.part, layer.module = modules.get(layer.stem.removeprefix(peft_file.PREFIX), ("", ""))
        else:
            layer.part, layer.module = known.get(layer.stem, ("", ""))
        if not layer.module:
            layer.notes.add("names of no layer of its base")


def measure(layers: list[Layer], file: Any, head: Header, path: Path, base: Base) -> None:
    """Norm of what each layer adds; a note on a layer that does not fit."""

    def found(some: list[Layer]) -> dict[tuple[str, str], float]:
        tensors = {key: file.get_tensor(key) for layer in some for key in layer.keys.values()}
        deltas = Deltas(base, Adapter(peft_file.native(tensors, head.metadata, path), {}, path.name))
        return {place: _square(deltas, place) for place in deltas.changes}

    squares: dict[tuple[str, str], float] = {}
    try:
        squares = found(layers)
    except (ModelError, Missing, RuntimeError):  # at least one does not fit: find out which
        for layer in layers:
            try:
                squares |= found([layer])
            except Missing:
                pass  # peft's settings, without which nothing is known of how much it changes
            except (ModelError, RuntimeError):
                layer.notes.add("a shape, values or a mix of keys that cannot be used")
    for layer in layers:
        names = [(layer.part, f"{layer.module}.{end}") for end in ("weight", "bias")]
        own = [squares[name] for name in names if name in squares]
        layer.norm = sum(own) ** 0.5 if own and math.isfinite(sum(own)) else None


def _square(deltas: Deltas, place: tuple[str, str]) -> float:
    """Square of the norm of one change; not a number where that depends on the base's weights."""
    try:
        return deltas.amount(place).square().sum().item()
    except ModelError:
        return math.nan


def role(layer: Layer) -> str:
    """What a layer does in the network, in words."""
    path, last = f".{layer.module}.", layer.module.rpartition(".")[2]
    if layer.part == "text_encoder":
        return "text encoder: " + ("attention" if ".self_attn." in path else "feed-forward" if ".mlp." in path else
                                   "norms" if "norm" in last else "embeddings")
    if "norm" in last:
        return "norms"
    for sign, role in ((".attn1.", "self-attention"), (".attn2.", "cross-attention"), (".ff.", "feed-forward"),
                       (".proj_in.", "projections"), (".proj_out.", "projections"), (".time_emb", "time embedding")):
        if sign in path:
            return role
    return "convolutions"


def blocks(layers: list[Layer]) -> list[tuple[str, int, float | None]]:
    """(block, layers, norm of the change) in the order of the networks."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.module:
            found.setdefault(_block(layer), []).append(layer)
    rows = []
    for block, held in sorted(found.items(), key=lambda entry: _order(entry[0])):
        norms = [layer.norm for layer in held]
        rows.append((block, len(held), None if None in norms else sum(norm**2 for norm in norms if norm is not None) ** 0.5))
    return rows


def _block(layer: Layer) -> str:
    words = layer.module.split(".")
    if layer.part == "text_encoder" and "layers" in words:
        return f"text layer {words[words.index('layers') + 1]}"
    if layer.part == "text_encoder":
        return "text embeddings" if "embeddings" in words else f"text {words[-1]}"
    return ".".join(words[:2]) if words[0] in ("down_blocks", "up_blocks") else words[0]


_FLOW = ("conv_in", "time_embedding", "down_blocks", "mid_block", "up_blocks", "conv_norm_out", "conv_out")


def _order(block: str) -> tuple:
    head, _, number = block.partition(".") if not block.startswith("text layer") else ("text", "", block.rpartition(" ")[2])
    return (_FLOW.index(head) if head in _FLOW else len(_FLOW), int(number) if number.isdigit() else -1, block)
