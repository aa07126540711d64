"""Whether synthetic images help a classifier: protocols x shares of the real images x seeds, tested on real images alone.

``downstream`` checks that no test patient or image is known to the classifier or to the generator, trains what is not on disk yet,
and gives a ``Downstream``. Its ``to_json``, which is what a report draws, holds

- ``labels``, ``mode`` ("single" or "multi"), ``contenders`` (a protocol with its synthetic set and ratio, in the order of a table),
  ``fractions`` (shares of the real patients, ascending), ``counts`` (n_test, test_patients, n_real, real_patients, n_validation,
  n_synthetic by set, and test_positives by label), ``settings`` (study and learning options), ``notices``, ``versions``;
- ``trials``, a row each: ``contender``, ``protocol``, ``source``, ``ratio``, ``fraction``, ``seed``, ``n_real``, ``patients``,
  ``n_synthetic``, ``learnt`` (steps, best step and validation loss of each stage), ``thresholds``, ``folder``, ``reason``, and
  ``figures``: rows of ``label``, ``figure``, ``value``, ``low``, ``high`` (DeLong's, for the AUROC), ``reason``;
- ``curves``, one for each contender, label and figure: ``contender``, ``protocol``, ``source``, ``ratio``, ``label``, ``figure`` and
  ``points``, ascending: ``fraction`` (0 for synthetic-only: a level line), ``n_real`` and ``n_synthetic`` (one a seed), ``value`` (the
  mean over seeds), ``low`` and ``high`` (95 %, bootstrap over patients and seeds), ``deviation`` over seeds, ``values``, ``reason``;
- ``pairs``, the differences between contenders: ``first``, ``second``, ``fraction``, ``label``, ``figure`` ("auroc" or "accuracy"),
  ``value`` (first minus second), ``low``, ``high`` (bootstrap), ``test``, ``p``, ``p_holm``, ``holds`` (p_holm below 0.05 and zero
  outside of the interval), ``reason``; with DeLong's test also ``test_low`` and ``test_high``, with McNemar's ``first_only`` and
  ``second_only`` (images that one alone gets right);
- ``reliability``, for each contender, fraction and label: ``bins`` of the mean probabilities of all seeds.

A label is one of ``labels``, "mean over labels", or, where labels exclude each other, "most probable label". A figure that cannot be
had is None, with its ``reason``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ... import config
from ...data.record import Record
from ...errors import DataError
from ...files import cache_folder, write_json
from ..classifiers.calibration import reliability
from ..classifiers.label_set import count_labels
from ..classifiers.network import LearningOptions
from ..macro import MACRO
from ..run import versions
from .contest import Contest
from .protocol import order
from .study import Study, StudyOptions
from .trial import Trial

OnTrial = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Downstream:
    """A study's result; what its parts hold, the module says."""

    labels: tuple[str, ...]
    mode: str
    contenders: tuple[str, ...]
    fractions: tuple[float, ...]
    trials: tuple[dict[str, Any], ...]
    curves: tuple[dict[str, Any], ...]
    pairs: tuple[dict[str, Any], ...]
    reliability: tuple[dict[str, Any], ...]
    counts: dict[str, Any]
    settings: dict[str, Any]
    notices: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def point(self, contender: str, fraction: float, figure: str = "auroc", label: str = MACRO) -> dict[str, Any] | None:
        """A point of a curve."""
        wanted = (contender, figure, label)
        return next((point for curve in self.curves if (curve["contender"], curve["figure"], curve["label"]) == wanted
                     for point in curve["points"] if point["fraction"] == fraction), None)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Downstream:
        """A result from ``to_json``'s values; DataError when they are something else."""
        try:
            return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
        except (TypeError, AttributeError) as error:
            raise DataError(f"this is no result of medtune classify ({error}); classify again") from error

    def write(self, path: str | Path) -> None:
        """Keep it as a JSON file."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Downstream:
        """A result from a file; DataError when it holds something else."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read a downstream result from {path}: {error}") from error


def downstream(real: Sequence[Record], synthetic: Mapping[str, Sequence[Record]] | Sequence[Record], test: Sequence[Record],
               options: StudyOptions | None = None, learning: LearningOptions | None = None, *,
               generator: Sequence[Record] | None = None, out: str | Path | None = None, device: str = "cpu",
               on_trial: OnTrial | None = None, on_step: Callable[[int, int], None] | None = None) -> Downstream:
    """Compare protocols on the real test images.

    ``real`` are training images, those of the split "val" for validation and those of "test" left out; ``synthetic`` one set, or
    several by name; ``generator`` the images that the generators learnt from, where the sets do not tell. ``out`` is the folder of
    the trials. ``on_trial(done, total, what)`` follows the trials, ``on_step(step, steps)`` the steps of one; an exception out of
    either leaves whole files: the same call goes on from there. Raises DataError for data that cannot be compared so.
    """
    options, learning = config.check(options or StudyOptions()), config.check(learning or LearningOptions())
    synthetic = dict(synthetic) if isinstance(synthetic, Mapping) else {"": synthetic}
    study = Study(real, synthetic, test, options, learning)
    notices = study.check(generator, cache_folder() / "features")
    folder, trials = Path(out) if out is not None else cache_folder() / "downstream", []
    for number, cell in enumerate(study.cells):
        if on_trial is not None:
            on_trial(number, len(study.cells), f"{cell.contender}, {cell.fraction * 100:g} % real, seed {cell.seed}")
        trials.append(study.run(cell, folder, device, on_step))
    if on_trial is not None:
        on_trial(len(study.cells), len(study.cells), "comparing")
    return _conclude(study, trials, notices)


def _conclude(study: Study, trials: Sequence[Trial], notices: Sequence[str]) -> Downstream:
    """Figures, curves and differences."""
    truth = study.material.targets[list(study.material.test)].numpy().astype(np.float64)
    units = [f"image {index}" if record.patient is None else f"patient {record.patient}" for index, record in enumerate(study.test)]
    contest = Contest(trials, truth, units, tuple(study.labels), study.mode, study.options.repeats, study.options.bins)
    settings = {"study": config.to_json(study.options), "learning": config.to_json(study.learning)}
    return Downstream(tuple(study.labels), study.mode, tuple(contest.contenders), tuple(study.fractions),
                      tuple(_row(trial, contest) for trial in trials), tuple(contest.curves()), tuple(contest.pairs()),
                      tuple(_reliability(contest)), _counts(study, units), settings, tuple(notices), versions())


def _counts(study: Study, units: Sequence[str]) -> dict[str, Any]:
    held = count_labels(study.test)
    return {"n_test": len(study.test), "test_patients": len(set(units)), "n_real": len(study.train),
            "real_patients": len(order(study.train, 0)), "n_validation": len(study.validation),
            "n_synthetic": {name: len(records) for name, records in study.synthetic.items()},
            "test_positives": {label: held[label] for label in study.labels}}


def _row(trial: Trial, contest: Contest) -> dict[str, Any]:
    return {"contender": trial.cell.contender, **asdict(trial.cell), **trial.facts, "thresholds": trial.thresholds,
            "folder": str(trial.folder) if trial.folder is not None else None, "reason": trial.reason, "figures": contest.table(trial)}


def _reliability(contest: Contest) -> list[dict[str, Any]]:
    found = []
    for contender, by_fraction in contest.contenders.items():
        for fraction, trials in sorted(by_fraction.items()):
            answers = [trial.probabilities for trial in trials if trial.probabilities is not None]
            if answers:
                mean = np.mean(answers, axis=0)
                found += [{"contender": contender, "fraction": fraction, "label": label,
                           "bins": reliability(contest.truth[:, place], mean[:, place], contest.bins)}
                          for place, label in enumerate(contest.labels)]
    return found
