"""A trained classifier, or any labeller, on test images: every figure of its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...data.record import Record
from ...errors import DataError, listing
from ..downstream.contest import Contest
from ..downstream.protocol import Cell
from ..downstream.trial import Trial
from ..extractor import Labeller
from ..features import extract
from .calibration import BINS
from .label_set import count_labels, settle_mode, to_targets
from .network import SINGLE


def examine(labeller: Labeller, test: Sequence[Record], *, cache: str | Path | None = None, bins: int = BINS,
            on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """The figures of a labeller's answers as JSON values: ``labels``, ``mode``, ``n_test``, ``thresholds`` and ``figures``, rows of
    label, figure, value, low, high and reason as in a downstream study.

    Findings count as told from the labeller's thresholds on, or from 0.5 where it has none. Raises DataError for images that it
    learnt from, and where no test image has any of its labels.
    """
    features = extract(test, labeller, cache, on_progress=on_progress)
    seen = [record.image.name for record, digest in zip(features.records, features.hashes) if digest in labeller.seen()]
    if seen:
        raise DataError(f"the classifier learnt from {len(seen)} of the {len(test)} test images: {listing(seen)}. Figures on "
                        "these say nothing of new patients; leave them out")
    labels, held = tuple(labeller.labels), count_labels(test)
    if not any(held[label] for label in labels):
        raise DataError(f"no test image has any of the classifier's labels {listing(labels, 20)}; they have: "
                        f"{listing(held, 20) or 'none'}")
    mode = settle_mode(test, labels) if _exclusive(labeller) else "multi"
    units = [f"image {index}" if record.patient is None else f"patient {record.patient}" for index, record in enumerate(test)]
    thresholds = {**dict.fromkeys(labels, 0.5), **getattr(labeller, "thresholds", {})}
    trial = Trial(Cell("given", "", "", 1.0, 0), features.values, thresholds, {}, {"n_real": 0, "n_synthetic": 0})
    contest = Contest([trial], to_targets(test, labels).numpy().astype("float64"), units, labels, mode, bins=bins)
    return {"labels": list(labels), "mode": mode, "n_test": len(test), "patients": len(set(units)), "thresholds": thresholds,
            "classifier": labeller.about(), "figures": contest.table(trial)}


def _exclusive(labeller: Labeller) -> bool:
    return getattr(labeller, "mode", "multi") == SINGLE
