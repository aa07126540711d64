"""Prompt alignment: the cosine between an image's features and its caption's (Radford et al. 2021)."""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..measures.cosine import cosines
from ..measures.mean import ImageMean
from ..metric import CAPTIONS, METRICS, MetricFacts


@METRICS.register("alignment")
class Alignment(ImageMean):
    """How large it can be depends on the image-text model: set it beside the real images' own."""

    name = "alignment"
    facts = MetricFacts(
        title="Prompt alignment",
        direction="higher",
        says="the mean cosine between a generated image and its own caption in an image-text model's features",
        paper="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision",
        biased=False,
        uses_real=False,
        space=CAPTIONS,
        low=-1.0,
        high=1.0,
    )

    def values(self, fake: Features) -> np.ndarray:
        return cosines(fake)
