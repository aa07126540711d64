"""A checkpoint: everything that a run needs to go on as if it had never stopped, in one safetensors file.

Weights, optimiser, schedule, gradient scaler and moving average. Random numbers and the order of the data follow from the seed
and the step (`draws.py`), so that the step is all there is to keep of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import MedTuneError, ModelError
from ..files import whole
from .ema import MovingAverage

FORMAT = 1


@dataclass
class State:
    """What training changes, by reference."""

    named: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: Any = None
    average: MovingAverage | None = None
    step: int = 0
    seconds: float = 0.0
    device: str = "cpu"


def save(path: Path, state: State) -> None:
    """Write the state, whole or not at all. Raises MedTuneError when there is no room; the former checkpoint is then intact."""
    tensors, settings = _pack_optimizer(state.optimizer)
    tensors |= {f"weight/{name}": value for name, value in state.named.items()}
    if state.average is not None:
        tensors |= {f"average/{name}": value for name, value in state.average.shadow.items()}
    facts = {"format": FORMAT, "step": state.step, "seconds": state.seconds, "device": state.device,
             "optimizer": settings, "schedule": _plain(state.schedule.state_dict()),
             "scaler": _plain(state.scaler.state_dict()) if state.scaler is not None else None}
    tensors = _apart({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    with whole(path) as beside:
        try:
            save_file(tensors, beside, metadata={"medtune.state": json.dumps(facts)})
        except SafetensorError as error:
            raise MedTuneError(f"cannot write the checkpoint {path}: {error}. Free some space or choose another folder; the last "
                               "checkpoint is intact") from error


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in place of tensors that share their memory with an earlier one, which a file cannot."""
    owners = {value.data_ptr(): name for name, value in reversed(tensors.items())}
    return {name: value if owners[value.data_ptr()] == name else value.clone() for name, value in tensors.items()}


def load(path: Path, state: State) -> str:
    """Put a checkpoint back into a state of the same shape; the device it was made on.

    Raises ModelError for a file that is damaged or does not fit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["medtune.state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, this version reads {FORMAT}")
        _restore(facts, tensors, state)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"the checkpoint {path} cannot be used: {error}. Delete it to start this run anew") from error
    return facts["device"]


@torch.no_grad()
def _restore(facts: dict[str, Any], tensors: dict[str, Tensor], state: State) -> None:
    kept = {name.removeprefix("weight/") for name in tensors if name.startswith("weight/")}
    if kept != set(state.named):
        raise ValueError("its weights are not those that this method trains on this base")
    for name, weight in state.named.items():
        weight.copy_(tensors[f"weight/{name}"])
    if state.average is not None:
        for name, shadow in state.average.shadow.items():
            shadow.copy_(tensors[f"average/{name}"])
    _unpack_optimizer(state.optimizer, facts["optimizer"], tensors)
    state.schedule.load_state_dict(facts["schedule"])
    if state.scaler is not None and facts["scaler"]:
        state.scaler.load_state_dict(facts["scaler"])
    state.step, state.seconds = facts["step"], facts["seconds"]


def _pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's tensors by name, and the rest as JSON values."""
    held = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, entries in held["state"].items():
        inner = [pair for value in entries.values() if isinstance(value, dict) for pair in value.items()]  # as bitsandbytes has it
        for name, value in (*entries.items(), *inner):
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            elif not isinstance(value, dict):
                numbers.setdefault(str(index), {})[name] = value
    return tensors, {"groups": held["param_groups"], "numbers": numbers}


def _unpack_optimizer(optimizer: torch.optim.Optimizer, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in settings["numbers"].items()}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    groups = [{key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
              for group in settings["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for weight, entries in optimizer.state.items():  # a channels-last weight's state has its layout, which a file does not keep
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                entries[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Only what JSON holds (a schedule's state names functions, too, which are made anew)."""
    return {key: value for key, value in values.items() if isinstance(value, (bool, int, float, str, list, type(None)))}
