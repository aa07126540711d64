"""Frechet joint distance: of images and their captions together, so that an image of another caption counts (DeVries et al. 2019)."""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..measures.cosine import captions
from ..measures.gaussians import frechet_distance
from ..metric import CAPTIONS, METRICS, Metric, MetricFacts, Undefined


@METRICS.register("fjd")
class FJD(Metric):
    """The captions' features are scaled to the mean length of the real images' features, as the paper does."""

    name = "fjd"
    facts = MetricFacts(
        title="FJD",
        direction="lower",
        says="how far the generated images with their captions lie from the real ones with theirs; above the Frechet distance of the "
             "images where image and caption do not go together, or the captions are others",
        paper="DeVries et al. 2019, On the Evaluation of Conditional GANs",
        space=CAPTIONS,
        low=0.0,
    )

    def figure(self, real: Features, fake: Features) -> float:
        real_texts, fake_texts = captions(real, "real"), captions(fake)
        lengths = np.linalg.norm(real_texts, axis=1).mean()
        if lengths == 0:
            raise Undefined("the features of all captions of the real images are zero")
        scale = np.linalg.norm(real.values.astype(np.float64), axis=1).mean() / lengths
        return frechet_distance(_joint(real.values, real_texts, scale), _joint(fake.values, fake_texts, scale))


def _joint(values: np.ndarray, texts: np.ndarray, scale: float) -> np.ndarray:
    """(N, D + E): images and scaled captions side by side."""
    return np.concatenate([values.astype(np.float64), scale * texts], axis=1)
