"""A published pickle of weights -> one safetensors file that says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...files import hash_file, whole
from .inception import from_torchscript, is_torchscript
from .pickles import read_pickled

TENSORS = "tensors by name"


@dataclass(frozen=True)
class Converted:
    """What was written: how many tensors and numbers of which network, its hash, and the foreign names that were not followed."""

    what: str
    tensors: int
    numbers: int
    sha256: str
    foreign: list[str]


def convert(file: str | Path, out: str | Path) -> Converted:
    """Write the tensors of a pickled model or TorchScript archive as safetensors, whole or not at all.

    The header keeps the source's name and hash. Raises Missing and ModelError as ``read_pickled`` does.
    """
    from safetensors.torch import save_file

    tensors, foreign = read_pickled(file)
    what, tensors = recognise(tensors)
    header = {"format": "pt", "medtune.what": what, "medtune.source": Path(file).name, "medtune.source_sha256": hash_file(file)}
    with whole(out) as beside:
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, beside, metadata=header)
    return Converted(what, len(tensors), sum(value.numel() for value in tensors.values()), hash_file(out), foreign)


def recognise(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """What a model's tensors are, and the tensors by the names that its extractor reads."""
    if is_torchscript(tensors):
        return "clean-fid's Inception", from_torchscript(tensors)
    if "features.denseblock4.denselayer16.conv2.weight" in tensors and tensors["features.conv0.weight"].shape[1] == 1:
        return "torchxrayvision's DenseNet-121", dict(tensors)
    inner = {name.removeprefix("state_dict."): value for name, value in tensors.items() if name.startswith("state_dict.")}
    return TENSORS, inner or dict(tensors)  # of a training checkpoint the model alone
