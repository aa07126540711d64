"""Retrieval: how often an image's own caption is among the k nearest of all distinct ones (Xu et al. 2018, R-precision)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..features import Features
from ..measures.cosine import captions, directions
from ..measures.mean import ImageMean
from ..metric import CAPTIONS, METRICS, MetricFacts, Undefined


class Retrieval(ImageMean):
    """By chance it is k over the number of distinct captions, which sets that are compared must share."""

    k: ClassVar[int]

    def values(self, fake: Features) -> np.ndarray:
        images, texts = directions(fake.values), directions(captions(fake), "captions")
        if not fake.records:
            raise Undefined("images without records have no captions to choose among")
        names = [record.caption for record in fake.records]
        _, first, own = np.unique(names, return_index=True, return_inverse=True)
        if len(first) <= self.k:
            raise Undefined(f"{len(first)} distinct captions; to choose {self.k} of them takes at least {self.k + 1}")
        found = images @ texts[first].T  # (M, captions)
        right = found[np.arange(len(found)), own.reshape(-1)]
        return ((found >= right[:, None]).sum(1) <= self.k).astype(np.float64)  # a tie is a miss


def facts_of(k: int) -> MetricFacts:
    """The facts of R@k."""
    return MetricFacts(
        title=f"Retrieval R@{k}",
        direction="higher",
        says=f"the share of generated images whose own caption is among the {k} nearest of all distinct ones in an image-text model's "
             f"features; by chance {k} over the number of captions",
        paper="Xu et al. 2018, AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks",
        uses_real=False,
        space=CAPTIONS,
        low=0.0,
        high=1.0,
    )


@METRICS.register("retrieval-r1")
class RetrievalR1(Retrieval):
    """The own caption is the nearest."""

    name, k, facts = "retrieval-r1", 1, facts_of(1)


@METRICS.register("retrieval-r5")
class RetrievalR5(Retrieval):
    """The own caption is among the five nearest."""

    name, k, facts = "retrieval-r5", 5, facts_of(5)
