"""What a metric is: a figure from real and generated features, with its interval, or the reason why it cannot be had.

A new metric is one file in ``metrics/``: a class with ``facts``, a ``Config`` and ``compute``. Features carry their records and
their extractor, so that a metric that needs labels, captions, patients or the pictures themselves finds them there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from .. import config as configs
from ..config import option
from ..errors import DataError
from ..registry import Registry
from .features import Features

METRICS: Registry[type[Metric]] = Registry("metric", __package__ + ".metrics")


@dataclass(frozen=True)
class MetricFacts:
    """What a reader should know of a metric.

    ``direction`` is the better one, "lower" or "higher". ``biased``: the figure depends on how many images there are, so that
    only figures of equally many can be compared. ``uses_real``: it looks at the real images at all.
    """

    title: str
    direction: str
    says: str
    paper: str
    biased: bool = True
    uses_real: bool = True


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval at 95 %, or None and the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Score:
    """One figure of a report; ``label`` is the class it is of, or None for all images together."""

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

    def to_json(self) -> dict[str, Any]:
        """The score as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class MetricConfig:
    """What every metric can be told."""

    least: int = option(8, "Fewest images, real or generated, from which the figure is given at all.", low=2, high=100_000)
    groups: int = option(20, "Groups of patients left out in turn for the interval; 0 gives no interval.", low=0, high=1000,
                         advanced=True)


class Metric(ABC):
    """A figure from (real, fake), in that order."""

    name: ClassVar[str]
    facts: ClassVar[MetricFacts]
    Config: ClassVar[type] = MetricConfig

    def __init__(self, config: Any = None):
        self.config = configs.check(config if config is not None else self.Config())

    @abstractmethod
    def compute(self, real: Features, fake: Features) -> Estimate:
        """The figure, from sets that are large enough, finite and of one dimension; a reason where it has no meaning for them."""

    def score(self, real: Features, fake: Features, label: str | None = None) -> Score:
        """The figure with everything that belongs to it; null with the reason where it cannot be had.

        Raises DataError when the two sets come from different extractors.
        """
        check_pair(real, fake)
        reason = self._obstacle(real, fake)
        estimate = Estimate(None, reason=reason) if reason else _finite(self.compute(real, fake))
        return Score(self.name, estimate.value, estimate.low, estimate.high, len(real), len(fake), self.facts.direction,
                     estimate.reason, fake.extractor_id, label)

    def _obstacle(self, real: Features, fake: Features) -> str | None:
        for name, features in (("real", real), ("generated", fake)):
            if features is real and not self.facts.uses_real:
                continue
            if len(features) < self.config.least:
                return f"{len(features)} {name} images; at least {self.config.least} are needed"
            broken = int((~np.isfinite(features.values).all(axis=1)).sum())
            if broken:
                return f"the features of {broken} of {len(features)} {name} images are not finite"
        return None


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


def _finite(estimate: Estimate) -> Estimate:
    if estimate.value is None or np.isfinite(estimate.value):
        return estimate
    return Estimate(None, reason=f"the computation gave {estimate.value}")
