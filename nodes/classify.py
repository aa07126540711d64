"""Nodes for classifiers: train one, test one, and find out by a study whether synthetic images help."""

from __future__ import annotations

import json
import math
from typing import Any

from ..errors import ConfigError, DataError
from ..evaluation.classifiers.network import LearningOptions
from ..evaluation.classifiers.recognition import FIGURES
from ..evaluation.downstream.protocol import MIXED, PROTOCOLS, REAL, Cell, check_ratios
from ..evaluation.downstream.study import Study, StudyOptions
from ..evaluation.macro import MACRO
from ..files import cache_folder
from . import host
from .host import EXTRACTOR, RECORDS, io
from .widgets import inputs, read
from .widgets import seed as seed_input

CATEGORY = "MedTune/classify"
DOWNSTREAM = io.Custom("MEDTUNE_DOWNSTREAM")
MOST = 4
"""Synthetic sets that one study compares."""


class ClassifierTrain(io.ComfyNode):
    """Real and synthetic records -> a classifier."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneClassifierTrain", display_name="Train Classifier", category=CATEGORY,
            description="Trains a timm network on a data set's labels, from real images, synthetic ones or both.",
            inputs=[RECORDS.Input("real", tooltip="Real images; those of the split val are for validation, those of test left out."),
                    RECORDS.Input("synthetic", optional=True, tooltip="Generated images, for the protocols that use them."),
                    io.Combo.Input("protocol", options=list(PROTOCOLS), default=REAL,
                                   tooltip="; ".join(f"{name}: {says}" for name, says in PROTOCOLS.items()) + "."),
                    io.Float.Input("fraction", default=100.0, min=0.1, max=100.0, step=0.1, optional=True,
                                   tooltip="Percentage of the real patients to learn from."),
                    io.String.Input("ratio", default="all", optional=True,
                                    tooltip=f"For {MIXED}: synthetic images for each real one, or all."),
                    *inputs(StudyOptions, skip=_beside("labels", "mode", "validation", "validation_share")), *inputs(LearningOptions),
                    seed_input()],
            outputs=[EXTRACTOR.Output("classifier", display_name="classifier", tooltip="For Test Classifier and Evaluate."),
                     io.String.Output("folder", display_name="folder"), io.String.Output("summary", display_name="summary")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, real, synthetic=None, protocol=REAL, fraction=100.0, ratio="all", seed=0, **values):
        from ..evaluation.extractors.classifier import TrainedClassifier

        options = read(StudyOptions, {**values, "protocols": (protocol,), "seeds": 1})
        study = Study(real, {"": synthetic} if synthetic is not None else {}, [], options, read(LearningOptions, values))
        progress = host.Progress(cls, study.learning.steps)
        share = study.cells[0].fraction and fraction / 100  # none of the real images for synthetic-only
        cell = Cell(protocol, "", check_ratios((ratio,))[0] if protocol == MIXED else "", share, seed)
        with host.computing() as device:
            trial = study.run(cell, host.product_folder("classifiers"), str(device),
                              lambda step, steps: progress(step, steps, f"step {step} of {steps}"))
            if trial.folder is None:
                raise DataError(trial.reason)
            made = TrainedClassifier(trial.folder, str(device))
        facts = trial.facts
        summary = f"{', '.join(study.labels)} ({study.mode}), from {facts['n_real']} real and {facts['n_synthetic']} synthetic images"
        progress.say(summary)
        return io.NodeOutput(made, host.shown(trial.folder), summary)


class ClassifierTest(io.ComfyNode):
    """A classifier and test records -> figures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneClassifierTest", display_name="Test Classifier", category=CATEGORY, is_output_node=True,
            description="Every figure of a classifier's answers on images that it did not learn from, for each label and as a mean.",
            inputs=[EXTRACTOR.Input("classifier", tooltip="From Train Classifier, or any extractor that tells findings."),
                    RECORDS.Input("test", tooltip="Real images of patients that nothing was trained on."),
                    io.Combo.Input("figure", options=list(FIGURES), default="auroc", tooltip="The figure of the output number."),
                    io.String.Input("label", default=MACRO, optional=True, tooltip="The label of the output number.")],
            outputs=[io.String.Output("json", display_name="json"),
                     io.Float.Output("number", display_name="number", tooltip="NaN where it cannot be had; the table says why.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, classifier, test, figure="auroc", label=MACRO):
        from ..evaluation.classifiers.examination import examine

        labeller = classifier.labeller()
        if labeller is None:
            raise ConfigError(f"the extractor {classifier.name} tells no findings; link Train Classifier, or another that does")
        progress = host.Progress(cls, len(test))
        with host.computing():
            found = examine(labeller, test, cache=cache_folder() / "features",
                            on_progress=lambda done, total: progress(done, total, f"{done} of {total} images"))
        row = next((row for row in found["figures"] if (row["label"], row["figure"]) == (label, figure)), None)
        if row is None:
            rows = dict.fromkeys(row["label"] for row in found["figures"] if row["figure"] == figure)
            raise ConfigError(f"there is no {figure} of {label!r}; there is one of: {', '.join(rows) or 'nothing'}")
        text = json.dumps(found, indent=1, allow_nan=False)
        progress.say(f"{figure} of {label}: {_said(row)}")
        return io.NodeOutput(text, _number(row["value"]), ui=_panel(
            ["label", "figure", "value", "low", "high", "why not"],
            [[row["label"], row["figure"], row["value"], row["low"], row["high"], row["reason"] or ""] for row in found["figures"]],
            [], text))


class DownstreamStudy(io.ComfyNode):
    """Real, synthetic and test records -> whether the synthetic ones help."""

    @classmethod
    def define_schema(cls):
        more = [item for number in range(2, MOST + 1) for item in (
            RECORDS.Input(f"synthetic_{number}", optional=True),
            io.String.Input(f"name_{number}", default=f"set {number}", optional=True, tooltip="What this set is called."))]
        return io.Schema(
            node_id="MedTuneDownstream", display_name="Downstream Study", category=CATEGORY, is_output_node=True,
            description="Trains classifiers on real, synthetic and mixed images, over shares of the real patients and several seeds, "
                        "and tests them on real images: do synthetic images help where real ones are scarce?",
            inputs=[RECORDS.Input("real", tooltip="Real images to learn from; those of the split test are left out."),
                    RECORDS.Input("test", tooltip="Real images of patients that neither generator nor classifier has seen."),
                    RECORDS.Input("synthetic", optional=True, tooltip="Generated images."),
                    io.String.Input("name", default="", optional=True, tooltip="What this set is called, where there are several."),
                    *more, RECORDS.Input("generator_data", optional=True, tooltip="What the generator was trained on, where the "
                                         "set does not tell."),
                    io.Combo.Input("gain_of", options=[name for name in PROTOCOLS if name != REAL], default=MIXED, optional=True,
                                   tooltip="The output number: mean AUROC of this protocol minus real-only's."),
                    io.Float.Input("gain_at", default=5.0, min=0.1, max=100.0, step=0.1, optional=True,
                                   tooltip="... at this percentage of the real patients."),
                    *inputs(StudyOptions), *inputs(LearningOptions)],
            outputs=[DOWNSTREAM.Output("downstream", display_name="downstream"), io.String.Output("json", display_name="json"),
                     io.Float.Output("gain", display_name="gain", tooltip="NaN where it cannot be had; the table says why.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, real, test, synthetic=None, name="", generator_data=None, gain_of=MIXED, gain_at=5.0, **values):
        from ..evaluation.downstream.result import downstream

        options, learning = read(StudyOptions, values), read(LearningOptions, values)
        progress, state = host.Progress(cls), {"done": 0, "total": 1}

        def on_trial(done, total, what):
            state.update(done=done, total=total)
            progress(done, total, f"{done} of {total}: {what}")

        with host.computing() as device:
            result = downstream(real, _sets(synthetic, name, values), test, options, learning, generator=generator_data,
                                out=host.product_folder("classifiers"), device=str(device), on_trial=on_trial,
                                on_step=lambda step, steps: progress(state["done"], state["total"]))
        text = json.dumps(result.to_json(), indent=1, allow_nan=False)
        pair = next((pair for pair in result.pairs if pair["first"].startswith(gain_of) and pair["second"] == REAL
                     and math.isclose(pair["fraction"], gain_at / 100) and (pair["label"], pair["figure"]) == (MACRO, "auroc")), None)
        gain = pair["value"] if pair else None
        progress.say(f"gain of {gain_of} at {gain_at:g} %: {_said(pair) if pair else 'not among the pairs of this study'}")
        return io.NodeOutput(result, text, _number(gain), ui=_panel(*_curves(result), list(result.notices), text))


def _sets(synthetic: Any, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The synthetic sets by name; one alone needs none."""
    more = [(values.get(f"name_{number}", ""), values.get(f"synthetic_{number}")) for number in range(2, MOST + 1)]
    given = [(name, synthetic), *more]
    given = [(title.strip(), records) for title, records in given if records is not None]
    titles = [title for title, _ in given]
    if len(given) > 1 and (len(set(titles)) < len(titles) or not all(titles)):
        raise ConfigError(f"the synthetic sets are called {', '.join(map(repr, titles))}; give each a name of its own")
    return dict(given)


def _curves(result: Any) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the table in the node: the mean AUROC of each protocol at each share of the real patients."""
    rows = [[curve["contender"], f"{point['fraction'] * 100:g} %", point["value"], point["low"], point["high"], point["reason"] or ""]
            for curve in result.curves if (curve["label"], curve["figure"]) == (MACRO, "auroc") for point in curve["points"]]
    return ["protocol", "real", "mean AUROC", "low", "high", "why not"], rows


def _panel(columns: list[str], rows: list[list[Any]], notices: list[str], text: str) -> dict[str, Any]:
    """What the web extension shows."""
    return {"medtune": [{"table": {"columns": columns, "rows": rows}, "notices": notices}], "scores": [text]}


def _said(row: dict[str, Any]) -> str:
    return f"cannot be had, {row['reason']}" if row["value"] is None else f"{row['value']:.3f}"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _beside(*kept: str) -> tuple[str, ...]:
    """The study's options but these."""
    from ..config import fields

    return tuple(name for name, *_ in fields(StudyOptions) if name not in kept)


def nodes() -> list[type]:
    """The nodes of this file."""
    return [ClassifierTrain, ClassifierTest, DownstreamStudy]
