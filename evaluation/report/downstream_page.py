"""What the page shows of a downstream study: curves over the share of real images, and the differences that hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..classifiers.recognition import LOWER
from .number import figure, half_width, p_value
from .overview import legend
from .plots.fractions import fraction_curves
from .plots.svg import Point

if TYPE_CHECKING:
    from ..downstream.result import Downstream

TITLES = {"auroc": "AUROC", "average_precision": "average precision", "f1": "F1", "ece": "expected calibration error",
          "brier": "Brier score", "balanced_accuracy": "balanced accuracy"}
FIRST = ("auroc", "accuracy")
"""The figures that are shown at once; the others unfold."""


def downstream_section(downstream: Downstream | None) -> dict[str, Any] | None:
    """Curves, differences and missing figures; None without a study."""
    if downstream is None:
        return None
    curves = [curve for curve in downstream.curves if any(point["value"] is not None for point in curve["points"])]
    keys = list(dict.fromkeys((curve["label"], curve["figure"]) for curve in curves))
    named = dict.fromkeys(label for label, _ in keys)
    overall = [label for label in named if label not in downstream.labels] or list(downstream.labels)[:1]
    first = [key for key in keys if key[0] in overall and key[1] in FIRST]
    return {"legend": legend(downstream.contenders), "first": [_plot(downstream, *key) for key in first], "counts": downstream.counts,
            "more": [_plot(downstream, *key) for key in keys if key not in first],
            "pairs": [_pair(pair) for pair in downstream.pairs if pair["label"] in overall], "seeds": _seeds(downstream),
            "notes": [*downstream.notices, *_missing(downstream)]}


def _plot(downstream: Downstream, label: str, name: str) -> dict[str, str]:
    by_contender = {curve["contender"]: curve["points"] for curve in downstream.curves
                    if (curve["label"], curve["figure"]) == (label, name)}
    title = f"{TITLES.get(name, name.replace('_', ' '))}, {label}"
    title = title[:1].upper() + title[1:]
    curves = [[(point["fraction"], _point(point)) for point in by_contender.get(contender, ())] for contender in downstream.contenders]
    return {"title": title, "svg": fraction_curves(title, downstream.contenders, curves, "lower" if name in LOWER else "higher")}


def _point(point: dict[str, Any]) -> Point | None:
    return Point(point["value"], point["low"], point["high"]) if point["value"] is not None else None


def _pair(pair: dict[str, Any]) -> dict[str, Any]:
    shown = {"first": pair["first"], "second": pair["second"], "share": f"{100 * pair['fraction']:g} %", "holds": pair["holds"],
             "figure": TITLES.get(pair["figure"], pair["figure"]), "label": pair["label"],
             "reason": pair["reason"], "test": pair["test"], "value": None, "interval": None,
             "p": p_value(pair["p_holm"]) if pair["p_holm"] is not None else None}
    if pair["value"] is None:
        return shown
    half = half_width(pair["low"], pair["high"])
    return {**shown, "value": figure(pair["value"], half),
            "interval": f"{figure(pair['low'], half)} to {figure(pair['high'], half)}" if half is not None else None}


def _missing(downstream: Downstream) -> list[str]:
    """Why points are missing, each reason once."""
    return list(dict.fromkeys(f"{curve['contender']}, {curve['label']}: {point['reason']}" for curve in downstream.curves
                              for point in curve["points"] if point["value"] is None and point["reason"]))


def _seeds(downstream: Downstream) -> int:
    found: Sequence[int] = [trial["seed"] for trial in downstream.trials]
    return len(set(found))
