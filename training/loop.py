"""train(): a base, a method and records -> an adapter or another file, in a run folder that can be interrupted at any moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import config
from ..data.identity import hash_records
from ..data.record import Record
from ..errors import ConfigError, DataError, MedTuneError, ModelError, listing
from . import inpainting, machine, processes
from .inflate import inflate
from .log import read_losses
from .method import need_parts
from .objective import ObjectiveOptions, check_schedule
from .optimiser import find_optimizer
from .options import TrainOptions
from .preview import choose_prompts
from .prior import check_class
from .progress import StepInfo
from .region import check_masks
from .run import Run, identity
from .tokenizer import LENGTH, Tokenizer
from .trainer import Trainer

if TYPE_CHECKING:
    from .base import Base
    from .method import Method


@dataclass(frozen=True)
class TrainResult:
    """The files that were made, their run folder, the loss of each step, and what there is to say of the run.

    ``adapter`` is the principal file of ``products`` (kind -> file): the adapter, where the method makes one. ``reused`` tells that
    the same request had been finished before.
    """

    adapter: Path
    run: Path
    losses: list[float]
    products: dict[str, Path] = field(default_factory=dict)
    finished: bool = True
    reused: bool = False
    notices: list[str] = field(default_factory=list)


def train(base: Base, method: Method, records: Sequence[Record], options: TrainOptions | None = None,
          on_step: Callable[[StepInfo], None] | None = None, *, objective: ObjectiveOptions | None = None, runs: str | Path = "runs",
          resume: bool = True, device: str | torch.device | None = None) -> TrainResult:
    """Train, or find the finished run of the same request, or go on with its interrupted one.

    The base is changed: it ends as what the adapter makes of it (and as it was, or inflated, when the run was finished before). An
    exception out of ``on_step`` interrupts: the state is kept and the exception goes on outward; the same call resumes, to the same
    adapter bit for bit. ``resume`` False starts anew. The device is accelerate's choice where none is given.

    On several processes (`torchrun`, `accelerate launch`) each calls this alike and takes its share of each batch; the adapter is that
    of one process. The first alone writes, and calls ``on_step``.

    Raises ConfigError, DataError and ModelError for what cannot be trained, TrainingStopped when training cannot go on,
    MedTuneError when another training has this run.
    """
    options, objective = check_options(options or TrainOptions(), records), objective or ObjectiveOptions()
    _check_caller(base, method)
    said = check_objective(objective, base, method, records)
    if objective.inflate:
        inflate(base)
    made_of = identity(method, options, objective, base, hash_records(records))
    records = [replace(record, caption=method.caption(record.caption)) for record in records]
    tokenizer, notices = base.tokenizer.extended(method.words()), [*([base.notice] if base.notice else []), *said]
    notices += check_captions(tokenizer, [record.caption for record in records], options.long_captions, "captions")
    notices += check_captions(tokenizer, choose_prompts(options, records), options.long_captions, "prompts of the preview pictures")
    notices += check_captions(tokenizer, [objective.class_prompt], options.long_captions, "class prompts")
    run, main, alone = Run(Path(runs), made_of), processes.is_main(), processes.count() == 1
    with run.locked() if main else contextlib.nullcontext():
        if main and not resume:
            run.clear()
        if alone and run.finished():
            return _found(run)
        with (machine.accelerator(options, device) as accelerator, torch.enable_grad(), _own_randomness(accelerator.device),
              machine.memory_errors(options)):
            notices += machine.notices(options, accelerator.device)
            if not alone and processes.from_main(run.finished, accelerator):
                return _found(run)
            trainer = Trainer(base, method, records, options, run, objective=objective, accelerator=accelerator,
                              on_step=on_step if on_step and main else lambda info: None, notices=notices)
            losses = trainer.run_to_the_end()
    return _result(run, losses, notices=trainer.notices)


def _found(run: Run) -> TrainResult:
    return _result(run, read_losses(run.losses), reused=True, notices=run.read()["notices"])


def _result(run: Run, losses: list[float], **facts: Any) -> TrainResult:
    products = run.products()
    return TrainResult(next(iter(products.values())), run.folder, losses, products, **facts)


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
    if 0 < options.batch < processes.count():
        raise ConfigError(f"TrainOptions.batch is {options.batch}, and {processes.count()} processes share it; set it to at least "
                          f"{processes.count()}, or start fewer")
    if options.size % 64:
        raise ConfigError(f"TrainOptions.size is {options.size}; it must be a multiple of 64, such as "
                          f"{max(64, options.size // 64 * 64)}")
    if options.warmup > options.steps:
        raise ConfigError(f"TrainOptions.warmup is {options.warmup}, longer than the {options.steps} steps of the run")
    return options


def check_objective(objective: ObjectiveOptions, base: Base, method: Method, records: Sequence[Record]) -> list[str]:
    """What to say of an objective for this base, method and data. Raises ConfigError or DataError for one that they do not allow."""
    config.check(objective)
    check_schedule(objective, base.prediction)
    check_class(objective)
    inpainting.check_inpainting(objective, base, method.trains(base), records)
    said = check_masks(objective, records)
    if objective.zero_terminal_snr:
        said.append("trained on a schedule that ends in pure noise: sample it on such a schedule too (in ComfyUI by "
                    "ModelSamplingDiscrete with v_prediction and zsnr)")
    if objective.inflate and base.prediction == "v_prediction":
        said.append("the checkpoint predicts v, and ComfyUI takes every inpainting checkpoint for one that predicts noise: put "
                    "ModelSamplingDiscrete with v_prediction behind the loader")
    return said


def check_captions(tokenizer: Tokenizer, captions: Sequence[str], rule: str, what: str) -> list[str]:
    """What to say of texts that are longer than the text encoder reads. Raises DataError where they are refused."""
    different = list(dict.fromkeys(captions))
    _, lengths = tokenizer(different)
    long = {text: length for text, length in zip(different, lengths, strict=True) if length > LENGTH}
    if not long:
        return []
    count = sum(text in long for text in captions)
    shown = listing([f"{text[:60]!r}... ({length} tokens)" for text, length in long.items()], 3)
    if rule == "refuse":
        raise DataError(f"{count} {what} are longer than the {LENGTH} tokens that the text encoder reads: {shown}. Shorten them, or "
                        "set long_captions to cut")
    return [f"{count} {what} were cut to the {LENGTH} tokens that the text encoder reads: {shown}"]


def _check_caller(base: Base, method: Method) -> None:
    """That gradients can be had here, and the base is as it was loaded and has what is trained."""
    if torch.is_inference_mode_enabled():
        raise MedTuneError("train() was called in torch.inference_mode(), where nothing can be trained; wrap the loading of the base "
                           "and the training in `with torch.inference_mode(False):`")
    need_parts(base, method.trains(base), method.name)
    weights = [weight for part in {"unet", *method.trains(base)} for weight in getattr(base, part).parameters()]
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
