"""Nodes for scoring: one per extractor, and the evaluation of generated against real images."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data.record import Record
from ..errors import ConfigError, UnknownName
from ..evaluation.extractor import EXTRACTORS, Extractor
from ..evaluation.metric import METRICS
from ..files import cache_folder
from . import host
from .host import EXTRACTOR, FEATURES, RECORDS, RECORDS_OR_FEATURES, SCORES, io
from .widgets import inputs, read

CATEGORY = "MedTune/evaluate"
COLUMNS = ["metric", "value", "low", "high", "better", "real", "generated", "class", "why not"]


@dataclass(frozen=True)
class ScoredSet:
    """One set of generated images with its scores, under the name that it has in a report."""

    name: str
    scores: Any
    records: Sequence[Record]


def extractor_node(name: str, extractor: type[Extractor]) -> type:
    """The node that prepares a feature space, with its own options as its widgets."""
    facts = extractor.facts

    class ExtractorNode(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id=node_id(name), display_name=f"Extractor: {facts.title}", category="MedTune/extractors",
                             description=f"{facts.title}: {facts.says}. Needs: {facts.needs}.",
                             inputs=[RECORDS.Input("records", optional=True, tooltip="The data set that it may learn from: the "
                                                   "training images, not those to score against."), *inputs(extractor.Config)],
                             outputs=[EXTRACTOR.Output("extractor", display_name="extractor")], hidden=[io.Hidden.unique_id])

        @classmethod
        def execute(cls, records=(), **values):
            progress = host.Progress(cls)
            with host.computing():
                made = extractor.prepare(read(extractor.Config, values), records, None,
                                         lambda done, total: progress(done, total, f"{done} of {total}"))
            return io.NodeOutput(made)

    ExtractorNode.__name__ = ExtractorNode.__qualname__ = node_id(name)
    return ExtractorNode


def node_id(name: str) -> str:
    """`in-domain` -> `MedTuneExtractorInDomain`."""
    return "MedTuneExtractor" + "".join(part.capitalize() for part in name.replace("_", "-").split("-"))


class Extract(io.ComfyNode):
    """Records -> features."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneExtract", display_name="Extract Features", category=CATEGORY,
            description="Features of a data set's images, each computed once and kept. Evaluate does this itself, too.",
            inputs=[RECORDS.Input("records"), EXTRACTOR.Input("extractor")],
            outputs=[FEATURES.Output("features", display_name="features"), io.String.Output("summary", display_name="summary")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, records, extractor):
        features = _features(records, extractor, host.Progress(cls, len(records)))
        return io.NodeOutput(features, f"{len(features)} images, {features.values.shape[1]} values each, by {features.extractor_id}")


def _features(given: Any, extractor: Any, progress: host.Progress) -> Any:
    """Features as they came, or those of records."""
    from ..evaluation.features import Features, extract

    if isinstance(given, Features):
        return given
    if extractor is None:
        raise ConfigError("records were given without an extractor; link one, or features")
    with host.computing():
        return extract(given, extractor, cache_folder() / "features",
                       on_progress=lambda done, total: progress(done, total, f"features of {done} of {total} images"))


class Evaluate(io.ComfyNode):
    """Real and generated records, or their features -> scores."""

    @classmethod
    def define_schema(cls):
        def metric(name):
            facts = METRICS[name].facts
            return io.Boolean.Input(name, default=True, optional=True,
                                    tooltip=f"{facts.title}: {facts.says}; {facts.direction} is better.")

        return io.Schema(
            node_id="MedTuneEvaluate", display_name="Evaluate", category=CATEGORY, is_output_node=True,
            description="Scores generated images against real ones that were not trained on.",
            inputs=[RECORDS_OR_FEATURES.Input("real", tooltip="Held-out real images, or their features."),
                    RECORDS_OR_FEATURES.Input("fake", tooltip="Generated images, or their features."),
                    EXTRACTOR.Input("extractor", optional=True, tooltip="The feature space; the same one for all that is compared. "
                                    "Features bring their own."),
                    io.String.Input("name", default="tuned", tooltip="What the generated images are called in a report."),
                    io.Combo.Input("figure", options=list(METRICS), default="frechet", tooltip="The metric of the output number."),
                    io.Boolean.Input("per_class", default=False, optional=True, tooltip="Scores for each label, too."),
                    *(metric(name) for name in METRICS)],
            outputs=[SCORES.Output("scores", display_name="scores"), io.String.Output("json", display_name="json"),
                     io.Float.Output("number", display_name="number", tooltip="NaN where it cannot be had; the scores say why.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, real, fake, name, extractor=None, figure="frechet", per_class=False, **chosen):
        from ..evaluation.metric import CHOSEN, make_metric
        from ..evaluation.run import score
        from ..evaluation.spaces import Spaces

        if figure not in METRICS:
            raise UnknownName("metric", figure, METRICS)
        metrics = [metric for metric in METRICS if chosen.get(metric, True)]
        if figure not in metrics:
            raise ConfigError(f"figure is {figure!r}, which is switched off; it must be one of: {', '.join(metrics) or 'none'}")
        progress = host.Progress(cls, len(real) + len(fake))
        real, fake = (_features(given, extractor, progress) for given in (real, fake))
        with host.computing():
            spaces = Spaces(real.records, fake.records, real.extractor, known={CHOSEN: (real, fake)},
                            read={"cache": cache_folder() / "features"})
            scores = score(spaces, [make_metric(metric) for metric in metrics], per_class)
        value = scores.find(figure).value
        progress.say(f"{figure}: {'cannot be had, ' + scores.find(figure).reason if value is None else format(value, '.4g')}")
        text = json.dumps({"name": name, **scores.to_json()}, indent=1, allow_nan=False)
        return io.NodeOutput(ScoredSet(name, scores, fake.records), text, math.nan if value is None else float(value),
                             ui={"medtune": [{"table": {"columns": COLUMNS, "rows": rows(scores)}, "notices": list(scores.notices)}],
                                 "scores": [text]})


def rows(scores: Any) -> list[list[Any]]:
    """The scores as the rows of a table in a node."""
    return [[score.metric, score.value, score.low, score.high, score.direction, score.n_real, score.n_fake, score.label or "all",
             score.reason or ""] for score in scores.scores]


def nodes() -> list[type]:
    """The nodes of this file: one per extractor, then the rest."""
    return [*(extractor_node(name, extractor) for name, extractor in EXTRACTORS.items()), Extract, Evaluate]
