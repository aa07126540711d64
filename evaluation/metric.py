"""What a metric is: a figure from real and generated features, with its interval, or the reason why it cannot be had.

A new metric is one file in ``metrics/``: a class with ``facts``, a ``Config`` and ``figure``. Features carry their records and
their extractor, so that a metric that needs labels, captions, patients or the pictures themselves finds them there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .. import config as configs
from ..config import option
from ..errors import DataError, MedTuneError
from ..registry import Registry
from .features import Features
from .moments import Moments
from .uncertainty.bootstrap import bootstrap
from .uncertainty.interval import FEWEST_GROUPS, Groups, interval

METRICS: Registry[type[Metric]] = Registry("metric", __package__ + ".metrics")


CHOSEN, CAPTIONS, LABELS = "chosen", "captions", "labels"
Weighted = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""How often each real image counts (B, N) and each generated one (B, M) -> the figures (B,); NaN where there is none."""


class Undefined(MedTuneError):
    """A figure that these images do not have; the text is the reason that a report shows."""


@dataclass(frozen=True)
class MetricFacts:
    """What a reader should know of a metric.

    ``direction`` is the better one, "lower" or "higher". ``biased``: the figure depends on how many images there are, so that
    only figures of equally many can be compared. ``uses_real``: it looks at the real images at all. ``space`` says in which
    features it is computed: "chosen" (any extractor), "captions" (an image-text model, whose features carry ``texts``), "labels"
    (probabilities of findings), or the name of an extractor that needs no weights. ``low`` and ``high`` bound the figure.
    """

    title: str
    direction: str
    says: str
    paper: str
    biased: bool = True
    uses_real: bool = True
    space: str = CHOSEN
    low: float | None = None
    high: float | None = None

    def cut(self, bound: float | None) -> float | None:
        """The end of an interval, cut to what the figure can be."""
        if bound is None or (self.low is None and self.high is None):
            return bound
        return float(np.clip(bound, self.low, self.high))


@dataclass(frozen=True)
class Score:
    """One figure of a report; ``label`` is the class it is of, or None for all images together.

    ``without_real`` and ``without_fake`` are the figures with each group of patients, or of generated images, left out: what an
    interval of the difference of two scores is made from. The keys say which images are in which group.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n_real: int
    n_fake: int
    direction: str
    reason: str | None
    extractor: str
    label: str | None = None
    interval: str = ""
    without_real: tuple[float, ...] = ()
    without_fake: tuple[float, ...] = ()
    real_key: str = ""
    fake_key: str = ""

    def to_json(self) -> dict[str, Any]:
        """The score as JSON values."""
        return asdict(self) | {"without_real": list(self.without_real), "without_fake": list(self.without_fake)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Score:
        """The score from ``to_json``'s values; TypeError when they are something else."""
        return cls(**values | {name: tuple(values.get(name, ())) for name in ("without_real", "without_fake")})


@dataclass(frozen=True)
class MetricConfig:
    """What every metric can be told."""

    least: int = option(8, "Fewest images, real or generated, from which the figure is given at all.", low=2, high=100_000)
    groups: int = option(20, "Groups of patients left out in turn for the interval; 0 gives no interval.", low=0, high=1000,
                         advanced=True)
    interval: str = option("jackknife", "How the interval is made. The bootstrap counts some images twice: metrics of diversity and "
                           "Frechet distances have none.", choices=("jackknife", "percentile", "bca"), advanced=True)
    repeats: int = option(2000, "Draws of the bootstrap.", low=100, high=100_000, advanced=True)


class Metric(ABC):
    """A figure from (real, fake), in that order."""

    name: ClassVar[str]
    facts: ClassVar[MetricFacts]
    Config: ClassVar[type] = MetricConfig

    def __init__(self, config: Any = None):
        self.config = configs.check(config if config is not None else self.Config())

    @abstractmethod
    def figure(self, real: Features, fake: Features) -> float:
        """The figure, from sets that are large enough, finite and of one dimension; Undefined where it has no meaning for them."""

    def without(self, real: Features, fake: Features, real_groups: np.ndarray,
                fake_groups: np.ndarray) -> tuple[list[float], list[float]]:
        """The figures with each group of real and of generated images left out; to be overridden where that is cheaper."""
        without_real = [self.figure(part, fake) for part in _parts(real, real_groups)] if self.facts.uses_real else []
        return without_real, [self.figure(real, part) for part in _parts(fake, fake_groups)]

    def weighted(self, real: Features, fake: Features) -> Weighted | None:
        """The figure as a function of how often each image counts, for the bootstrap; None where that has no meaning."""
        return None

    def of_label(self, real: Features, fake: Features, label: str) -> tuple[Metric, Features, Features]:
        """What gives one label's figure: this metric, of the images that have the label; to be overridden where it is another."""
        parts = ([index for index, record in enumerate(features.records) if label in record.labels] for features in (real, fake))
        return self, *(features.pick(part) for features, part in zip((real, fake), parts))

    def of_moments(self, real: Moments, fake: Moments) -> float | None:
        """The figure from moments alone, for sets too large to keep their features; None for a metric that needs the features."""
        return None

    def score(self, real: Features, fake: Features, label: str | None = None) -> Score:
        """The figure with everything that belongs to it; null with the reason where it cannot be had.

        Raises DataError when the two sets come from different extractors.
        """
        check_pair(real, fake)
        blank = Score(self.name, None, None, None, len(real), len(fake), self.facts.direction, None, fake.extractor_id, label)
        reason = self.obstacle(real, fake)
        if reason:
            return replace(blank, reason=reason)
        try:
            value = float(self.figure(real, fake))
        except Undefined as error:
            return replace(blank, reason=str(error))
        if not np.isfinite(value):
            return replace(blank, reason=f"the computation gave {value}")
        return self._with_interval(replace(blank, value=value), real, fake)

    def _with_interval(self, score: Score, real: Features, fake: Features) -> Score:
        if self.config.groups < FEWEST_GROUPS:
            return score
        of_real, of_fake = (Groups.of(features.units(), self.config.groups) for features in (real, fake))
        try:
            without = self.without(real, fake, of_real.each, of_fake.each)
        except Undefined:  # a group holds what the figure cannot do without
            return score
        if not all(np.isfinite(values).all() for values in without):
            return score
        score = replace(score, without_real=tuple(map(float, without[0])), without_fake=tuple(map(float, without[1])),
                        real_key=of_real.key, fake_key=of_fake.key)
        used = [values for values, is_used in zip(without, (self.facts.uses_real, True)) if is_used]
        kind, weighted = self.config.interval, self.weighted(real, fake)
        if kind == "jackknife" or weighted is None:
            bounds, kind = interval(score.value, used), "jackknife"
        else:
            bounds = bootstrap(weighted, real.units(), fake.units(), repeats=self.config.repeats, kind=kind, value=score.value,
                               without=without)
        low, high = (self.facts.cut(bound) for bound in bounds)
        return replace(score, low=low, high=high, interval=kind if low is not None else "")

    def obstacle(self, real: Features, fake: Features) -> str | None:
        """Why the figure cannot be had of these sets, as far as their numbers tell; otherwise None."""
        for name, features in (("real", real), ("generated", fake)):
            if features is real and not self.facts.uses_real:
                continue
            if len(features) < self.config.least:
                return f"{len(features)} {name} images; at least {self.config.least} are needed"
            broken = int((~np.isfinite(features.values).all(axis=1)).sum())
            if broken:
                return f"the features of {broken} of {len(features)} {name} images are not finite"
        return None


def _parts(features: Features, groups: np.ndarray) -> list[Features]:
    """The features without each group."""
    return [features.pick(np.flatnonzero(groups != group)) for group in range(groups.max() + 1)]


def check_pair(real: Features, fake: Features) -> None:
    """DataError unless both sets of features are of one space."""
    if real.values.shape[1] != fake.values.shape[1] or real.extractor_id != fake.extractor_id:
        said = [f"{features.values.shape[1]} dimensions from {features.extractor_id or 'an unknown extractor'}"
                for features in (real, fake)]
        raise DataError(f"real features have {said[0]}, generated ones {said[1]}: extract both with the same extractor")


def make_metric(name: str, **options: Any) -> Metric:
    """The metric of that name, with options of its config."""
    kind = METRICS[name]
    return kind(configs.from_json(kind.Config, options))
