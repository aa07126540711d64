"""Latents and text states, made once before training: a step never runs the autoencoder or a frozen text encoder.

In memory, or on disk as one safetensors file an entry, keyed by the image's hash (or the caption), the hash of the weights that
encode it, the size and the treatment. An entry appears whole or not at all; one that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.image import hash_image, read_image
from ..data.problems import Problems
from ..data.record import Record
from ..errors import DataError, MedTuneError, ModelError
from ..files import hash_json, whole
from .images import check_shapes
from .sampler import SCALE

if TYPE_CHECKING:
    from .base import Base

FORMAT = 1  # part of each key: raise it when what an entry holds changes
Progress = Callable[[int, int], None]


class Store(Protocol):
    """Tensors by key."""

    def read(self, key: str) -> dict[str, Tensor] | None: ...

    def write(self, key: str, tensors: dict[str, Tensor]) -> None: ...


class MemoryStore(dict):
    """Entries in memory, for one run."""

    read = dict.get
    write = dict.__setitem__


class DiskStore:
    """Entries as files in a folder, for this run and later ones."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """The entry's file."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The entry, or None when it is not there or damaged."""
        try:
            with safe_open(self.path(key), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
                return tensors if (file.metadata() or {}).get("crc32") == _checksum(tensors) else None
        except (FileNotFoundError, SafetensorError):
            return None

    def write(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep the entry. Raises MedTuneError when there is no room."""
        with whole(self.path(key)) as beside:
            try:
                save_file(tensors, beside, metadata={"crc32": _checksum(tensors)})
            except SafetensorError as error:
                raise MedTuneError(f"cannot write to the cache {self.folder}: {error}. Free some space, set MEDTUNE_CACHE to "
                                   "another folder, or keep the cache in memory") from error


def _checksum(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].contiguous().numpy().tobytes(), value)
    return f"{value:08x}"


def hash_weights(module: nn.Module) -> str:
    """SHA-256 over a module's names, shapes and values, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def open_store(folder: Path | None, module: nn.Module | None, part: str) -> tuple[Store, str]:
    """The store, and what tells these weights from others in it (nothing in memory, where there are no others)."""
    if module is None:
        raise ModelError(f"the base was made without its {part}, which training needs. Connect it, or load the whole checkpoint")
    return (MemoryStore(), "") if folder is None else (DiskStore(folder), hash_weights(module))


class Latents:
    """The latents of a data set's images, by index, each as it is or mirrored."""

    def __init__(self, store: Store, keys: list[tuple[str, ...]], shape: tuple[int, ...]):
        self.store, self.keys, self.shape = store, keys, shape

    def __len__(self) -> int:
        return len(self.keys)

    def batch(self, indices: Sequence[int], flipped: Sequence[bool], noise: Tensor | None = None) -> Tensor:
        """Latents (B, 4, h, w) in the U-Net's scale; with unit noise of that shape, a sample of their posterior."""
        entries = [present(self.store, self.keys[index][int(flip)]) for index, flip in zip(indices, flipped, strict=True)]
        means = torch.stack([entry["mean"] for entry in entries])
        if noise is None or "std" not in entries[0]:
            return means
        return means + torch.stack([entry["std"] for entry in entries]) * noise


def present(store: Store, key: str) -> dict[str, Tensor]:
    """An entry that was made before training."""
    entry = store.read(key)
    if entry is None:
        raise MedTuneError("an entry of the cache has vanished or was damaged during training; start again: what is missing "
                           "is made anew and the run goes on from its checkpoint")
    return entry


@torch.no_grad()
def cache_latents(base: Base, records: Sequence[Record], folder: Path | None = None, *, size: int = 512, fit: str = "crop",
                  flips: bool = False, posterior: str = "mode", on_progress: Progress | None = None) -> Latents:
    """Encode each image that is not in the cache yet, one at a time, so that an entry never depends on its neighbours.

    Raises DataError naming every image that cannot be read, or whose latents are of another shape or not finite.
    """
    store, weights = open_store(folder, base.vae, "autoencoder")
    keys, shapes, problems = [], {}, Problems("images")
    for number, record in enumerate(records):
        try:
            name = str(number) if folder is None else hash_image(record.image)
            keys.append(tuple(hash_json([FORMAT, "latents", name, weights, size, fit, posterior, flip])
                              for flip in ((False, True) if flips else (False,))))
            if problems.found:  # nothing will be trained: only look for further problems
                read_image(record.image, size, fit)
            else:
                shapes.setdefault(_cache_image(base, record, keys[-1], store, size=size, fit=fit, posterior=posterior), record.image)
        except DataError as error:
            problems.add(record.image, str(error))
        if on_progress is not None:
            on_progress(number + 1, len(records))
    problems.check(len(records))
    check_shapes({(shape[1] * SCALE, shape[2] * SCALE): path for shape, path in shapes.items()})
    return Latents(store, keys, next(iter(shapes)))


def _cache_image(base: Base, record: Record, keys: tuple[str, ...], store: Store, *, size: int, fit: str,
                 posterior: str) -> tuple[int, ...]:
    """Make what the cache lacks of one image; the shape of its latents (4, h, w)."""
    image = None
    for flip, key in enumerate(keys):
        entry = store.read(key)
        if entry is None:
            image = read_image(record.image, size, fit) if image is None else image
            entry = _encode(base, image.flip(-1) if flip else image, posterior)
            if not all(torch.isfinite(value).all() for value in entry.values()):
                raise DataError(f"{record.image}: its latents are not finite")
            store.write(key, entry)
    return tuple(entry["mean"].shape)


def _encode(base: Base, image: Tensor, posterior: str) -> dict[str, Tensor]:
    """The mean of an image's latents and, where they are sampled and the autoencoder has one, their deviation."""
    mean, deviation = (part[0].float().cpu().contiguous() for part in base.posterior(image[None]))
    return {"mean": mean, "std": deviation} if posterior == "sample" and deviation.any() else {"mean": mean}


@torch.no_grad()
def blank_channels(base: Base, shape: Sequence[int]) -> Tensor | None:
    """For an inpainting U-Net, what it reads besides the latents (1, 5, h, w) to paint everything anew: a mask of ones and the
    latents of mid-grey. None for the others."""
    if base.channels == 4:
        return None
    height, width = shape[-2:]
    grey = base.encode_images(torch.full((1, 3, height * 8, width * 8), 0.5)).float().cpu()
    return torch.cat([torch.ones(1, 1, height, width), grey], dim=1)


class TextStates:
    """The states of a data set's captions and of the empty caption."""

    def __init__(self, store: Store, keys: dict[str, str]):
        self.store, self.keys = store, keys

    def batch(self, captions: Sequence[str]) -> Tensor:
        """States (B, 77, d)."""
        return torch.stack([present(self.store, self.keys[caption])["states"] for caption in captions])


@torch.no_grad()
def cache_text(base: Base, captions: Sequence[str], folder: Path | None = None) -> TextStates:
    """Encode each different caption that is not in the cache yet, one at a time, and the empty one."""
    store, weights = open_store(folder, base.text_encoder, "text encoder")
    keys = {caption: hash_json([FORMAT, "text", caption, weights]) for caption in ("", *captions)}
    for caption, key in keys.items():
        if store.read(key) is None:
            states = base.encode_prompts([caption])[0].float().cpu().contiguous()
            if not torch.isfinite(states).all():
                raise ModelError(f"the text encoder gives values that are not finite for {caption!r}; its weights are broken")
            store.write(key, {"states": states})
    return TextStates(store, keys)
