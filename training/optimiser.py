"""The optimiser, any dense one of torch.optim by name, and its learning rate over the steps (diffusers' schedules)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from ..errors import ConfigError, near
from .options import TrainOptions

UNFIT = {"Optimizer", "LBFGS", "SparseAdam"}  # the abstract class, one that needs a closure, one for sparse gradients


def optimizer_names() -> list[str]:
    """The names that ``TrainOptions.optimizer`` may have with this torch."""
    return sorted(name for name, entry in vars(torch.optim).items() if name not in UNFIT and inspect.isclass(entry)
                  and issubclass(entry, torch.optim.Optimizer))


def find_optimizer(name: str) -> type[torch.optim.Optimizer]:
    """The class of this name. Raises ConfigError that lists what torch.optim has."""
    known = optimizer_names()
    if name not in known:
        raise ConfigError(f"TrainOptions.optimizer is {name!r}{near(name, known)}; torch.optim has: {', '.join(known)}")
    return getattr(torch.optim, name)


def build_optimizer(groups: Iterable[dict[str, Any]], options: TrainOptions, lr: float) -> torch.optim.Optimizer:
    """The optimiser over parameter groups; a group's ``lr_scale`` multiplies the learning rate.

    Raises ConfigError for a name that torch.optim lacks, and for parameters that the optimiser does not take.
    """
    kind = find_optimizer(options.optimizer)
    settings: dict[str, Any] = {"lr": lr}
    if "weight_decay" in inspect.signature(kind).parameters:
        settings["weight_decay"] = options.weight_decay
    scaled = [{**{key: value for key, value in group.items() if key != "lr_scale"}, "lr": lr * group.get("lr_scale", 1.0)}
              for group in groups]
    try:
        return kind(scaled, **settings)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"torch.optim.{options.optimizer} refuses these weights or settings: {error}. "
                          "AdamW takes all") from error


def build_schedule(optimizer: torch.optim.Optimizer, options: TrainOptions) -> Any:
    """The learning rate over the run's steps, after a linear warm-up."""
    from diffusers.optimization import get_scheduler

    name = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    return get_scheduler(name, optimizer, num_warmup_steps=options.warmup, num_training_steps=options.steps)
