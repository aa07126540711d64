"""Vendi score: the effective number of different images among the generated ones (Friedman and Dieng 2023).

exp of the entropy of the eigenvalues of K / N, K the cosine similarities. The eigenvalues come from the smaller of the (N, N) and
the (D, D) Gram matrix; the entropy is the vendi-score package's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...config import option
from ..features import Features
from ..measures.cosine import directions
from ..metric import METRICS, Metric, MetricConfig, MetricFacts, Undefined
from ..moments import Moments


@dataclass(frozen=True)
class VendiConfig(MetricConfig):
    """The order of the entropy besides what every metric has."""

    order: float = option(1.0, "Order q of the entropy: a small one counts rare images more, a large one common images.",
                          above=0, high=100, step=0.1, advanced=True)
    infinite: bool = option(False, "The order infinity, whatever the order says: one over the largest eigenvalue, which counts the "
                            "commonest kind of image alone.", advanced=True)


@METRICS.register("vendi")
class Vendi(Metric):
    """1 when all images are alike, N when no two share anything. It sees diversity alone, and noise has plenty."""

    name = "vendi"
    facts = MetricFacts(
        title="Vendi score",
        direction="higher",
        says="the effective number of different images among the generated ones, whatever the real ones are",
        paper="Friedman and Dieng 2023, The Vendi Score; orders: Pasarkar and Dieng 2023, Cousins of the Vendi Score",
        uses_real=False,
        low=1.0,
    )
    Config = VendiConfig

    def figure(self, real: Features, fake: Features) -> float:
        return _score(directions(fake.values), self._order)

    def of_moments(self, real: Moments, fake: Moments) -> float:
        if fake.empty:
            raise Undefined(f"the features of {fake.empty} images are all zero, which have no direction to compare")
        return _score_of_gram(fake.cosine / fake.n, self._order)

    @property
    def _order(self) -> float:
        return math.inf if self.config.infinite else self.config.order


def vendi_score(values: np.ndarray, order: float = 1.0) -> float:
    """The Vendi score of features (N, D), none of length zero, of any order above 0 or infinity: between 1 and N."""
    return _score(directions(values), order)


def _score(rows: np.ndarray, order: float) -> float:
    """The Vendi score of rows (N, D) of length 1."""
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    return _score_of_gram(gram / len(rows), order)


def _score_of_gram(gram: np.ndarray, order: float) -> float:
    """The Vendi score of cosines (N, N), or of the moment (D, D) that has the same eigenvalues, over the number of images."""
    from vendi_score.vendi import entropy_q

    shares = np.linalg.eigvalsh(gram)
    shares[shares < len(gram) * np.finfo(np.float64).eps * shares[-1]] = 0  # rounding, which small orders would count as images
    return float(np.exp(entropy_q(shares, q="inf" if math.isinf(order) else order)))
