"""Local files of weights: where they are looked for, what they are by their first bytes, how they are read without running them.

Nothing is ever downloaded. A standard place lies in the weights folder: ``$MEDTUNE_WEIGHTS``, else ``weights`` in the cache folder.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...config import option
from ...errors import Missing, ModelError, listing
from ...files import cache_folder, hash_file, hash_json

_FETCH_AGAIN = "Fetch it again, and compare its size with the source's."
_CONVERT = ("It is not opened here, as pickles can run programs: convert it once with `medtune convert-weights {path} {out}`, which "
            "takes the tensors alone, and give that file.")
_LONGEST_HEADER = 100_000_000
_NESTS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
_COUNTERS = "num_batches_tracked"  # of batch norms: no use in evaluation, and older files lack them


def weights_option(what: str = "File"):
    """The option of a config that says where weights are; ``what`` they are: a file, a folder."""
    return option("", f"{what} of weights, as a path or below the weights folder; empty for the standard place.", weights=True)


def weights_folder() -> Path:
    """Where weights are looked for that no option names: ``$MEDTUNE_WEIGHTS``, else ``weights`` in the cache folder."""
    chosen = os.environ.get("MEDTUNE_WEIGHTS")
    return Path(chosen).expanduser() if chosen else cache_folder() / "weights"


@dataclass(frozen=True)
class Place:
    """Where the weights of one extractor belong: files or folders below the weights folder, in the order in which they are tried.

    ``source`` says where to get them and what to do with them; ``packages`` are the modules that must be installed, by distribution.
    """

    names: tuple[str, ...]
    source: str
    packages: tuple[tuple[str, str], ...] = ()

    def find(self, chosen: str = "") -> Path:
        """The file or folder that ``chosen`` names, as a path or below the weights folder, or the standard one.

        Raises Missing with where to get it and where to put it.
        """
        if lacking := self.lacking():
            raise Missing(lacking)
        if chosen.strip():
            return self._chosen(Path(chosen.strip()).expanduser())
        found = next((path for path in self._paths() if path.exists()), None)
        if found is None:
            raise Missing(self._remedy())
        return found

    def missing(self) -> str | None:
        """What has to be installed, fetched and put where; None when all is there."""
        return self.lacking() or (None if any(path.exists() for path in self._paths()) else self._remedy())

    def lacking(self) -> str | None:
        """The packages that are not installed, with the command for it, or None."""
        found = [distribution for module, distribution in self.packages if find_spec(module) is None]
        return f"not installed: {', '.join(found)}. Run `pip install {' '.join(found)}`." if found else None

    def _chosen(self, path: Path) -> Path:
        for candidate in (path, weights_folder() / path):
            if candidate.exists():
                return candidate
        raise Missing(f"there are no weights at {path}{'' if path.is_absolute() else f', nor below {weights_folder()}'}. "
                      f"{self.source}")

    def _paths(self) -> list[Path]:
        return [weights_folder() / name for name in self.names]

    def _remedy(self) -> str:
        return (f"no weights: put {' or '.join(self.names)} into {weights_folder()} (or set MEDTUNE_WEIGHTS to another folder, or "
                f"give the path by the option weights). {self.source}")


def hash_weights(path: str | Path) -> str:
    """SHA-256 of a file; of a folder, of the names and contents of the files in it that a model is read from."""
    path = Path(path)
    if path.is_file():
        return hash_file(path)
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in (".json", ".safetensors", ".bin", ".txt"))
    return hash_json({file.name: hash_file(file) for file in files})


def check_file(path: str | Path) -> str:
    """ "safetensors" or "pickle", by the first bytes of a file, whose length fits what it says of itself.

    Raises Missing, and ModelError for what is empty, cut short, a web page, a Git LFS pointer or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise Missing(f"there is no file {path}. Give the path of a file of weights.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(512)
    if not size:
        raise ModelError(f"{path} is empty (0 bytes). {_FETCH_AGAIN}")
    if start[8:9] == b"{":
        return _check_length(path, int.from_bytes(start[:8], "little"), size)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "pickle"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer, not the weights themselves. Run 'git lfs pull' where it came from.")
    if text.startswith(b"<"):
        raise ModelError(f"{path} is a web page (HTML or XML), not weights: the download gave an error or a login page. "
                         f"{_FETCH_AGAIN}")
    raise ModelError(f"{path} holds no weights: it begins with {start[:8]!r}, neither safetensors nor a file of torch.save. "
                     f"{_FETCH_AGAIN}")


def _check_length(path: Path, header: int, size: int) -> str:
    if header > _LONGEST_HEADER or header + 8 > size:
        raise ModelError(f"{path} is truncated or damaged: {size:,} bytes, of which the header alone needs {header + 8:,}. "
                         f"{_FETCH_AGAIN}")
    return "safetensors"


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name, on the CPU, those of a training checkpoint's model alone.

    Raises Missing, or ModelError that says what the file is instead; pickles are read as tensors alone (``weights_only``), or refused.
    """
    path = Path(path)
    found = _read_safetensors(path) if check_file(path) == "safetensors" else _read_pickle(path)
    while nest := next((name for name in _NESTS if isinstance(found.get(name), Mapping)), None):
        found = dict(found[nest])
    tensors = {name.removeprefix("module."): value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{path} holds no tensors by name, but {listing(found) or 'nothing'}. Give a file of a model's weights.")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is truncated or damaged: {error}. {_FETCH_AGAIN}") from error


def _read_pickle(path: Path) -> dict[str, Any]:
    if _is_torchscript(path):
        raise ModelError(f"{path} is a TorchScript archive, a program with its weights. {_converted(path)}")
    with _refused(path):
        found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise ModelError(f"{path} holds {type(found).__name__}, not tensors by name. {_converted(path)}")
    return dict(found)


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What torch says of a pickle that it does not open, as a ModelError with the way out."""
    try:
        yield
    except Exception as error:  # what a torn pickle makes torch say has no bounds
        text = str(error)
        if any(word in text for word in ("Weights only", "weights_only", "Unsupported")):
            raise ModelError(f"{path} is a pickle of more than tensors, such as a whole model. {_converted(path)}") from error
        raise ModelError(f"{path} is truncated or damaged: {text.splitlines()[0] if text else type(error).__name__}. "
                         f"{_FETCH_AGAIN}") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _converted(path: Path) -> str:
    return _CONVERT.format(path=path, out=path.with_suffix(".safetensors").name)


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, what: str, unused: Sequence[str] = ()) -> nn.Module:
    """The model with these tensors, every one of them: ready for evaluation, without gradients.

    ``what`` names the architecture; tensors whose names begin with one of ``unused`` may be there or not. ModelError names what is
    missing, what belongs to something else and what is of another shape.
    """
    wanted = model.state_dict()
    refuse_mismatch(path, what, **differences(tensors, wanted, unused))
    model.load_state_dict({name: value for name, value in tensors.items() if name in wanted}, strict=False)
    return model.eval().requires_grad_(False)


def differences(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], unused: Sequence[str] = ()) -> dict[str, list[str]]:
    """What ``refuse_mismatch`` takes: the names that are missing, unexpected or of another shape, batch norms' counters aside."""
    spare = {name for name in {*wanted, *tensors} if name.endswith(_COUNTERS) or name.startswith(tuple(unused))}
    return {"missing": [name for name in wanted if name not in tensors and name not in spare],
            "unexpected": [name for name in tensors if name not in wanted and name not in spare],
            "reshaped": [f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}" for name, value in wanted.items()
                         if name in tensors and tensors[name].shape != value.shape]}


def refuse_mismatch(path: str | Path, what: str, *, missing: Collection[str] = (), unexpected: Collection[str] = (),
                    reshaped: Collection[str] = ()) -> None:
    """ModelError when a file's tensors are not those of an architecture: how many, and the first of them by name."""
    said = [f"{len(names)} {kind} ({listing(names, 3)})" for names, kind in
            ((missing, "tensors are missing"), (unexpected, "belong to something else"), (reshaped, "are of another shape")) if names]
    if said:
        raise ModelError(f"{path} is not the weights of {what}: {'; '.join(said)}. Give the file that belongs to it.")
