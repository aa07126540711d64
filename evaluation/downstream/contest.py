"""Trials of several protocols -> curves over the share of real images, and which differences between protocols hold.

Intervals are of a bootstrap over test patients and seeds, both drawn with replacement, the same draws for all trials, so that
differences are paired. P-values are DeLong's, of the mean AUROC over seeds, and McNemar's, of the answers that the mean
probabilities of the seeds give; both are about other patients, with the trained networks as they are. Holm's method raises them over
all pairs and fractions of one figure and label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from ..classifiers.network import SINGLE
from ..classifiers.recognition import FIGURES, recognition, top_recognition
from ..macro import MACRO
from ..uncertainty.bootstrap import FEWEST, weights
from ..uncertainty.delong import mean_of_placements, of_placements, placements
from ..uncertainty.holm import holm
from ..uncertainty.mcnemar import mcnemar
from .trial import Trial

TOP = "most probable label"
BLOCK = 200  # draws computed at once
ALPHA = 0.05


@dataclass
class Contest:
    """Trials on the same test images: truth (N, L), the patient of each image, and how often the bootstrap draws."""

    trials: Sequence[Trial]
    truth: np.ndarray
    units: Sequence[str]
    labels: tuple[str, ...]
    mode: str
    repeats: int = 1000
    bins: int = 15

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The labels, their mean, and, for exclusive ones, the answer as a whole."""
        return (*self.labels, MACRO, *([TOP] if self.mode == SINGLE else []))

    @cached_property
    def drawn(self) -> np.ndarray:
        """How often each test image counts in each draw, (repeats, N)."""
        return weights(self.units, self.repeats, np.random.default_rng(0))

    @cached_property
    def contenders(self) -> dict[str, dict[float, list[Trial]]]:
        """Trials, one a seed, by contender and fraction."""
        found: dict[str, dict[float, list[Trial]]] = {}
        for trial in self.trials:
            found.setdefault(trial.cell.contender, {}).setdefault(trial.cell.fraction, []).append(trial)
        return found

    @cached_property
    def figures(self) -> dict[Trial, dict[tuple[str, str], float]]:
        """The figures of each trial by (row, figure); NaN where there is none."""
        once = np.ones((1, len(self.truth)))
        return {trial: {key: float(value[0]) for key, value in self._find(trial, once).items()} for trial in self.trials}

    @cached_property
    def draws(self) -> dict[Trial, dict[tuple[str, str], np.ndarray]]:
        """The same in each draw of patients, (repeats,)."""
        return {trial: self._draw(trial) for trial in self.trials}

    def _draw(self, trial: Trial) -> dict[tuple[str, str], np.ndarray]:
        parts = [self._find(trial, self.drawn[start:start + BLOCK]) for start in range(0, self.repeats, BLOCK)]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _find(self, trial: Trial, counts: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        if trial.probabilities is None:
            return {}
        found: dict[tuple[str, str], np.ndarray] = {}
        for place, label in enumerate(self.labels):
            of_label = recognition(self.truth[:, place], trial.probabilities[:, place], trial.thresholds[label], counts, self.bins)
            blank = np.full(len(counts), np.nan)
            found |= {(label, name): blank if label in trial.missing else of_label[name] for name in FIGURES}
        found |= {(MACRO, name): np.mean([found[label, name] for label in self.labels], axis=0) for name in FIGURES}
        if self.mode == SINGLE:
            whole = top_recognition(self.truth, trial.probabilities, counts, self.bins)
            found |= {(TOP, name): np.full(len(counts), np.nan) if trial.missing else value for name, value in whole.items()}
        return found

    def names(self, row: str) -> tuple[str, ...]:
        """The figures that a row has."""
        return tuple(name for name in FIGURES if row != TOP or name not in ("auroc", "average_precision"))

    # One trial.

    def table(self, trial: Trial) -> list[dict[str, Any]]:
        """Every figure of a trial, with DeLong's interval for the AUROC; None with the reason where there is none."""
        values, rows = self.figures[trial], []
        for row in self.rows:
            for name in self.names(row):
                value = values.get((row, name), np.nan)
                made = {"label": row, "figure": name, "value": None, "low": None, "high": None, "reason": None}
                if np.isfinite(value):
                    low, high = self.interval_of_auroc([trial], row) if name == "auroc" else (None, None)
                    rows.append({**made, "value": float(value), "low": low, "high": high})
                else:
                    rows.append({**made, "reason": self.obstacle(trial, row)})
        return rows

    def obstacle(self, trial: Trial, row: str) -> str:
        """Why a trial lacks a figure of this row."""
        if trial.reason:
            return trial.reason
        labels = self.labels if row in (MACRO, TOP) else (row,)
        said = [trial.missing[label] for label in labels if label in trial.missing]
        for label in labels:
            positive = int(self.truth[:, self.labels.index(label)].sum())
            if positive in (0, len(self.truth)):
                said.append(f"of the {len(self.truth)} test images {'none has' if positive == 0 else 'all have'} {label}")
        return "; ".join(said) or "the figure is not defined for these answers"

    def interval_of_auroc(self, trials: Sequence[Trial], row: str) -> tuple[float | None, float | None]:
        """DeLong's interval of the mean AUROC of trials."""
        estimate = self._delong(row, [self._placed(row, trial) for trial in trials])
        return estimate.low, estimate.high

    def _columns(self, row: str) -> list[int]:
        return list(range(len(self.labels))) if row == MACRO else [self.labels.index(row)]

    def _placed(self, row: str, trial: Trial) -> np.ndarray:
        """Placements (N, labels of the row)."""
        return np.stack([placements(self.truth[:, place], trial.probabilities[:, place]) for place in self._columns(row)], axis=1)

    def _delong(self, row: str, first: list[np.ndarray], second: list[np.ndarray] | None = None):
        placed = np.mean(first, axis=0) - (np.mean(second, axis=0) if second is not None else 0)
        if row == MACRO:
            return mean_of_placements(self.truth, placed, self.units, paired=second is not None)
        return of_placements(self.truth[:, self._columns(row)[0]], placed[:, 0], self.units, paired=second is not None)

    # All seeds of a contender.

    def curves(self) -> list[dict[str, Any]]:
        """One curve for each contender, row and figure: a point for each share of the real images."""
        return [self._curve(contender, by_fraction, row, name) for contender, by_fraction in self.contenders.items()
                for row in self.rows for name in self.names(row)]

    def _curve(self, contender: str, by_fraction: dict[float, list[Trial]], row: str, name: str) -> dict[str, Any]:
        cell = next(iter(by_fraction.values()))[0].cell
        points = [{"fraction": fraction, "n_real": [trial.facts["n_real"] for trial in trials],
                   "n_synthetic": [trial.facts["n_synthetic"] for trial in trials], **self._point(trials, row, name)}
                  for fraction, trials in sorted(by_fraction.items())]
        return {"contender": contender, "protocol": cell.protocol, "source": cell.source, "ratio": cell.ratio, "label": row,
                "figure": name, "points": points}

    def _point(self, trials: Sequence[Trial], row: str, name: str) -> dict[str, Any]:
        values = [self.figures[trial].get((row, name), np.nan) for trial in trials]
        point = {"value": None, "low": None, "high": None, "deviation": None, "reason": None,
                 "values": [float(value) if np.isfinite(value) else None for value in values]}
        lacking = [trial for trial, value in zip(trials, values) if not np.isfinite(value)]
        if lacking:
            return {**point, "reason": f"{len(lacking)} of {len(trials)} seeds have no figure: {self.obstacle(lacking[0], row)}"}
        low, high = self._bounds(self._mean(trials, row, name))
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return {**point, "value": float(np.mean(values)), "low": low, "high": high, "deviation": deviation}

    def _mean(self, trials: Sequence[Trial], row: str, name: str) -> np.ndarray:
        """The mean over seeds drawn with replacement, in each draw of patients, (repeats,)."""
        of_seed = np.stack([self.draws[trial][row, name] for trial in trials])  # (S, repeats)
        count = len(trials)
        drawn = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), size=self.repeats).T  # (S, repeats)
        return (of_seed * drawn).sum(0) / count

    def _bounds(self, draws: np.ndarray) -> tuple[float | None, float | None]:
        draws = draws[np.isfinite(draws)]
        if len(set(self.units)) < FEWEST or len(draws) <= self.repeats // 2:
            return None, None
        low, high = np.quantile(draws, (0.025, 0.975))
        return float(low), float(high)

    # Two contenders.

    def pairs(self) -> list[dict[str, Any]]:
        """The differences of every two contenders at every fraction, later minus earlier; Holm over all pairs of a figure and row."""
        rows = [self._pair(first, second, fraction, row, name) for fraction in self._fractions()
                for second, first in combinations(self.contenders, 2) if self._at(first, fraction) and self._at(second, fraction)
                for row in self.rows for name in ("auroc", "accuracy") if name in self.names(row)]
        for key in dict.fromkeys((row["label"], row["figure"]) for row in rows):
            family = [row for row in rows if (row["label"], row["figure"]) == key]
            for row, p in zip(family, holm([row["p"] for row in family])):
                row["p_holm"] = p
                row["holds"] = p is not None and p < ALPHA and row["low"] is not None and not row["low"] <= 0 <= row["high"]
        return rows

    def _fractions(self) -> list[float]:
        return sorted({trial.cell.fraction for trial in self.trials} - {0.0}) or [0.0]

    def _at(self, contender: str, fraction: float) -> list[Trial]:
        """The trials of a contender at a fraction; those without real images serve at every one."""
        found = self.contenders[contender]
        return found.get(fraction) or found.get(0.0, [])

    def _pair(self, first: str, second: str, fraction: float, row: str, name: str) -> dict[str, Any]:
        made = {"first": first, "second": second, "fraction": fraction, "label": row, "figure": name, "value": None, "low": None,
                "high": None, "test": None, "p": None, "p_holm": None, "holds": False, "reason": None}
        sides = [self._at(contender, fraction) for contender in (first, second)]
        points = [self._point(trials, row, name) for trials in sides]
        for contender, point in zip((first, second), points):
            if point["value"] is None:
                return {**made, "reason": f"{contender}: {point['reason']}"}
        low, high = self._bounds(self._mean(sides[0], row, name) - self._mean(sides[1], row, name))
        made |= {"value": points[0]["value"] - points[1]["value"], "low": low, "high": high}
        return {**made, **(self._delong_test(row, *sides) if name == "auroc" else self._mcnemar_test(row, *sides))}

    def _delong_test(self, row: str, first: Sequence[Trial], second: Sequence[Trial]) -> dict[str, Any]:
        estimate = self._delong(row, *([self._placed(row, trial) for trial in trials] for trials in (first, second)))
        reason = None if estimate.p is not None else "DeLong's test has no p-value: the images are ranked alike, or too few patients"
        return {"test": "DeLong", "p": estimate.p, "test_low": estimate.low, "test_high": estimate.high, "reason": reason}

    def _mcnemar_test(self, row: str, first: Sequence[Trial], second: Sequence[Trial]) -> dict[str, Any]:
        if row == MACRO:
            return {"test": None, "reason": "McNemar's test needs one answer an image; see the labels"}
        found = mcnemar(*(self._right(row, trials) for trials in (first, second)))
        return {"test": "McNemar, exact" if found.exact else "McNemar", "p": found.p, "first_only": found.first,
                "second_only": found.second}

    def _right(self, row: str, trials: Sequence[Trial]) -> np.ndarray:
        """Which images (N,) the seeds' mean probabilities get right."""
        mean = np.mean([trial.probabilities for trial in trials], axis=0)
        if row == TOP:
            return mean.argmax(1) == self.truth.argmax(1)
        place, thresholds = self.labels.index(row), [trial.thresholds[row] for trial in trials]
        return (mean[:, place] >= np.mean(thresholds)) == self.truth[:, place].astype(bool)
