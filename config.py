"""One frozen dataclass per choice: it makes the node's widgets, the command's flags and the saved header.

A field is declared once, with its help text, bounds and choices::

    @dataclass(frozen=True)
    class LoRAConfig:
        rank: int = option(8, "Rank of the low-rank update.", low=1, high=1024)

Types that can be used: bool, int, float, str, and ``tuple[str, ...]``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .errors import ConfigError, listing, near

T = TypeVar("T")


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None, above: float | None = None,
           choices: Sequence[str] | None = None, step: float | None = None, advanced: bool = False,
           multiline: bool = False, weights: bool = False) -> Any:
    """A dataclass field with what its widget, flag and check need.

    ``low`` and ``high`` are inclusive bounds, ``above`` an exclusive lower one; ``choices`` the allowed strings;
    ``step`` the widget's increment; ``advanced`` hides it from newcomers where the interface can; ``multiline`` gives a
    text box; ``weights`` marks a path of weights, which a node takes from ComfyUI's own folders alone.
    """
    facts = {"help": help, "low": low, "high": high, "above": above, "choices": tuple(choices) if choices else None, "step": step,
             "advanced": advanced, "multiline": multiline, "weights": weights}
    return dataclasses.field(default=default, metadata=facts)


def fields(cls: type) -> list[tuple[str, type, Any, dict]]:
    """(name, type, default, facts) of each option of a config class, in order of declaration."""
    hints = typing.get_type_hints(cls)
    return [(field.name, hints[field.name], field.default, dict(field.metadata)) for field in dataclasses.fields(cls)]


def check(config: T) -> T:
    """The config itself, when every value is of its type and within its bounds; otherwise ConfigError naming the value."""
    for name, kind, _, facts in fields(type(config)):
        _check_value(f"{type(config).__name__}.{name}", getattr(config, name), kind, facts)
    return config


def _check_value(name: str, value: Any, kind: type, facts: dict) -> None:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected = tuple if typing.get_origin(kind) is tuple else kind
    if not isinstance(value, expected) or (kind in (int, float) and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r}, of type {type(value).__name__}; it must be {_type_name(kind)}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}; it must be a finite number")
    if kind in (int, float):
        low, high, above = facts.get("low"), facts.get("high"), facts.get("above")
        if (low is not None and value < low) or (high is not None and value > high) or (above is not None and value <= above):
            raise ConfigError(f"{name} is {value}; it must be {_bounds(low, high, above)}")
    choices = facts.get("choices")
    for one in (value if isinstance(value, tuple) else (value,)) if choices else ():
        if one not in choices:
            raise ConfigError(f"{name} is {one!r}{near(str(one), choices)}; it must be one of: {', '.join(choices)}")


def _type_name(kind: Any) -> str:
    return "a tuple of strings" if typing.get_origin(kind) is tuple else kind.__name__


def _bounds(low: float | None, high: float | None, above: float | None) -> str:
    lower = f"above {above:g}" if above is not None else f"at least {low:g}" if low is not None else ""
    upper = f"at most {high:g}" if high is not None else ""
    return " and ".join(part for part in (lower, upper) if part)


def to_json(config: Any) -> dict[str, Any]:
    """The config as JSON values (tuples become lists)."""
    return {name: list(value) if isinstance(value := getattr(config, name), tuple) else value
            for name, *_ in fields(type(config))}


def from_json(cls: type[T], values: dict[str, Any]) -> T:
    """The checked config with these values; ConfigError for a name that the class does not have."""
    known = {name: kind for name, kind, *_ in fields(cls)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{cls.__name__} has no option {name!r}{near(name, known)}; it has: {', '.join(known) or 'none'}")
    return check(cls(**{name: _from_value(value, known[name]) for name, value in values.items()}))


def _from_value(value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is tuple and isinstance(value, (list, str)):
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def parse(cls: type[T], pairs: Sequence[str], defaults: Mapping[str, Any] | None = None) -> T:
    """The config from ``name=value`` words, as a command line gives them; the words win over ``defaults``."""
    known = {name: kind for name, kind, *_ in fields(cls)}
    values = dict(defaults or {})
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"{pair!r} is not of the form name=value; {cls.__name__} has: {listing(known, 50)}")
        name = name.replace("-", "_")
        values[name] = _from_text(text, known[name], f"{cls.__name__}.{name}") if name in known else text
    return from_json(cls, values)


def _from_text(text: str, kind: Any, name: str) -> Any:
    if kind is bool:
        word = text.strip().lower()
        if word not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise ConfigError(f"{name} is {text!r}; it must be true or false")
        return word in ("true", "1", "yes", "on")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise ConfigError(f"{name} is {text!r}; it must be {'a whole number' if kind is int else 'a number'}") from error
    return text


def add_flags(parser: argparse.ArgumentParser, cls: type, skip: Sequence[str] = ()) -> None:
    """A ``--flag`` for each option of a config class; ``read_flags`` turns those that were given back into the config."""
    for name, kind, default, facts in fields(cls):
        if name in skip:
            continue
        flag = "--" + name.replace("_", "-")
        shown = ",".join(default) if isinstance(default, tuple) else default
        text = f"{facts.get('help', '')} [{shown}]".replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            kind_name = kind.__name__.upper() if isinstance(kind, type) else "A,B"
            parser.add_argument(flag, default=argparse.SUPPRESS, help=text, metavar=kind_name,
                                type=kind if kind in (int, float) else str)


def read_flags(cls: type[T], arguments: argparse.Namespace, defaults: Mapping[str, Any] | None = None) -> T:
    """The checked config from parsed flags, which win over ``defaults``."""
    values = {name: getattr(arguments, name) for name, *_ in fields(cls) if hasattr(arguments, name)}
    return from_json(cls, {**(defaults or {}), **values})
