"""Tensors and header <-> one safetensors file in the keys that kohya's tools and stock loaders read.

An adapter is what every method makes; the other products of a training (`products.KINDS`) are written, read and applied alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, listing
from ..files import hash_file, whole
from . import peft_file
from .apply import apply_adapter
from .file_kind import describe, read_header
from .header import make_header
from .products import kind_of

__all__ = ["Adapter", "apply_adapter", "make_header", "read_adapter", "write_adapter"]

_NO_HASH = "#" * 64  # room for a hash that is known only when the tensors are written


@dataclass(frozen=True)
class Adapter:
    """A file's tensors in native keys, and its text header; a file made elsewhere has no `medtune.` entries."""

    tensors: dict[str, Tensor]
    header: dict[str, str]
    name: str = "adapter"
    path: Path | None = None

    def info(self) -> dict[str, Any]:
        """What an image set drawn with it writes down, as JSON values: its hash, and what the header says made it."""
        facts = {key.removeprefix("medtune."): _value(text) for key, text in self.header.items() if key.startswith("medtune.")}
        losses = self.path.with_name("losses.jsonl") if self.path else None
        digest = self.header.get("modelspec.hash_sha256") or (hash_file(self.path) if self.path else "")
        return {**facts, "file": self.name, "hash": digest, "losses": str(losses) if losses and losses.is_file() else None}

    @property
    def kind(self) -> str:
        """Which product it is: one of `products.KINDS`."""
        return kind_of(self.tensors, self.header) or "adapter"

    def config(self) -> dict[str, Any] | None:
        """The settings of the method that made it, or None where the file does not say."""
        return json.loads(self.header["medtune.config"]) if "medtune.config" in self.header else None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def write_adapter(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> Path:
    """Write an adapter file, whole or not at all; the hashes of its tensors are filled in.

    An adapter's `ss_network_module` follows from the keys. Raises ModelError for values that are not finite, and for no tensors.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if not tensors:
        raise ModelError(f"there is nothing to write to {path}: it has no tensors")
    broken = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{path} is not written: {len(broken)} of its {len(tensors)} tensors have NaN or infinite values: "
                         f"{listing(broken)}. Train with a lower learning rate, or in float32.")
    module = {"ss_network_module": _network_module(tensors)} if kind_of(tensors, header) == "adapter" else {}
    metadata = {**module, **header, "modelspec.hash_sha256": "0x" + _NO_HASH, "sshs_model_hash": _NO_HASH}
    with whole(path) as beside:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, beside, metadata=metadata)
        _fill_in_hashes(beside)
    return path


def _network_module(tensors: Mapping[str, Tensor]) -> str:
    return "networks.lora" if any(key.endswith(".lora_up.weight") for key in tensors) else "lycoris.kohya"


def _fill_in_hashes(path: Path) -> None:
    """Put the SHA-256 of the tensors' bytes where the header was given room for it."""
    digest = hashlib.sha256()
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        head = file.read(length)
        while block := file.read(1 << 20):
            digest.update(block)
        file.seek(8)
        file.write(head.replace(_NO_HASH.encode(), digest.hexdigest().encode()))


def read_adapter(path: str | Path) -> Adapter:
    """An adapter file, or another product. Raises Missing or ModelError that says what the file is when it is something else."""
    from safetensors import safe_open

    path = peft_file.tensors_file(Path(path))
    head = read_header(path)
    if kind_of(head.shapes, head.metadata) is None:
        raise ModelError(f"{path} is {describe(head.shapes) or 'not an adapter of a known kind'}, not an adapter. A whole model is "
                         "loaded as a base.")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in head.shapes}
    broken = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{path} has NaN or infinite values in {listing(broken)}. It was spoiled in training: train it again.")
    return Adapter(peft_file.native(tensors, head.metadata, path), head.metadata, path.name, path)
