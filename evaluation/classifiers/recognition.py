"""How well findings are recognised: the figures of a classifier's probabilities, each as a function of how often an image counts.

With weights of one the figures are the usual ones; with a bootstrap's weights, (B, N), all draws are computed at once.
"""

from __future__ import annotations

import numpy as np

from .calibration import BINS, brier, calibration_error

FIGURES = ("auroc", "average_precision", "accuracy", "balanced_accuracy", "f1", "ece", "brier")
"""The figures of one label, in the order of a report. All but the last two are better when higher."""
LOWER = ("ece", "brier")


def recognition(truth: np.ndarray, probabilities: np.ndarray, threshold: float, weights: np.ndarray | None = None,
                bins: int = BINS) -> dict[str, np.ndarray]:
    """FIGURES (B,) of one label: truth (N,), probabilities (N,), positive at ``threshold`` and above. NaN where undefined."""
    truth = np.asarray(truth, dtype=np.float64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    weights = np.ones((1, len(truth))) if weights is None else np.asarray(weights, dtype=np.float64)
    ranked = _ranked(truth, probabilities, weights)
    decided = _decided(truth, probabilities >= threshold, weights)
    return {**ranked, **decided, "ece": calibration_error(truth, probabilities, bins, weights),
            "brier": brier(truth, probabilities, weights)}


def _ranked(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and average precision; images of one score come together."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true = np.cumsum(weights[:, order] * truth[order], axis=1)[:, ends]  # (B, distinct scores)
    false = np.cumsum(weights[:, order] * (1 - truth[order]), axis=1)[:, ends]
    gained, before = np.diff(true, axis=1, prepend=0), np.concatenate([np.zeros((len(true), 1)), true[:, :-1]], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (np.diff(false, axis=1, prepend=0) * (true + before) / 2).sum(1) / (true[:, -1] * false[:, -1])
        precision = np.where(true + false > 0, true / (true + false), 0.0)
        return {"auroc": area, "average_precision": (gained * precision).sum(1) / true[:, -1]}


def _decided(truth: np.ndarray, said: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    positive, negative = weights @ truth, weights @ (1 - truth)
    hit, alarm = weights @ (truth * said), weights @ ((1 - truth) * said)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"accuracy": (hit + negative - alarm) / (positive + negative),
                "balanced_accuracy": (hit / positive + 1 - alarm / negative) / 2,
                "f1": np.where(positive > 0, 2 * hit / (positive + hit + alarm), np.nan)}


def top_recognition(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None,
                    bins: int = BINS) -> dict[str, np.ndarray]:
    """Figures (B,) of the most probable of exclusive labels: truth (N, L) one-hot, probabilities (N, L).

    Accuracy; balanced accuracy, the mean recall over labels; F1, the mean over labels; the calibration of the probability of the
    label that is said; the Brier score summed over labels. NaN where a label has no image.
    """
    truth = np.asarray(truth, dtype=np.float64)
    weights = np.ones((1, len(truth))) if weights is None else np.asarray(weights, dtype=np.float64)
    said = np.eye(truth.shape[1])[probabilities.argmax(1)]  # (N, L)
    right = (truth * said).sum(1)
    positive, claimed, hit = weights @ truth, weights @ said, weights @ (truth * said)  # (B, L)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"accuracy": weights @ right / weights.sum(1), "balanced_accuracy": (hit / positive).mean(1),
                "f1": np.where(positive > 0, 2 * hit / (positive + claimed), np.nan).mean(1),
                "ece": calibration_error(right, probabilities.max(1), bins, weights),
                "brier": weights @ ((truth - probabilities) ** 2).sum(1) / weights.sum(1)}


def best_threshold(truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """The threshold of the highest F1, halfway to the next lower probability; None without both kinds of image."""
    truth, probabilities = np.asarray(truth, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if not 0 < truth.sum() < len(truth):
        return None
    values, place = np.unique(-probabilities, return_inverse=True)
    hit = np.cumsum(np.bincount(place, weights=truth))
    claimed = np.cumsum(np.bincount(place))
    best = int(np.argmax(2 * hit / (truth.sum() + claimed)))
    above = -values[best]
    return float((above - values[best + 1]) / 2) if best + 1 < len(values) else float(above)
