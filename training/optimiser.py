"""The optimiser, any dense one of torch.optim or an 8-bit one of bitsandbytes by name, and its learning rate over the steps
(diffusers' schedules).

The 8-bit ones keep their state in a quarter of the memory: Dettmers et al. 2022, https://arxiv.org/abs/2110.02861.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from ..errors import ConfigError, near
from .options import TrainOptions

UNFIT = {"Optimizer", "LBFGS", "SparseAdam"}  # the abstract class, one that needs a closure, one for sparse gradients
FUSED = {"Adam", "AdamW", "SGD"}  # one kernel for all weights: on two cores 4 times faster than torch's own choice
EIGHT_BIT = ("AdamW8bit", "Adam8bit", "Lion8bit", "RMSprop8bit", "Adagrad8bit")


def optimizer_names() -> list[str]:
    """The names that ``TrainOptions.optimizer`` may have with this torch, besides those of EIGHT_BIT."""
    return sorted(name for name, entry in vars(torch.optim).items() if name not in UNFIT and inspect.isclass(entry)
                  and issubclass(entry, torch.optim.Optimizer))


def find_optimizer(name: str) -> type[torch.optim.Optimizer]:
    """The class of this name. Raises ConfigError that lists what there is, or says how to install what is missing."""
    if name in EIGHT_BIT:
        return _find_eight_bit(name)
    known = optimizer_names()
    if name not in known:
        raise ConfigError(f"TrainOptions.optimizer is {name!r}{near(name, [*known, *EIGHT_BIT])}; "
                          f"torch.optim has: {', '.join(known)}; bitsandbytes: {', '.join(EIGHT_BIT)}")
    return getattr(torch.optim, name)


def _find_eight_bit(name: str) -> type[torch.optim.Optimizer]:
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(f"TrainOptions.optimizer is {name}, which needs the package bitsandbytes, and that cannot be imported "
                          f"({error}). Install it (pip install bitsandbytes), or choose AdamW, which needs more memory") from error
    return getattr(bitsandbytes.optim, name)


def build_optimizer(groups: Iterable[dict[str, Any]], options: TrainOptions, lr: float) -> torch.optim.Optimizer:
    """The optimiser over parameter groups. A group's ``lr_scale`` multiplies the learning rate; a group that carries an ``lr``
    learns at that rate, whatever the run's.

    It is the fused form where there is one. Raises ConfigError for a name that there is not, and for parameters that the optimiser
    does not take.
    """
    kind, groups = find_optimizer(options.optimizer), [_with_rate(group, lr) for group in groups]
    accepted = inspect.signature(kind).parameters
    settings: dict[str, Any] = {"lr": lr}
    if "weight_decay" in accepted:
        settings["weight_decay"] = options.weight_decay
    devices = {weight.device.type for group in groups for weight in group["params"]}
    if options.optimizer in FUSED and devices <= {"cpu", "cuda"} and torch.__version__ >= "2.4":  # before, not on the processor
        settings["fused"] = True
    try:
        return kind(groups, **settings)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{kind.__module__.split('.')[0]}.optim.{options.optimizer} refuses these weights or settings: {error}. "
                          "AdamW takes all") from error


def _with_rate(group: dict[str, Any], lr: float) -> dict[str, Any]:
    """The group with its learning rate in place of its scale."""
    kept = {key: value for key, value in group.items() if key != "lr_scale"}
    return {"lr": lr * group.get("lr_scale", 1.0), **kept}


def build_schedule(optimizer: torch.optim.Optimizer, options: TrainOptions) -> Any:
    """The learning rate over the run's steps, after a linear warm-up."""
    from diffusers.optimization import get_scheduler

    name = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    return get_scheduler(name, optimizer, num_warmup_steps=options.warmup, num_training_steps=options.steps)
