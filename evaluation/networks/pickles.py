"""Tensors out of pickled models and TorchScript archives, without importing or running anything that they name.

Whatever class or function a pickle refers to is replaced by an inert object that only keeps what it was given; tensors are built
here from the bytes of the file. So the tree of a module can be walked for its tensors, and nothing else of it is ever used. Read
are the zip archives of ``torch.save`` and ``torch.jit.save``, and the stream that ``torch.save`` wrote before torch 1.6.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ...errors import ModelError
from .weights import check_file

_TYPES = {"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16, "LongStorage": torch.int64,
          "IntStorage": torch.int32, "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
          "BoolStorage": torch.bool, "BFloat16Storage": torch.bfloat16}
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save's former stream
_KNOWN = ("torch", "torchvision", "torchxrayvision", "timm", "collections", "__torch__")  # packages that models are made of
_PARTS = ("_parameters", "_buffers", "_modules")


class Inert:
    """Stands for an object of a class that was not imported: its state, and nothing it could do."""

    state: dict[str, Any]

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        made = super().__new__(cls)
        made.state = {}
        return made

    def __init__(self, *arguments: Any, **_: Any):
        """Arguments are of no use: nothing is made of them."""

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)  # (dict, slots) where a class has both
        for part in parts:
            if isinstance(part, Mapping):
                self.state.update(part)

    def __setitem__(self, name: Any, value: Any) -> None:
        self.state[name] = value

    def append(self, value: Any) -> None:
        """Lists of foreign classes are of no use here."""

    extend = append


def read_pickled(path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a pickled model or TorchScript archive by name, and the foreign names in it that were not followed.

    Raises Missing, and ModelError for a file that is no such thing or is cut short.
    """
    path = Path(path)
    if check_file(path) != "pickle":
        raise ModelError(f"{path} is no pickle but a safetensors file, which needs no conversion.")
    foreign: set[str] = set()
    try:
        root = _read_zip(path, foreign) if zipfile.is_zipfile(path) else _read_stream(path, foreign)
    except Exception as error:  # what a torn pickle raises has no bounds
        raise ModelError(f"{path} is truncated, damaged, or no file of torch.save: {error!r}. Fetch it again.") from error
    tensors = dict(_tensors(root, "", set()))
    if not tensors:
        raise ModelError(f"{path} holds no tensors by name.")
    return tensors, sorted(foreign)


class _Reader(pickle.Unpickler):
    """Builds tensors, dictionaries and inert objects, and nothing else."""

    def __init__(self, file: BinaryIO, storages: _Storages, foreign: set[str]):
        super().__init__(file, encoding="utf-8")
        self.storages, self.foreign = storages, foreign

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _BUILDERS:
            return _BUILDERS[module, name]
        if module in ("torch", "torch.cuda") and name in _TYPES:
            return _TYPES[name]
        if module.partition(".")[0] not in _KNOWN:
            self.foreign.add(f"{module}.{name}")
        return type(name, (Inert,), {})

    def persistent_load(self, saved: tuple) -> Any:
        return self.storages.load(saved) if saved[0] == "storage" else saved[1]  # ("module", class, file, source)


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _empty_of(kind: type, *_: Any) -> Any:
    return kind() if kind in (dict, list, set) else kind.__new__(kind) if not issubclass(kind, Inert) else kind()


_BUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("builtins", "set"): set, ("__builtin__", "set"): set,
    ("copyreg", "_reconstructor"): _empty_of, ("copy_reg", "_reconstructor"): _empty_of,
}
for _name in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist"):
    _BUILDERS["torch.jit._pickle", _name] = list
_BUILDERS["torch.jit._pickle", "restore_type_tag"] = lambda value, _: value


class _Storages:
    """The storages of a file, as flat tensors by key: read at once from a zip archive, filled later in the former stream."""

    def __init__(self, archive: zipfile.ZipFile | None = None, folder: str = ""):
        self.archive, self.folder = archive, folder
        self.known: dict[str, Tensor] = {}

    def load(self, saved: tuple) -> Tensor:
        """The storage of a persistent id ("storage", type, key, location, count, view)."""
        kind, key, count = saved[1], str(saved[2]), int(saved[4])
        if key not in self.known:
            self.known[key] = torch.empty(count, dtype=kind) if self.archive is None else self._read(kind, key, count)
        view = saved[5] if len(saved) > 5 else None
        return self.known[key] if view is None else self.known[key][view[1]:view[1] + view[2]]

    def _read(self, kind: torch.dtype, key: str, count: int) -> Tensor:
        data = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
        return torch.frombuffer(data, dtype=kind, count=count) if count else torch.empty(0, dtype=kind)


def _read_zip(path: Path, foreign: set[str]) -> Any:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = name.rpartition("/")[0]
        if f"{folder}/byteorder" in archive.namelist() and archive.read(f"{folder}/byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        return _Reader(io.BytesIO(archive.read(name)), _Storages(archive, folder), foreign).load()


def _read_stream(path: Path, foreign: set[str]) -> Any:
    """The former stream: magic number, protocol, machine, object, keys, and then each storage's count and bytes."""
    storages = _Storages()
    with open(path, "rb") as file:
        if _Reader(file, storages, foreign).load() != _MAGIC:
            raise ValueError("it does not begin with torch's mark")
        for _ in range(2):
            _Reader(file, storages, foreign).load()
        root = _Reader(file, storages, foreign).load()
        for key in _Reader(file, storages, foreign).load():
            storage = storages.known[str(key)]
            count = int.from_bytes(file.read(8), "little")
            data = file.read(count * storage.element_size())
            if count != len(storage) or len(data) != count * storage.element_size():
                raise EOFError(f"storage {key} is cut short")
            storage.copy_(torch.frombuffer(bytearray(data), dtype=storage.dtype) if count else storage)
    return root


def _tensors(node: Any, prefix: str, above: set[int]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of all that hang on a tree of modules, named as a state dict names them."""
    if isinstance(node, Tensor):
        yield prefix.removesuffix("."), node
    if isinstance(node, Tensor) or id(node) in above:
        return
    branches = node.state if isinstance(node, Inert) else node if isinstance(node, Mapping) else {}
    if isinstance(node, Inert) and "_modules" in branches:
        branches = {name: value for part in _PARTS for name, value in (branches.get(part) or {}).items()}
    for name, value in branches.items():
        yield from _tensors(value, f"{prefix}{name}.", above | {id(node)})
