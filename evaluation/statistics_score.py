"""Statistics of two sets -> scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..errors import DataError
from ..files import hash_json
from .metric import CHOSEN, Metric, Score, Undefined
from .run import Scores, versions
from .statistics import Statistics
from .uncertainty.interval import FEWEST_GROUPS, interval


def score_all(real: Statistics, fake: Statistics, metrics: Sequence[Metric]) -> Scores:
    """The metrics of two sets of which statistics are left."""
    scores = tuple(score_statistics(real, fake, metric) for metric in metrics)
    sampled = [one for one in scores if one.value is not None and one.n_fake < len(fake)]
    said = [f"{', '.join(one.metric for one in sampled)}: of a sample of {sampled[0].n_real} real and {sampled[0].n_fake} generated "
            f"images out of {len(real)} and {len(fake)}"] if sampled else []
    return Scores(scores, len(real), len(fake), fake.about, tuple(said), versions())


def score_statistics(real: Statistics, fake: Statistics, metric: Metric) -> Score:
    """A metric of two sets of which statistics are left: exact from the moments where it can be made from them, else of the samples.

    Raises DataError when the statistics are of different spaces.
    """
    for name in ("extractor_id", "size", "fit"):
        if getattr(real, name) != getattr(fake, name):
            raise DataError(f"real statistics have {name} {getattr(real, name)!r}, generated ones {getattr(fake, name)!r}: make both "
                            "with the same extractor, size and fit")
    if metric.facts.space != CHOSEN:
        return _null(metric, real, fake, "statistics of features are no help: this metric looks at images or captions")
    try:
        value = metric.of_moments(real.total, fake.total)
    except Undefined as error:
        return _null(metric, real, fake, str(error))
    if value is None:
        return metric.score(real.features(), fake.features())
    few = [f"{len(one)} {name} images" for one, name in ((real, "real"), (fake, "generated")) if len(one) < metric.config.least]
    if few:
        return _null(metric, real, fake, f"{' and '.join(few)}; at least {metric.config.least} are needed")
    return dataclasses.replace(_null(metric, real, fake, None), value=value, **_spread(metric, real, fake, value))


def _null(metric: Metric, real: Statistics, fake: Statistics, reason: str | None) -> Score:
    return Score(metric.name, None, None, None, len(real), len(fake), metric.facts.direction, reason, fake.extractor_id)


def _spread(metric: Metric, real: Statistics, fake: Statistics, value: float) -> dict[str, Any]:
    """The interval of a figure from moments, and what it is made from; nothing with too few groups that hold images."""
    try:
        looked_at = _filled(real) if metric.facts.uses_real else []
        without_real = [metric.of_moments(real.without(group), fake.total) for group in looked_at]
        without_fake = [metric.of_moments(real.total, fake.without(group)) for group in _filled(fake)]
    except Undefined:
        return {}
    used = [without for without, is_used in ((without_real, metric.facts.uses_real), (without_fake, True)) if is_used]
    if metric.config.groups < FEWEST_GROUPS or min(map(len, used)) < FEWEST_GROUPS:
        return {}
    low, high = interval(value, used)
    low, high = (metric.facts.cut(bound) for bound in (low, high))
    keys = [hash_json([len(one.groups), sorted(set(one.units))])[:16] for one in (real, fake)]
    return {"low": low, "high": high, "interval": "jackknife", "without_real": tuple(map(float, without_real)),
            "without_fake": tuple(map(float, without_fake)), "real_key": keys[0], "fake_key": keys[1]}


def _filled(statistics: Statistics) -> list[int]:
    return [index for index, group in enumerate(statistics.groups) if group.n]
