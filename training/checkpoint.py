"""A base with an adapter merged, as one LDM checkpoint that stock ComfyUI loads: made tensor by tensor from the files of both.

Where the base is such a file, all that it holds besides the weights is kept, and so is the layout of its text encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import embedded
from .base import EMBEDDED
from .deltas import Deltas, Rounding
from .file_kind import opened, read_header
from .keys import UNET_PREFIX
from .layout import VAE_PREFIX
from .places import Pieces, places_in_file, places_of_kind
from .source import V_SIGN
from .stream import write_stream
from .vae_file import vae_scalars

if TYPE_CHECKING:
    from .base import Base

_V_SPREAD = 0.09  # above it, ComfyUI takes a Stable Diffusion 2 for one that predicts v
_MARGIN = 0.001


def write_checkpoint(path: Path, base: Base, deltas: Deltas | None, *, vae: Mapping[str, Tensor],
                     dtype: torch.dtype, header: Mapping[str, str]) -> tuple[Rounding, list[str]]:
    """Write the checkpoint; returns what rounding took and what a user should know.

    `base` may be on `meta`: its weights are read from its file one by one. `deltas` are an adapter's changes, `vae` a VAE
    file's tensors that replace the base's autoencoder; either may be missing.
    """
    file = Path(embedded.FILE if base.ref == EMBEDDED else base.ref).expanduser()
    file = file if file.is_file() else None
    shapes, pieces = places_in_file(base, file) if file else places_of_kind(base)
    shapes |= {VAE_PREFIX + name: tuple(value.shape) for name, value in vae.items()}
    merging = _Merging(base, deltas, dtype)
    fixed = {VAE_PREFIX + name: value for name, value in ({} if file else vae_scalars(base)).items()} | {
        VAE_PREFIX + name: value for name, value in vae.items()}
    types = _types(file, shapes, dtype)

    def write(read: Callable[[str], Tensor] | None) -> None:
        def make(name: str) -> Tensor:
            if name in fixed:
                value = fixed[name]
            elif name in pieces:
                value = merging.joined(name, pieces[name])
            else:
                value = read(name)
            return value.to(types[name]).reshape(shapes[name])

        write_stream(path, {name: (types[name], shape) for name, shape in shapes.items()}, make, header)

    if file:
        with opened(file) as stored:
            write(stored.get_tensor)
    else:
        write(None)
    return merging.rounding, merging.notices


def _types(file: Path | None, shapes: Iterable[str], dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Each tensor's type: `dtype`, but for whole numbers and for the autoencoder's scale."""
    kept = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
    stored = read_header(file).types if file else {}
    types = {name: kept.get(stored.get(name, ""), dtype) for name in shapes}
    return types | {name: torch.float32 for name in shapes if name.endswith(("vae_scale", "vae_shift"))}


class _Merging:
    """Weights with their changes, one at a time."""

    def __init__(self, base: Base, deltas: Deltas | None, dtype: torch.dtype):
        self.base, self.deltas, self.dtype = base, deltas, dtype
        self.originals = {part: base.original(part) for part in ("unet", "text_encoder", "vae") if getattr(base, part) is not None}
        self.rounding, self.notices = Rounding(), list[str]()

    def joined(self, name: str, pieces: Pieces) -> Tensor:
        """One tensor of the file, in the type that is written."""
        value = torch.cat([self._merged(*piece) for piece in pieces]) if len(pieces) > 1 else self._merged(*pieces[0])
        return self._with_sign(value) if name == UNET_PREFIX + V_SIGN else value

    def _merged(self, part: str, name: str) -> Tensor:
        original = self.originals[part][name]
        if self.deltas is None or (part, name) not in self.deltas.changes:
            return original.to(self.dtype)
        wanted = self.deltas.amount((part, name))
        written = (original.float() + wanted).to(self.dtype)
        self.rounding.note(f"{part}.{name}", wanted, written.float() - original.float())
        return written

    def _with_sign(self, bias: Tensor) -> Tensor:
        """The bias by which ComfyUI tells v from epsilon, on the side that is right."""
        base = self.base
        if base.kind != "sd2" or base.channels != 4:
            return bias
        told = keep_sign(bias, base.prediction)
        if told is not bias:
            moved = ((told.float() - bias.float()).norm() / bias.float().norm().clamp_min(1e-12)).item()
            self.notices.append(
                f"ComfyUI tells what a Stable Diffusion 2 predicts by the spread of {V_SIGN}, above {_V_SPREAD} meaning v; with "
                f"{bias.float().std(unbiased=False):.4f} it would not have found {base.prediction}: the bias was moved by {moved:.2%}")
        return told


def keep_sign(bias: Tensor, prediction: str) -> Tensor:
    """The same bias where ComfyUI guesses rightly from it, else the nearest of its direction that it guesses rightly from."""
    spread = bias.float().std(unbiased=False)
    if (spread > _V_SPREAD) == (prediction == "v_prediction"):
        return bias
    mean = bias.float().mean()
    away = bias.float() - mean if spread > 1e-6 else torch.ones(bias.shape).cumsum(0).remainder(2) * 2 - 1
    goal = _V_SPREAD + (_MARGIN if prediction == "v_prediction" else -_MARGIN)
    return (mean + away * (goal / away.std(unbiased=False))).to(bias.dtype)


def guess_notice(base: Base) -> list[str]:
    """What to know where ComfyUI cannot be made to guess what a checkpoint predicts."""
    guessable = base.kind == "sd2" and base.channels == 4
    if base.prediction == "epsilon" or guessable:
        return []
    return ["ComfyUI takes this kind of checkpoint for one that predicts noise, and it predicts v: put ModelSamplingDiscrete with "
            "v_prediction behind its loader"]
