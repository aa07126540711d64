"""Configs: what is refused, and that JSON, words and flags give the same config back."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest
from medtune.config import add_flags, check, from_json, option, parse, read_flags, to_json
from medtune.errors import ConfigError


@dataclass(frozen=True)
class Example:
    rank: int = option(8, "Rank.", low=1, high=64)
    rate: float = option(1e-4, "Learning rate.", above=0)
    kind: str = option("linear", "Kind.", choices=("linear", "conv"))
    clip: bool = option(True, "Clip gradients.")
    names: tuple[str, ...] = option(("a", "b"), "Names, 100 % of them.")


@pytest.mark.parametrize("values, says", [
    ({"rank": 0}, "rank is 0; it must be at least 1 and at most 64"),
    ({"rank": 65}, "at most 64"),
    ({"rank": 2.5}, "it must be int"),
    ({"rank": True}, "it must be int"),
    ({"rate": -1.0}, "it must be above 0"),
    ({"rate": float("nan")}, "finite"),
    ({"kind": "convv"}, "did you mean 'conv'"),
    ({"rang": 4}, "did you mean 'rank'"),
    ({"names": 3}, "tuple of strings"),
])
def test_refused_with_the_value_and_what_is_allowed(values, says):
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        from_json(Example, values)


def test_json_round_trip():
    config = Example(rank=4, names=("x",))
    assert from_json(Example, to_json(config)) == config


def test_whole_numbers_are_rates_too():
    assert check(Example(rate=1)).rate == 1


def test_words():
    assert parse(Example, ["rank=4", "clip=no", "rate=1e-3", "names=x,y"]) == Example(4, 1e-3, "linear", False, ("x", "y"))
    assert parse(Example, ["rank=8"], {"rank": 4, "rate": 1.0}) == Example(8, 1.0)
    for word in ("rank", "rank=four", "clip=maybe"):
        with pytest.raises(ConfigError, match=r"rank|clip"):
            parse(Example, [word])


def test_flags():
    parser = argparse.ArgumentParser()
    add_flags(parser, Example)
    assert "100 % of them" in parser.format_help()
    assert read_flags(Example, parser.parse_args([])) == Example()
    assert read_flags(Example, parser.parse_args(["--rank", "4", "--no-clip", "--names", "x"])).names == ("x",)
    assert read_flags(Example, parser.parse_args(["--rank", "8"]), {"rank": 4, "rate": 1.0}) == Example(8, 1.0)  # given, as by default
    with pytest.raises(ConfigError, match="rank is 99"):
        read_flags(Example, parser.parse_args(["--rank", "99"]))
