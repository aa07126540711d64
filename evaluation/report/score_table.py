"""Scores as tables: a row for each figure of each arm, and arms x metrics with figures as text, for the page and for LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..macro import MACRO
from ..metric import METRICS, Score
from .arm import Arm
from .comparison import BEST, TIED, Comparison, compare
from .number import figure, half_width, listed, p_value

COLUMNS = ("arm", "metric", "label", "value", "low", "high", "direction", "standing", "n_real", "n_fake", "reason", "extractor",
           "interval", "rank", "rank_low", "rank_high", "p_best")
ARROWS = {"lower": "↓", "higher": "↑"}
Comparisons = Mapping[tuple[str, "str | None"], Comparison]


def comparisons(arms: Sequence[Arm]) -> dict[tuple[str, str | None], Comparison]:
    """By (metric, label), how the arms that are no reference compare, in their order."""
    keys = dict.fromkeys((score.metric, score.label) for arm in arms for score in arm.scores.scores)
    return {key: compare([arm.scores.find(*key) for arm in arms if not arm.reference]) for key in keys}


def rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Every figure of every arm as one row of COLUMNS, with its standing and rank among the arms.

    ``p_best`` is the p-value, corrected over all pairs, of the difference from the arm with the best figure.
    """
    made, rivals = [], [arm for arm in arms if not arm.reference]
    for (metric, label), comparison in comparisons(arms).items():
        best = next((place for place, rank in enumerate(comparison.ranks) if rank and rank.place == 1), None)
        for arm in arms:
            score = arm.scores.find(metric, label)
            if score is not None:
                made.append(_row(arm.name, score, _told(rivals.index(arm), best, comparison) if arm in rivals
                                 else {"standing": "reference"}))
    return made


def _told(place: int, best: int | None, comparison: Comparison) -> dict[str, Any]:
    """What the comparison says of one arm."""
    rank = comparison.ranks[place]
    contrast = comparison.between(place, best) if best not in (None, place) else None
    return {"standing": comparison.standings[place], "rank": rank.place if rank else None, "rank_low": rank.low if rank else None,
            "rank_high": rank.high if rank else None, "p_best": contrast.p if contrast else None}


def _row(name: str, score: Score, told: Mapping[str, Any]) -> dict[str, Any]:
    return {column: name if column == "arm" else told.get(column, getattr(score, column, None)) for column in COLUMNS}


def title_of(metric: str) -> str:
    """A metric's name for readers."""
    return METRICS[metric].facts.title if metric in METRICS else metric


def labels_of(table: Sequence[dict[str, Any]]) -> list[str]:
    """The classes of a table, their mean last."""
    found = {row["label"] for row in table} - {None}
    return sorted(found - {MACRO}) + [MACRO] * (MACRO in found)


def score_table(arms: Sequence[Arm], table: Sequence[dict[str, Any]], label: str | None,
                compared: Comparisons | None = None) -> dict[str, Any]:
    """The columns (metrics) and rows (arms) of the scores of one class, or of all images.

    A metric without any figure is no column: ``absent`` has it, with the reasons.
    """
    chosen = [row for row in table if row["label"] == label]
    there = {row["metric"] for row in chosen if row["value"] is not None}
    metrics = [metric for metric in dict.fromkeys(row["metric"] for row in chosen) if metric in there]
    untuned = next((arm.name for arm in arms if not arm.tuned and not arm.reference), None)
    by_place = {(row["arm"], row["metric"]): row for row in chosen}
    heads = [_head(metric, next(row["direction"] for row in chosen if row["metric"] == metric),
                   (compared or {}).get((metric, label))) for metric in metrics]
    cells = {arm.name: [cell(by_place.get((arm.name, metric)), by_place.get((untuned, metric))) for metric in metrics] for arm in arms}
    lines = [{"name": arm.name, "reference": arm.reference, "cells": cells[arm.name], "n": _numbers(cells[arm.name])}
             for arm in arms if any((arm.name, metric) in by_place for metric in metrics)]
    return {"label": label, "heads": heads, "lines": lines, "absent": _absent(chosen, there),
            "power": any(head["detectable"] for head in heads), "contrasts": _contrasts(arms, heads, label, compared or {})}


def _absent(chosen: Sequence[dict[str, Any]], there: set[str]) -> list[tuple[str, str]]:
    """(metrics, reason) of what no arm has, metrics of one reason together."""
    found: dict[str, list[str]] = {}
    for metric in dict.fromkeys(row["metric"] for row in chosen if row["metric"] not in there):
        reasons = dict.fromkeys(row["reason"] or "no figure" for row in chosen if row["metric"] == metric)
        found.setdefault("; ".join(reasons), []).append(title_of(metric))
    return [(", ".join(titles), reason) for reason, titles in found.items()]


def _head(metric: str, direction: str, comparison: Comparison | None) -> dict[str, Any]:
    detectable = comparison.detectable if comparison else None
    ends = list(dict.fromkeys(map(figure, detectable))) if detectable else []
    return {"name": metric, "title": title_of(metric), "says": METRICS[metric].facts.says if metric in METRICS else "",
            "direction": direction, "arrow": ARROWS[direction], "detectable": " to ".join(ends),
            "reason": comparison.reason if comparison else ""}


def _numbers(cells: Sequence[dict[str, Any]]) -> tuple[int, int] | None:
    """The numbers of images where they are the same for all figures of an arm."""
    found = {one["n"] for one in cells if one["n"] is not None}
    return found.pop() if len(found) == 1 else None


def _contrasts(arms: Sequence[Arm], heads: Sequence[dict[str, Any]], label: str | None, compared: Comparisons) -> list[dict[str, Any]]:
    """Every pair of arms at every metric, as text."""
    names = [arm.name for arm in arms if not arm.reference]
    return [{"metric": head["title"], "first": names[one.first], "second": names[one.second], "holds": one.holds, "p": p_value(one.p),
             **_difference(one.difference)}
            for head in heads if (head["name"], label) in compared for one in compared[head["name"], label].contrasts]


def _difference(found: Any) -> dict[str, str]:
    half = half_width(found.low, found.high)
    return {"value": figure(found.value, half), "interval": f"{figure(found.low, half)} to {figure(found.high, half)}",
            "detectable": figure(found.detectable, half)}


def verdicts(table: dict[str, Any]) -> list[tuple[str, str]]:
    """For each metric that tells arms apart, or shows that it cannot, a sentence; metrics of one sentence together."""
    by_text: dict[str, list[str]] = {}
    for title, text in _verdicts(table):
        by_text.setdefault(text, []).append(title)
    return [(", ".join(titles), text) for text, titles in by_text.items()]


def _verdicts(table: dict[str, Any]) -> list[tuple[str, str]]:
    said = []
    for column, head in enumerate(table["heads"]):
        cells = [(line["name"], line["cells"][column]) for line in table["lines"]]
        best = [f"{name} is best, {one['text']} ({one['interval']})" for name, one in cells if one.get("standing") == BEST]
        tied = [name for name, one in cells if one.get("standing") == TIED]
        if best or tied:
            said.append((head["title"], best[0] if best else f"{listed(tied)} cannot be told apart"))
        elif head["reason"]:
            said.append((head["title"], f"not compared: {head['reason']}"))
    return said


def cell(row: dict[str, Any] | None, untuned: dict[str, Any] | None) -> dict[str, Any]:
    """A figure as it is shown: value, interval, rank, numbers of images, share of the untuned base's, standing, or the reason."""
    if row is None:
        return {"value": None, "reason": "not computed", "n": None}
    shown = {"value": row["value"], "reason": row["reason"], "n": (row["n_real"], row["n_fake"]), "standing": row["standing"],
             "low": row["low"], "high": row["high"], "rank": row["rank"], "ranks": _ranks(row)}
    if row["value"] is None:
        return shown
    half = half_width(row["low"], row["high"])
    shown["text"] = figure(row["value"], half)
    shares = untuned and untuned is not row and untuned["value"] and untuned["value"] > 0 and row["value"] > 0
    shown["share"] = f"{100 * row['value'] / untuned['value']:.0f} % of untuned" if shares else None
    shown["interval"] = f"{figure(row['low'], half)} to {figure(row['high'], half)}" if half is not None else None
    return shown


def _ranks(row: dict[str, Any]) -> str:
    """The places that an arm may have, as text."""
    if row["rank"] is None:
        return ""
    return f"{row['rank_low']}–{row['rank_high']}" if row["rank_low"] != row["rank_high"] else str(row["rank"])
