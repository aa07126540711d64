"""One training of a downstream study and its answers on the test images, kept by content.

A trial's folder is named by what goes into it: images, labels, options and seed. trial.json is written last; without it the folder
counts as empty and the trial is done again, so that a kill leaves nothing that is half true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import config
from ...data.record import Record
from ...files import hash_file, hash_json, whole, write_json
from ..classifiers.label_set import missing_kinds
from ..classifiers.learning import Lesson, learn, predict, set_scale
from ..classifiers.network import PUBLISHED, LearningOptions, Network, is_whole, load_network, new_network, write_network
from ..classifiers.picture_store import Pictures
from ..classifiers.recognition import best_threshold
from .protocol import Cell, Stage

FORMAT = 1  # raised when the same request would give other probabilities
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Material:
    """All images of a study by index, with their targets (N, L) and hashes; which of them are for what."""

    records: tuple[Record, ...]
    hashes: tuple[str, ...]
    pictures: Pictures
    targets: Tensor
    labels: tuple[str, ...]
    mode: str
    options: LearningOptions
    test: tuple[int, ...]

    def content(self, indices: Sequence[int]) -> list[list]:
        """Hash and targets of images, for a key."""
        return [[self.hashes[index], self.targets[index].int().tolist()] for index in indices]


@dataclass(frozen=True)
class Course:
    """What a cell learns from, stage by stage, and the images that it is validated on."""

    cell: Cell
    stages: tuple[Stage, ...]
    validation: tuple[int, ...]

    @property
    def images(self) -> list[int]:
        """All images that are learnt from, by index."""
        return sorted({index for stage in self.stages for index in (*stage.real, *stage.synthetic)})

    @property
    def real(self) -> list[int]:
        """The real ones among them."""
        return sorted({index for stage in self.stages for index in stage.real})

    def begin(self, stages: int) -> Course:
        """The first stages alone."""
        return replace(self, stages=self.stages[:stages])


@dataclass(frozen=True, eq=False)
class Trial:
    """What came of a cell: probabilities (N, L) of the test images, or the reason why there are none.

    ``thresholds`` are the probabilities from which findings count as told, ``missing`` the reasons why labels could not be learnt.
    """

    cell: Cell
    probabilities: np.ndarray | None
    thresholds: dict[str, float]
    missing: dict[str, str]
    facts: dict[str, Any]
    reason: str | None = None
    folder: Path | None = None


def run_trial(material: Material, course: Course, *, out: Path, device: str = "cpu", keep: bool = True,
              on_step: OnStep | None = None) -> Trial:
    """The trial of a course, found on disk or trained; an exception out of ``on_step`` leaves whole files and goes on outward."""
    missing = missing_kinds(material.targets[course.images], material.labels)
    facts = {"n_real": len(course.real), "patients": _patients(material, course.real),
             "n_synthetic": len(course.images) - len(course.real), "n_validation": len(course.validation)}
    if len(missing) == len(material.labels):
        return Trial(course.cell, None, {}, missing, facts, f"there is nothing to tell apart: {'; '.join(missing.values())}")
    folder = out / f"{_file_name(course.cell)}-{_key(material, course)[:12]}"
    if not is_finished(folder, keep):
        model, learnt = _train(material, course, out, device, on_step)
        _write(material, course, folder, model if keep else None, _answer(material, course, model, {**facts, "learnt": learnt}))
    kept = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    return Trial(course.cell, _read_answers(folder)["test"], kept["thresholds"], missing, kept["facts"], None, folder)


def is_finished(folder: Path, keep: bool = False) -> bool:
    """Whether a trial's folder holds all that its trial.json names, and, with ``keep``, the network."""
    try:
        kept = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        return hash_file(folder / "answers.safetensors") == kept["answers"] and (not keep or is_whole(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _train(material: Material, course: Course, out: Path, device: str, on_step: OnStep | None) -> tuple[Network, list[dict]]:
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=devices):  # nodes run in inference mode
        torch.manual_seed(course.cell.seed)
        model = new_network(material.options, material.labels, material.mode).to(device)
        learnt, done, total = [], 0, sum(stage.steps for stage in course.stages)
        for count, stage in enumerate(course.stages, 1):
            report = (lambda step, _, done=done: on_step(done + step, total)) if on_step is not None else None
            kept = out if count < len(course.stages) else None  # others build upon this stage, too
            model, found = _learn_stage(material, course.begin(count), model, kept, report)
            learnt, done = [*learnt, found], done + stage.steps
        set_scale(model, material.pictures, [*course.stages[-1].real, *course.stages[-1].synthetic])
    return model, learnt


def _learn_stage(material: Material, course: Course, model: Network, out: Path | None, on_step: OnStep | None) -> tuple[Network, dict]:
    """The network after the last stage of the course; where ``out`` keeps it, it is found again."""
    folder = out / f"pretraining-{_key(material, course)[:12]}" if out is not None else None
    if folder is not None and is_whole(folder):
        model = load_network(folder).to(model.scale.device).requires_grad_(True)
        return model, model.about["learnt"]
    torch.manual_seed(course.cell.seed + 1_000_003 * len(course.stages))
    stage = course.stages[-1]
    lesson = Lesson(material.pictures, material.targets, [*stage.real, *stage.synthetic], course.validation, stage.steps, stage.lr)
    learnt = asdict(learn(model, lesson, on_step))
    if folder is not None:
        write_network(folder, model, {"learnt": learnt})
    return model, learnt


def _answer(material: Material, course: Course, model: Network, facts: dict[str, Any]) -> dict[str, Any]:
    """Probabilities of test and validation images, and the thresholds that follow from the latter."""
    test, validation = (predict(model, material.pictures, indices) for indices in (material.test, course.validation))
    truth = material.targets[list(course.validation)].numpy()
    thresholds, guessed = choose_thresholds(truth, validation.numpy(), material.labels)
    return {"tensors": {"test": test, "validation": validation}, "thresholds": thresholds,
            "facts": {**facts, "thresholds_without_validation": guessed}}


def _write(material: Material, course: Course, folder: Path, model: Network | None, answer: dict[str, Any]) -> None:
    """The network, where it is to be kept, the answers, and last trial.json."""
    from safetensors.torch import save_file

    facts = {"cell": asdict(course.cell), "thresholds": answer["thresholds"]}
    if model is not None:
        seen = sorted({material.hashes[index] for index in course.images})
        counts = {name: answer["facts"][name] for name in ("n_real", "n_synthetic")}
        write_network(folder, model, {**facts, **counts, "seen": seen})
    with whole(folder / "answers.safetensors") as beside:
        save_file({name: value.contiguous() for name, value in answer["tensors"].items()}, beside)
    write_json(folder / "trial.json", {**facts, "labels": list(material.labels), "facts": answer["facts"],
                                       "answers": hash_file(folder / "answers.safetensors")})


def choose_thresholds(truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
    """The threshold of the highest F1 on validation images by label; 0.5, and why, where they do not have both kinds."""
    found, guessed = {}, {}
    for place, label in enumerate(labels):
        best = best_threshold(truth[:, place], probabilities[:, place])
        found[label] = 0.5 if best is None else best
        if best is None:
            guessed[label] = f"of the {len(truth)} validation images {int(truth[:, place].sum())} have {label}: 0.5 was taken"
    return found, guessed


def _read_answers(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "answers.safetensors")


def _patients(material: Material, indices: Sequence[int]) -> int:
    return len({material.records[index].patient or f"image {index}" for index in indices})


def _key(material: Material, course: Course) -> str:
    """What decides the probabilities: not the places of files, nor the device."""
    options: Mapping[str, Any] = config.to_json(material.options)
    weights = hash_file(PUBLISHED.find(material.options.weights)) if material.options.weights else ""
    stages = [[material.content((*stage.real, *stage.synthetic)), stage.steps, stage.lr] for stage in course.stages]
    return hash_json({"format": FORMAT, "options": {**options, "weights": weights}, "labels": list(material.labels),
                      "mode": material.mode, "stages": stages, "validation": material.content(course.validation),
                      "test": material.content(material.test), "seed": course.cell.seed})


def _file_name(cell: Cell) -> str:
    words = [cell.protocol, cell.source, cell.ratio, f"{cell.fraction * 100:g}pc", f"seed{cell.seed}"]
    return "-".join("".join(letter if letter.isalnum() or letter in "-+." else "_" for letter in word) for word in words if word)
