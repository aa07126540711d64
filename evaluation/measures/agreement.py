"""What a labeller finds in generated images against the labels of their prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...config import option
from ...data.findings import NORMAL
from ...errors import near
from ..features import Features
from ..metric import Metric, MetricConfig, Undefined, Weighted
from .mean import WeightedMetric

ALIKE = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
"""Findings that NIH ChestX-ray14 and torchxrayvision call otherwise than CheXpert does."""


@dataclass(frozen=True)
class AgreementConfig(MetricConfig):
    """The findings besides what every metric has."""

    findings: tuple[str, ...] = option((), "Findings that count; empty for all labels of the images.")


class Agreement(WeightedMetric):
    """The mean over findings of a figure of (the finding's probability, whether the prompt has it).

    A finding that all images have, or none, has no figure, and counts for nothing in the mean.
    """

    Config = AgreementConfig

    @abstractmethod
    def of_finding(self, probability: np.ndarray, asked: np.ndarray) -> Weighted:
        """The figure (B,) of one finding as a function of weights, from (M,) in [0, 1] and (M,) booleans, of both kinds."""

    def weighted(self, real: Features, fake: Features) -> Weighted:
        figures = [self.of_finding(*found) for found in judged(fake, self.config.findings).values()]
        return lambda a, b: np.mean([figure(a, b) for figure in figures], axis=0)

    def of_label(self, real: Features, fake: Features, label: str) -> tuple[Metric, Features, Features]:
        """One finding's figure: of all images, with the finding and without."""
        return type(self)(replace(self.config, findings=(label,))), real, fake


def judged(features: Features, findings: tuple[str, ...] = ()) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By finding: its probability (N,) and whether the record has it (N,), where some have it and some have not.

    Undefined where there is no such finding, or the labeller does not know one; an image without findings that is called normal
    is no finding to be known.
    """
    known = getattr(features.extractor, "labels", None)
    if known is None or not features.records:
        raise Undefined("these features are not a labeller's probabilities of findings, with the images' records")
    had = {label for record in features.records for label in record.labels}
    wanted = findings or sorted(had if NORMAL in known else had - {NORMAL})
    places = {label: _place(label, known) for label in wanted}
    strange = [f"{label!r}{near(label, known)}" for label, place in places.items() if place is None]
    if strange:
        raise Undefined(f"{features.extractor.name} does not know {', '.join(strange)}; it knows {', '.join(known)}. Rename the "
                        "labels, or name the findings that count with the option findings")
    asked = {label: np.array([label in record.labels for record in features.records]) for label in wanted}
    there = {label: (features.values[:, places[label]].astype(np.float64), truth)
             for label, truth in asked.items() if 0 < truth.sum() < len(truth)}
    if not there:
        raise Undefined("; ".join(f"{label}: {'all' if truth.any() else 'none'} of {len(truth)} images have it" for label, truth
                                  in asked.items()) or "the images have no labels")
    return there


def _place(label: str, known: Sequence[str]) -> int | None:
    """Where a finding stands among those that a labeller knows, under either of its names."""
    names = (label, ALIKE.get(label), *(name for name, other in ALIKE.items() if other == label))
    return next((list(known).index(name) for name in names if name in known), None)
