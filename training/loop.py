"""train(): a base, a method and records -> an adapter file, in a run folder that can be interrupted at any moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import config
from ..data.identity import hash_records
from ..data.record import Record
from ..errors import ConfigError, DataError, MedTuneError, ModelError, listing
from . import machine
from .log import read_losses
from .optimiser import find_optimizer
from .options import TrainOptions
from .preview import choose_prompts
from .progress import StepInfo
from .run import Run, identity
from .tokenizer import LENGTH
from .trainer import Trainer

if TYPE_CHECKING:
    from .base import Base
    from .method import Method


@dataclass(frozen=True)
class TrainResult:
    """The adapter file, its run folder, the loss of each step, and what there is to say of the run.

    ``reused`` tells that the same request had been finished before.
    """

    adapter: Path
    run: Path
    losses: list[float]
    finished: bool = True
    reused: bool = False
    notices: list[str] = field(default_factory=list)


def train(base: Base, method: Method, records: Sequence[Record], options: TrainOptions | None = None,
          on_step: Callable[[StepInfo], None] | None = None, *, runs: str | Path = "runs", resume: bool = True,
          device: str | torch.device | None = None) -> TrainResult:
    """Train, or find the finished run of the same request, or go on with its interrupted one.

    The base is changed: it ends as what the adapter makes of it (and unchanged when the run was finished before). An exception
    out of ``on_step`` interrupts: the state is kept and the exception goes on outward; the same call resumes, to the same adapter
    bit for bit. ``resume`` False starts anew. The device is accelerate's choice where none is given.

    Raises ConfigError, DataError and ModelError for what cannot be trained, TrainingStopped when training cannot go on,
    MedTuneError when another training has this run.
    """
    options = check_options(options or TrainOptions(), records)
    _check_caller(base)
    notices = [base.notice] if base.notice else []
    notices += check_captions(base, [record.caption for record in records], options.long_captions, "captions")
    notices += check_captions(base, choose_prompts(options, records), options.long_captions, "prompts of the preview pictures")
    run = Run(Path(runs), identity(method, options, base, hash_records(records)))
    with run.locked():
        if not resume:
            run.clear()
        if run.finished():
            return TrainResult(run.adapter, run.folder, read_losses(run.losses), reused=True, notices=run.read()["notices"])
        with machine.accelerator(options, device) as accelerator, torch.enable_grad(), _own_randomness(accelerator.device):
            notices += machine.notices(options, accelerator.device)
            trainer = Trainer(base, method, records, options, run, accelerator=accelerator,
                              on_step=on_step or (lambda info: None), notices=notices)
            losses = trainer.run_to_the_end()
    return TrainResult(run.adapter, run.folder, losses, notices=trainer.notices)


def check_options(options: TrainOptions, records: Sequence[Record]) -> TrainOptions:
    """The options, when they are within their bounds and fit the data."""
    config.check(options)
    find_optimizer(options.optimizer)
    if not records:
        raise DataError("there are no records to train on; choose a data set or a split that holds images")
    shown = sum(record.repeats for record in records)
    if options.batch > shown:
        raise ConfigError(f"TrainOptions.batch is {options.batch}, and the data set shows only {shown} images in an epoch; "
                          f"set batch to {shown} or less")
    if options.size % 64:
        raise ConfigError(f"TrainOptions.size is {options.size}; it must be a multiple of 64, such as "
                          f"{max(64, options.size // 64 * 64)}")
    if options.warmup > options.steps:
        raise ConfigError(f"TrainOptions.warmup is {options.warmup}, longer than the {options.steps} steps of the run")
    return options


def check_captions(base: Base, captions: Sequence[str], rule: str, what: str) -> list[str]:
    """What to say of texts that are longer than the text encoder reads. Raises DataError where they are refused."""
    different = list(dict.fromkeys(captions))
    _, lengths = base.tokens(different)
    long = {text: length for text, length in zip(different, lengths, strict=True) if length > LENGTH}
    if not long:
        return []
    count = sum(text in long for text in captions)
    shown = listing([f"{text[:60]!r}... ({length} tokens)" for text, length in long.items()], 3)
    if rule == "refuse":
        raise DataError(f"{count} {what} are longer than the {LENGTH} tokens that the text encoder reads: {shown}. Shorten them, or "
                        "set long_captions to cut")
    return [f"{count} {what} were cut to the {LENGTH} tokens that the text encoder reads: {shown}"]


def _check_caller(base: Base) -> None:
    """That gradients can be had here and the base is as it was loaded."""
    if torch.is_inference_mode_enabled():
        raise MedTuneError("train() was called in torch.inference_mode(), where nothing can be trained; wrap the loading of the base "
                           "and the training in `with torch.inference_mode(False):`")
    weights = list(base.unet.parameters())
    if any(weight.is_inference() for weight in weights):
        raise ModelError("the base was loaded in torch.inference_mode() and cannot be trained; load it in "
                         "`with torch.inference_mode(False):`")
    if any(weight.requires_grad for weight in weights):
        raise ModelError("this base was trained already; load it anew for another training")
    if any(weight.dtype != torch.float32 for weight in weights):
        raise ModelError("training needs the base's weights in float32; load it with dtype=torch.float32 (the precision of the "
                         "computation is an option)")


@contextlib.contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """The process's global random state is as before after the block."""
    devices = [device] if device.type not in ("cpu", "mps") else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        yield
