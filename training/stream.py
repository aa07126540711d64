"""A safetensors file written tensor by tensor: of a whole model, no more than one tensor is in memory at a time.

The layout is that of https://github.com/huggingface/safetensors: the header's length, its JSON, the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelError
from ..files import whole

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
          torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def write_stream(path: str | Path, entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], make: Callable[[str], Tensor],
                 metadata: Mapping[str, str]) -> Path:
    """Write the tensors that `make(name)` gives, one after the other; whole or not at all.

    `entries` say the type and shape of each beforehand. Raises ModelError for a tensor that is otherwise, or not finite.
    """
    path = Path(path)
    order = sorted(entries, key=lambda name: (-entries[name][0].itemsize, name))  # large types first, so that each is aligned
    with whole(path) as beside, open(beside, "wb") as file:
        file.write(_header(order, entries, metadata))
        for name in order:
            value = make(name)
            if (value.dtype, tuple(value.shape)) != (entries[name][0], tuple(entries[name][1])):
                raise ModelError(f"{path} is not written: {name} is {value.dtype} {tuple(value.shape)}, not {entries[name]}")
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ModelError(f"{path} is not written: {name} has NaN or infinite values as {_NAMES[value.dtype]}. Choose a type "
                                 "of larger range (bfloat16, float32), or train with a lower learning rate.")
            file.write(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return path


def _header(order: list[str], entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    head: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name in order:
        dtype, shape = entries[name]
        end = begin + torch.Size(shape).numel() * dtype.itemsize
        head[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
