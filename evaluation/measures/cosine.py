"""Directions of features, for the metrics that compare by the cosine, and captions' features beside the images'."""

from __future__ import annotations

import numpy as np

from ..features import Features
from ..metric import Undefined


def directions(values: np.ndarray, what: str = "images") -> np.ndarray:
    """Rows (N, D) float64 of length 1; Undefined where one has none to scale."""
    values = values.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    empty = int((lengths == 0).sum())
    if empty:
        raise Undefined(f"the features of {empty} {what} are all zero, which have no direction to compare")
    return values / lengths


def captions(features: Features, name: str = "generated") -> np.ndarray:
    """The captions' features (N, D) float64; Undefined where an image has no caption, or its features cannot be used."""
    if features.texts is None:
        raise Undefined(f"the captions of the {name} images have no features: choose an extractor that reads them, such as open-clip")
    missing = sum(not record.caption.strip() for record in features.records)
    if missing:
        raise Undefined(f"{missing} of {len(features)} {name} images have no caption")
    broken = int((~np.isfinite(features.texts).all(axis=1)).sum())
    if broken:
        raise Undefined(f"the features of the captions of {broken} of {len(features)} {name} images are not finite")
    return features.texts.astype(np.float64)


def cosines(features: Features) -> np.ndarray:
    """The cosine (N,) between each image's features and its own caption's."""
    texts = directions(captions(features), "captions")
    return (directions(features.values) * texts).sum(1)
