"""Label F1: precision and recall in one, of a classifier's findings in the generated images against their prompts' labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import option
from ..measures.agreement import Agreement, AgreementConfig
from ..metric import LABELS, METRICS, MetricFacts, Weighted


@dataclass(frozen=True)
class LabelF1Config(AgreementConfig):
    """The threshold besides the findings."""

    threshold: float = option(0.5, "Probability from which an image counts as having a finding.", low=0, high=1, step=0.05)


@METRICS.register("label-f1")
class LabelF1(Agreement):
    """It falls where the classifier's probabilities are too low or too high as a whole, too; a rare finding has a low one."""

    name = "label-f1"
    facts = MetricFacts(
        title="Label F1",
        direction="higher",
        says="how well the findings that a classifier sees in the generated images, from a threshold of probability, match their "
             "prompts' labels; the mean over the findings that some prompts have and some have not",
        paper="van Rijsbergen 1979, Information Retrieval",
        biased=False,
        uses_real=False,
        space=LABELS,
        low=0.0,
        high=1.0,
    )
    Config = LabelF1Config

    def of_finding(self, probability: np.ndarray, asked: np.ndarray) -> Weighted:
        seen = probability >= self.config.threshold
        right, either = (seen & asked).astype(float), seen.astype(float) + asked  # (M,)

        def figure(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
            there = (weights @ asked) * (weights @ ~asked) > 0
            return np.where(there, 2 * (weights @ right) / (weights @ either).clip(np.finfo(float).tiny), np.nan)

        return figure
