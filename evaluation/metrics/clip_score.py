"""CLIPScore: the cosine between an image's features and its caption's, cut at 0, times 2.5 (Hessel et al. 2021)."""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..measures.cosine import cosines
from ..measures.mean import ImageMean
from ..metric import CAPTIONS, METRICS, MetricFacts

SCALE = 2.5


@METRICS.register("clip-score")
class CLIPScore(ImageMean):
    """The paper's form, but for its words "A photo depicts" before each caption. Other programs give 100 times the cosine."""

    name = "clip-score"
    facts = MetricFacts(
        title="CLIPScore (2.5 max(cos, 0))",
        direction="higher",
        says="the mean of 2.5 max(cosine, 0) between a generated image and its own caption in an image-text model's features",
        paper="Hessel et al. 2021, CLIPScore: A Reference-free Evaluation Metric for Image Captioning",
        biased=False,
        uses_real=False,
        space=CAPTIONS,
        low=0.0,
        high=SCALE,
    )

    def values(self, fake: Features) -> np.ndarray:
        return SCALE * cosines(fake).clip(0)
