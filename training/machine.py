"""Where, in which number format and in which form training computes: one accelerate.Accelerator per training.

accelerate keeps its settings in singletons of the process, so that a second training could not choose another precision: each
training gets singletons of its own, and what was there before is put back afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import platform
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import ConfigError, MedTuneError, TrainingStopped
from .batch_finder import is_out_of_memory
from .optimiser import EIGHT_BIT
from .options import TrainOptions

if TYPE_CHECKING:
    from accelerate import Accelerator

_TRAINING = threading.Lock()
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in glibc's malloc.h
_PATIENCE = datetime.timedelta(hours=12)  # that processes have for one that encodes or draws


@contextlib.contextmanager
def accelerator(options: TrainOptions, device: str | torch.device | None = None) -> Iterator[Accelerator]:
    """An Accelerator on the device (accelerate's choice for None), alone in this process until the block ends.

    Raises MedTuneError when another training is running in this process, ConfigError for a precision or a compiler that is not there.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs

    if options.compile:
        check_compiler(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if not _TRAINING.acquire(blocking=False):
        raise MedTuneError("another training is running in this process; wait for its end, or start this one in a process of its own")
    singletons = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    held = [dict(state) for state in singletons]
    try:
        for state in singletons:
            state.clear()
        made = Accelerator(mixed_precision={"fp32": "no"}.get(_supported(options.precision, device), options.precision),
                           cpu=device is not None and torch.device(device).type == "cpu",
                           dataloader_config=DataLoaderConfiguration(split_batches=True),  # of several processes, all make one step
                           kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
                           gradient_accumulation_steps=options.accumulation)
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


def check_compiler(device: str | torch.device) -> None:
    """Raise ConfigError unless torch.compile works on the device, tried on a function of one line."""
    try:
        torch.compile(lambda values: values * 2 + 1)(torch.ones(2, device=device))
    except Exception as error:  # what it raises differs by version: its own errors, the compiler's, a missing file
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(f"TrainOptions.compile is on, and torch.compile does not work here: {reason}. It needs a C++ compiler (g++, "
                          "clang or MSVC; the variable CXX can name it), on a GPU also the package triton. Install it, or switch "
                          "compile off") from error


def arrange(unet: nn.Module, options: TrainOptions, device: torch.device) -> None:
    """Bring the U-Net's weights into the layout, and its training steps into the compiled form, that the options ask for.

    Call it on the prepared U-Net, before the optimiser is built; `release` undoes it.
    """
    if options.channels_last == "on" or (options.channels_last == "auto" and device.type == "cuda" and options.precision != "fp32"):
        unet.to(memory_format=torch.channels_last)
    if options.compile:
        compiled = torch.compile(unet._call_impl)

        def call(*inputs: Any, **named: Any) -> Any:  # pictures on the way, without gradients, are not worth compiling for
            return (compiled if torch.is_grad_enabled() else unet._call_impl)(*inputs, **named)

        unet._compiled_call_impl = call


@contextlib.contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """On the processor, what a step frees stays with the process until the block ends: the next step needs as much again, and would
    get it from the system page by page, each filled with zeros first.

    Only with the GNU C library, whose limits stay fixed afterwards at those that they reach by themselves in a training.
    """
    library = ctypes.CDLL(None) if device.type == "cpu" and platform.libc_ver()[0] == "glibc" else None
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes: what is larger goes back at once
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, 64 * 2**20)
        library.malloc_trim(0)


@contextlib.contextmanager
def memory_errors(options: TrainOptions) -> Iterator[None]:
    """Where memory runs out in the block, raises TrainingStopped with what helps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        ways = ["set batch to 0, which takes the largest that fits, and accumulation for the rest of it"]
        ways += [text for text, fits in [("switch gradient_checkpointing on", not options.gradient_checkpointing),
                                         ("choose bf16, where the device has it", options.precision == "fp32"),
                                         ("choose an 8-bit optimizer", options.optimizer not in EIGHT_BIT)] if fits]
        said = str(error).partition("\n")[0] or type(error).__name__
        raise TrainingStopped(f"out of memory at batch {options.batch} and {options.size} px ({said}). To need less: "
                              f"{'; '.join(ways)}; choose a smaller size") from error


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
    """Take accelerate's casting, the compiled form and the layout off a module again, so that it can be used and trained as before."""
    prepared_by.unwrap_model(module, keep_fp32_wrapper=False)
    if "forward" in vars(module):  # the wrapper hides the class's own forward
        del module.forward
    vars(module).pop("_is_accelerate_prepared", None)
    module._compiled_call_impl = None
    module.to(memory_format=torch.contiguous_format)
