"""Where and in which number format training computes: one accelerate.Accelerator per training.

accelerate keeps its settings in singletons of the process, so that a second training could not choose another precision: each
training gets singletons of its own, and what was there before is put back afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import ConfigError, MedTuneError
from .options import TrainOptions

if TYPE_CHECKING:
    from accelerate import Accelerator

_TRAINING = threading.Lock()


@contextlib.contextmanager
def accelerator(options: TrainOptions, device: str | torch.device | None = None) -> Iterator[Accelerator]:
    """An Accelerator on the device (accelerate's choice for None), alone in this process until the block ends.

    Raises MedTuneError when another training is running in this process, ConfigError for a precision the device lacks.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    if not _TRAINING.acquire(blocking=False):
        raise MedTuneError("another training is running in this process; wait for its end, or start this one in a process of its own")
    singletons = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    held = [dict(state) for state in singletons]
    try:
        for state in singletons:
            state.clear()
        made = Accelerator(mixed_precision={"fp32": "no"}.get(_supported(options.precision, device), options.precision),
                           cpu=device is not None and torch.device(device).type == "cpu",
                           gradient_accumulation_steps=options.accumulation)
        if made.num_processes > 1:
            raise ConfigError(f"training was started on {made.num_processes} processes; it runs on one. Start it without a launcher")
        yield made
    finally:
        for state, former in zip(singletons, held, strict=True):
            state.clear()
            state.update(former)
        _TRAINING.release()


def _supported(precision: str, device: str | torch.device | None) -> str:
    """The precision itself; ConfigError where the device cannot train in it."""
    kind = torch.device(device).type if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "fp16" and kind != "cuda":
        raise ConfigError(f"TrainOptions.precision is fp16, which needs an Nvidia or AMD GPU; on {kind} use fp32"
                          + (" or bf16" if kind == "cpu" else ""))
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("TrainOptions.precision is bf16, which this GPU lacks; use fp32 or fp16")
    return precision


def notices(options: TrainOptions, device: torch.device) -> list[str]:
    """What to say of the choice of precision."""
    if options.precision == "bf16" and device.type == "cpu" and not _fast_bf16():
        return ["precision bf16 is slower than fp32 on this processor, which computes it without instructions of its own"]
    return []


def _fast_bf16() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # new in recent versions of torch
    if capabilities is not None:
        found = capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("amx_tile") or found.get("bf16"))
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe() for probe in probes if probe is not None)


def release(module: nn.Module, prepared_by: Accelerator) -> None:
    """Take accelerate's casting off a module again, so that it can be used and trained as before."""
    prepared_by.unwrap_model(module, keep_fp32_wrapper=False)
    if "forward" in vars(module):  # the wrapper hides the class's own forward
        del module.forward
    vars(module).pop("_is_accelerate_prepared", None)
