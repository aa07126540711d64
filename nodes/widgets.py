"""A config dataclass -> the inputs of a node, and the values of those inputs -> the checked config."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from .. import config
from .host import io, supported, weights

LARGE = 2**31 - 1
MAX_SEED = 2**53 - 1
"""The largest whole number that a browser keeps exactly."""


def inputs(cls: type, skip: Collection[str] = (), **defaults: Any) -> list[Any]:
    """One input for each option of a config class, with its help text, bounds and choices; `defaults` override the class's.

    They are optional inputs: a workflow that was saved before an option was added still runs.
    """
    return [_input(name, kind, defaults.get(name, default), facts) for name, kind, default, facts in config.fields(cls)
            if name not in skip]


def read(cls: type, values: dict[str, Any], **given: Any) -> Any:
    """The checked config from a node's inputs; options that are not among them keep their defaults.

    ComfyUI checks neither bounds of linked values nor, in old versions, choices: ConfigError names what is wrong.
    """
    facts = {name: facts for name, _, _, facts in config.fields(cls)}
    chosen = {name: weights(value) if facts[name].get("weights") and value else value
              for name, value in values.items() if name in facts}
    return config.from_json(cls, {**chosen, **given})


def _input(name: str, kind: Any, default: Any, facts: dict[str, Any]) -> Any:
    shared = {"tooltip": facts.get("help"), "advanced": facts.get("advanced") or None, "optional": True}
    if kind is bool:
        return _made(io.Boolean, name, default=default, **shared)
    if kind is int:
        return seed(name, default, **shared) if name == "seed" else _made(io.Int, name, default=default, **_whole(facts), **shared)
    if kind is float:
        return _made(io.Float, name, default=float(default), **_real(float(default), facts), **shared)
    if kind is str and facts.get("choices"):
        return _made(io.Combo, name, options=list(facts["choices"]), default=default, **shared)
    text = default if kind is str else ", ".join(default)
    return _made(io.String, name, default=text, multiline=bool(facts.get("multiline")), **shared)


def seed(name: str = "seed", default: int = 0, tooltip: str | None = "Same seed, same result.", **facts: Any) -> Any:
    """A seed that stays as it is from run to run unless the user asks for another."""
    fixed = getattr(getattr(io, "ControlAfterGenerate", None), "fixed", True)
    return _made(io.Int, name, default=default, min=0, max=MAX_SEED, control_after_generate=fixed, tooltip=tooltip, **facts)


def _whole(facts: dict[str, Any]) -> dict[str, int]:
    low = -LARGE if facts.get("low") is None else math.ceil(facts["low"])
    return {"min": low, "max": LARGE if facts.get("high") is None else math.floor(facts["high"]), "step": int(facts.get("step") or 1)}


def _real(default: float, facts: dict[str, Any]) -> dict[str, Any]:
    """Bounds and an increment of a hundredth of the default's decade, unless one is given; never rounded."""
    low = facts.get("low") if facts.get("low") is not None else facts.get("above")
    step = facts.get("step") or (10.0 ** (math.floor(math.log10(abs(default))) - 1) if default else 0.01)
    return {"min": -1e9 if low is None else float(low), "max": 1e9 if facts.get("high") is None else float(facts["high"]),
            "step": float(step), "round": False}


def _made(kind: Any, name: str, **facts: Any) -> Any:
    return kind.Input(name, **supported(kind.Input, **facts))
