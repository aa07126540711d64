"""Metrics as a user names them: words and options -> metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .. import config
from ..errors import ConfigError, near
from .metric import METRICS, Metric, MetricConfig

STANDARD = ("frechet", "kid", "vendi")
"""What is computed where nothing is said: what needs no more than features."""
ALL = "all"


def select_metrics(names: str = "", options: Sequence[str] = (), **common: Any) -> list[Metric]:
    """The metrics of a comma-separated list, in its order: the standard ones for an empty list, every metric for "all".

    ``options`` are words like ``vendi.order=2``, for one metric, or ``groups=10``, for all of them; ``common`` are such options
    by name. Raises UnknownName for a metric, ConfigError for an option that there is not.
    """
    wanted = [name.strip() for name in names.replace("\n", ",").split(",") if name.strip()] or list(STANDARD)
    wanted = list(METRICS) if wanted == [ALL] else list(dict.fromkeys(wanted))
    kinds = {name: METRICS[name] for name in wanted}
    words: dict[str, list[str]] = {name: [] for name in wanted}
    for word in options:
        for name in _metrics_of(word, wanted):
            words[name].append(word.partition(".")[2] if "." in word.partition("=")[0] else word)
    return [kind(config.parse(kind.Config, words[name], common)) for name, kind in kinds.items()]


def _metrics_of(word: str, wanted: Sequence[str]) -> Sequence[str]:
    """The metrics that an option is for."""
    name, dot, _ = word.partition("=")[0].partition(".")
    if dot:
        if name not in wanted:
            raise ConfigError(f"{word!r} is an option of {name!r}{near(name, wanted)}; the metrics are: {', '.join(wanted)}")
        return [name]
    common = [field.name for field in dataclasses.fields(MetricConfig)]
    if name.replace("-", "_") not in common:
        raise ConfigError(f"{word!r} does not say whose option it is: write metric.{word}, or one of those that all metrics have: "
                          f"{', '.join(common)}")
    return wanted
