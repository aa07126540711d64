"""An adapter in other worlds' forms: kohya's keys, a peft folder, a merged checkpoint, a diffusers folder; and what rounding took.

Weights are read from files and changed one by one; only a diffusers folder and a measured output need a whole base in memory.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from .adapter import Adapter, apply_adapter, write_adapter
from .apply import notices as base_notices
from .base import Base, load_base
from .checkpoint import guess_notice, write_checkpoint
from .deltas import Deltas, Rounding
from .diffusers_folder import write_diffusers
from .header import architecture
from .kohya_keys import to_kohya
from .peft_folder import write_peft

TARGETS = ("kohya", "peft", "checkpoint", "diffusers")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Exported:
    """What was written, and its accuracy.

    `difference` is the relative error of all changes together, `worst` the parameter with the largest and that error, `output` the
    relative error of the U-Net's output (None where it was not measured): what was written against base and adapter in float32.
    """

    path: Path
    target: str
    dtype: str
    difference: float
    worst: tuple[str, float]
    output: float | None = None
    notices: list[str] = field(default_factory=list)


def export(adapter: Adapter, base_ref: str, target: str, path: str | Path, dtype: str = "float32", *, measure: bool | None = None,
           prediction: str | None = None) -> Exported:
    """Write an adapter, for the base that it is to be used with, in another form.

    Args:
        target: `kohya` (one file), `peft` (a folder), `checkpoint` (one LDM file) or `diffusers` (a folder).
        dtype: `float32`, `float16` or `bfloat16`, of all that is written.
        measure: compare the U-Net's output too, which loads the base twice; by default, only where `dtype` rounds.
        prediction: what the base predicts, where its file does not say.

    Raises:
        ConfigError: a target or type that there is not, or a product that has no such form.
        ModelError: the adapter does not fit the base.
    """
    for value, known, what in ((target, TARGETS, "form"), (dtype, DTYPES, "type")):
        if value not in known:
            raise ConfigError(f"there is no {what} {value!r}; there are: {', '.join(known)}")
    path = Path(path)
    check_product(adapter, target)
    base = load_base(base_ref, device="meta", prediction=prediction)
    write = {"kohya": _kohya, "peft": _peft, "checkpoint": _checkpoint, "diffusers": _diffusers}[target]
    rounding, reread, notices = write(adapter, base, path, DTYPES[dtype])
    output = None
    if measure if measure is not None else dtype != "float32":
        output = output_error(lambda: _applied(base_ref, adapter, prediction), reread)
    return Exported(path, target, dtype, rounding.relative(), rounding.worst(), output, base_notices(base, adapter) + notices)


def check_product(adapter: Adapter, target: str) -> None:
    """Raise ConfigError where a product of a training has no such form."""
    if adapter.kind == "adapter" or (adapter.kind == "vae" and target in ("checkpoint", "diffusers")):
        return
    remedy = {"vae": "It is a VAE file already; merge it with --to checkpoint or diffusers.",
              "embedding": "It is a file of its own wherever prompts name it.",
              "model": "It is a whole checkpoint already, which load_base and ComfyUI read as it is."}[adapter.kind]
    raise ConfigError(f"{adapter.name} is no adapter, and cannot be written as {target}. {remedy}")


Written = tuple[Rounding, Callable[[], Base], list[str]]
"""What rounding took, how to load a base with what was written, and notices."""


def _applied(base_ref: str, adapter: Adapter, prediction: str | None) -> Base:
    base = load_base(base_ref, prediction=prediction)
    apply_adapter(base, adapter)
    return base


def _kohya(adapter: Adapter, base: Base, path: Path, dtype: torch.dtype) -> Written:
    tensors, rounding = to_kohya(Deltas(base, adapter), dtype)
    write_adapter(path, tensors, adapter_header(adapter, base))
    written = Adapter(tensors, {}, path.name, path)
    return rounding, lambda: _applied(base.ref, written, base.prediction), []


def _peft(adapter: Adapter, base: Base, path: Path, dtype: torch.dtype) -> Written:
    rounding, notices = write_peft(path, Deltas(base, adapter), dtype, adapter_header(adapter, base))
    return rounding, lambda: _with_peft(base, path), notices


def _with_peft(base: Base, path: Path) -> Base:
    from peft import PeftModel

    loaded = load_base(base.ref, prediction=base.prediction)
    if (path / "adapter_config.json").is_file():
        loaded.unet = PeftModel.from_pretrained(loaded.unet, path).eval()
    return loaded


def _checkpoint(adapter: Adapter, base: Base, path: Path, dtype: torch.dtype) -> Written:
    vae = adapter.tensors if adapter.kind == "vae" else {}
    deltas = None if vae else Deltas(base, adapter)
    rounding, notices = write_checkpoint(path, base, deltas, vae=vae, dtype=dtype, header=checkpoint_header(adapter, base))
    return rounding, lambda: load_base(path), notices + guess_notice(base)


def _diffusers(adapter: Adapter, base: Base, path: Path, dtype: torch.dtype) -> Written:
    rounding = write_diffusers(path, _applied(base.ref, adapter, base.prediction), dtype)
    return rounding, lambda: load_base(path), []


@torch.no_grad()
def output_error(first: Callable[[], Base], second: Callable[[], Base]) -> float:
    """Relative difference of two bases' U-Net outputs on a fixed input; one base is in memory at a time."""
    one, other = (_output(load()) for load in (first, second))
    return ((other - one).norm() / one.norm()).item()


def _output(base: Base) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, base.channels, 32, 32, generator=generator)
    states = torch.randn(3, 77, base.unet.config.cross_attention_dim, generator=generator)
    return base.unet(latents, torch.tensor([100, 500, 900]), encoder_hidden_states=states).sample.double()


def adapter_header(adapter: Adapter, base: Base) -> dict[str, str]:
    """An adapter's own header, with what tools need to know where it came without one."""
    made_anew = ("modelspec.hash_sha256", "sshs_model_hash", "ss_network_module", "format")
    kept = {key: value for key, value in adapter.header.items() if key not in made_anew}
    return {"modelspec.sai_model_spec": "1.0.0", "modelspec.title": Path(adapter.name).stem,
            "modelspec.architecture": architecture(base) + "/lora", "modelspec.prediction_type": _predicts(base),
            "ss_base_model_version": "sd_v2" if base.kind == "sd2" else "sd_v1", "ss_v2": str(base.kind == "sd2"),
            "medtune.base": Path(base.ref).name, "medtune.base_hash": base.hash, **kept}


def checkpoint_header(adapter: Adapter, base: Base) -> dict[str, str]:
    """The header of a merged checkpoint: what it is and what it was made of."""
    made = {"adapter": adapter.name, "hash": adapter.info()["hash"], "base": Path(base.ref).name, "base_hash": base.hash}
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    notice = {"medtune.notice": base.notice} if base.notice else {}
    return {"format": "pt", "modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": architecture(base), "modelspec.date": now,
            "modelspec.title": f"{Path(base.ref).stem} with {Path(adapter.name).stem}", "modelspec.implementation": "diffusers",
            "modelspec.prediction_type": _predicts(base), "medtune.merged": json.dumps(made), **notice}


def _predicts(base: Base) -> str:
    return "v" if base.prediction == "v_prediction" else "epsilon"
