"""The mean of a metric over the labels: each label counts the same, however many images it has."""

from __future__ import annotations

import numpy as np

from .features import Features
from .metric import Metric, Undefined

MACRO = "mean over labels"


class Macro(Metric):
    """Another metric, as its mean over the labels of the real images."""

    def __init__(self, metric: Metric):
        self.name, self.facts, self.config, self.metric = metric.name, metric.facts, metric.config, metric

    def figure(self, real: Features, fake: Features) -> float:
        """The mean; Undefined where a label has too few images."""
        found = {}
        for label in sorted({label for record in real.records for label in record.labels}):
            metric, *parts = self.metric.of_label(real, fake, label)
            reason = metric.obstacle(*parts)
            if reason:
                raise Undefined(f"{label}: {reason}")
            found[label] = metric.figure(*parts)
        if not found:
            raise Undefined("the real images have no labels")
        return float(np.mean(list(found.values())))
