"""What ComfyUI's stock LoRA loaders make of each layer of an adapter file, where that is not what the file says.

Checked against `comfy/lora.py` and `comfy/weight_adapter` of ComfyUI 0.3.64 and 0.33; LoraLoaderBypass is of 0.33 alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .adapter_keys import stock_reads, world_of

if TYPE_CHECKING:
    from .layers import Layer

STOCK, BYPASS = "LoraLoader", "LoraLoaderBypass"


def judge(layer: Layer, tensors: Mapping[str, Tensor]) -> None:
    """Note what the stock LoraLoader makes of a layer that is not what the file says; `tensors` are by the endings of their keys."""
    unread = [ending for ending in layer.keys if not stock_reads(layer.stem, ending)]
    if unread:
        layer.notes.add(f"{world_of(layer.stem)} names that it does not read")
    scale = tensors.get("dora_scale")
    if scale is not None and not _is_zero_lora(tensors) and (scale.ndim < 2 or scale.shape[0] > 1):
        layer.notes.add("DoRA along the outputs, which it divides by the norm of the base's weight")
    if layer.kind in ("OFT", "BOFT"):
        _judge_rotation(layer, tensors)
    if "set_weight" in tensors:
        layer.notes.add("replaced weights, whatever the strength")
    if "difference and LoRA" in layer.kind or "LoRA and difference" in layer.kind:
        layer.notes.add("a difference beside a LoRA, of which it takes the difference alone")


def _judge_rotation(layer: Layer, tensors: Mapping[str, Tensor]) -> None:
    alpha = tensors.get("alpha")
    if alpha is None and layer.kind == "BOFT":
        layer.notes.add("BOFT without alpha, which does nothing")
    elif alpha is not None and (alpha > 0).any():
        layer.notes.add("rotations whose norm it limits by alpha")
    if "rescale" in tensors and layer.kind == "OFT":
        layer.notes.add("a rescaling that it ignores")
    layer.notes.add("rotations, exact at strength 1 alone")


def _is_zero_lora(tensors: Mapping[str, Tensor]) -> bool:
    up = next((value for ending, value in tensors.items() if ending in ("lora_up.weight", "lora_B.weight")), None)
    return up is not None and not up.any()


def verdicts(layers: list[Layer]) -> dict[str, str]:
    """What each stock loader makes of the file."""
    stock = [layer.notes for layer in layers]
    bypass = [{note for note in layer.notes if "DoRA" not in note and "strength 1" not in note}
              | ({"dora_scale, which it ignores"} if "dora_scale" in layer.keys else set())
              | ({"rotations, on which it fails"} if layer.kind in ("OFT", "BOFT") else set()) for layer in layers]
    return {STOCK: _verdict(stock), BYPASS: _verdict(bypass)}


def _verdict(notes: list[set[str]]) -> str:
    if not notes:
        return "reads nothing of it"
    counted = Counter(note for one in notes for note in one)
    minor = all("strength" in note for note in counted)
    told = "; ".join(f"{note} ({count} of {len(notes)} layers)" for note, count in sorted(counted.items()))
    return "exact" if not counted else f"exact but for the strength: {told}" if minor else f"not exact: {told}"
