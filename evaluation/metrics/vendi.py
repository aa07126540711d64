"""Vendi score: the effective number of different images among the generated ones (Friedman and Dieng 2023).

exp of the entropy of the eigenvalues of K / N, K the cosine similarities. The eigenvalues come from the smaller of the (N, N) and
the (D, D) Gram matrix; the entropy is the vendi-score package's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...config import option
from ..features import Features
from ..metric import METRICS, Metric, MetricConfig, MetricFacts, Undefined


@dataclass(frozen=True)
class VendiConfig(MetricConfig):
    """The order of the entropy besides what every metric has."""

    order: float = option(1.0, "Order q of the entropy: a small one counts rare images more, a large one common images.",
                          above=0, high=100, step=0.1, advanced=True)


@METRICS.register("vendi")
class Vendi(Metric):
    """1 when all images are alike, N when no two share anything. It sees diversity alone, and noise has plenty."""

    name = "vendi"
    facts = MetricFacts(
        title="Vendi score",
        direction="higher",
        says="the effective number of different images among the generated ones, whatever the real ones are",
        paper="Friedman and Dieng 2023, The Vendi Score",
        uses_real=False,
        low=1.0,
    )
    Config = VendiConfig

    def figure(self, real: Features, fake: Features) -> float:
        values = fake.values.astype(np.float64)
        empty = int((np.linalg.norm(values, axis=1) == 0).sum())
        if empty:
            raise Undefined(f"the features of {empty} images are all zero, which have no direction to compare")
        return vendi_score(values, self.config.order)


def vendi_score(values: np.ndarray, order: float = 1.0) -> float:
    """The Vendi score of features (N, D), none of length zero: between 1 and N."""
    from vendi_score.vendi import entropy_q

    rows = values / np.linalg.norm(values, axis=1, keepdims=True)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    return float(np.exp(entropy_q(np.linalg.eigvalsh(gram / len(rows)).clip(0), q=order)))
