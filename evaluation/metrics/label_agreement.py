"""Label agreement: the AUROC of a classifier's findings in the generated images against their prompts' labels.

Prompt alignment without an image-text model, by finding: can a classifier of real images tell which of the generated ones were
asked to show it (as in the classification accuracy score, Ravuri and Vinyals 2019, with the parts of data exchanged).
"""

from __future__ import annotations

import numpy as np

from ..measures.agreement import Agreement
from ..metric import LABELS, METRICS, MetricFacts, Weighted


@METRICS.register("label-agreement")
class LabelAgreement(Agreement):
    """It needs no threshold, and says nothing of how many images the classifier would call positive."""

    name = "label-agreement"
    facts = MetricFacts(
        title="Label agreement (AUROC)",
        direction="higher",
        says="how well a classifier's probability of a finding tells generated images whose prompts have it from the others: 0.5 is "
             "chance; the mean over the findings that some prompts have and some have not",
        paper="Hanley and McNeil 1982, The Meaning and Use of the Area under a ROC Curve",
        biased=False,
        uses_real=False,
        space=LABELS,
        low=0.0,
        high=1.0,
    )

    def of_finding(self, probability: np.ndarray, asked: np.ndarray) -> Weighted:
        with_it, without = probability[asked, None], probability[~asked]
        won = (with_it > without) + 0.5 * (with_it == without)  # (positives, negatives)

        def figure(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
            a, b = weights[:, asked], weights[:, ~asked]
            with np.errstate(invalid="ignore"):
                return ((a @ won) * b).sum(1) / (a.sum(1) * b.sum(1))

        return figure
