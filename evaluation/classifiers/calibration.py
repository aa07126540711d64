"""How far a classifier's probabilities are from how often it is right.

Expected calibration error: images are sorted into bins of equal width by probability, and the distance of mean probability and
share of positives is averaged over the bins by their number of images (Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML
2017). It depends on the number of bins, which is therefore told with it. Brier score: the mean squared distance of probability and
truth (Brier, Monthly Weather Review 1950).
"""

from __future__ import annotations

import numpy as np

BINS = 15


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS, weights: np.ndarray | None = None) -> np.ndarray:
    """The expected calibration error (B,) of probabilities (N,); ``weights`` (B, N) say how often each image counts."""
    weights = np.ones((1, len(truth))) if weights is None else weights
    apart = np.asarray(truth, dtype=np.float64) - probabilities  # summed over a bin: images times the distance
    sums = np.stack([weights[:, chosen] @ apart[chosen] for chosen in _members(probabilities, bins)])  # (bins, B)
    return np.abs(sums).sum(0) / weights.sum(1)


def brier(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The Brier score (B,) of probabilities (N,)."""
    weights = np.ones((1, len(truth))) if weights is None else weights
    return weights @ (np.asarray(truth, dtype=np.float64) - probabilities) ** 2 / weights.sum(1)


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> list[dict[str, float | int]]:
    """What a reliability diagram shows: of each bin that is not empty its bounds, images, mean probability and share of positives."""
    truth, found = np.asarray(truth, dtype=np.float64), []
    for place, chosen in enumerate(_members(probabilities, bins)):
        if len(chosen):
            found.append({"low": place / bins, "high": (place + 1) / bins, "images": len(chosen),
                          "probability": float(probabilities[chosen].mean()), "positive": float(truth[chosen].mean())})
    return found


def _members(probabilities: np.ndarray, bins: int) -> list[np.ndarray]:
    """The indices in each bin; a bin holds its upper bound, the first one 0 too."""
    place = np.clip(np.ceil(np.asarray(probabilities, dtype=np.float64) * bins).astype(int) - 1, 0, bins - 1)
    return [np.flatnonzero(place == number) for number in range(bins)]
