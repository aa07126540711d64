"""Nodes for scoring: one per extractor, and the evaluation of generated against real images."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import config
from ..data.record import Record
from ..errors import ConfigError, UnknownName
from ..evaluation.extractor import EXTRACTORS, Extractor
from ..evaluation.metric import METRICS, MetricConfig
from ..evaluation.selection import STANDARD, select_metrics
from ..files import cache_folder
from . import host
from .host import EXTRACTOR, FEATURES, METRIC_SET, RECORDS, RECORDS_OR_FEATURES, SCORES, io
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


class MetricSet(io.ComfyNode):
    """Names and options -> metrics."""

    @classmethod
    def define_schema(cls):
        known = "; ".join(f"{name}: {metric.facts.title}, {metric.facts.direction} is better" for name, metric in METRICS.items())
        return io.Schema(
            node_id="MedTuneMetricSet", display_name="Metric Set", category=CATEGORY,
            description=f"The metrics that Evaluate computes. There are {known}.",
            inputs=[io.String.Input("metrics", default=", ".join(STANDARD), tooltip="Names, separated by commas; all for every one. "
                                    f"There are: {', '.join(METRICS)}."),
                    io.String.Input("options", default="", multiline=True, optional=True,
                                    tooltip="Options of single metrics, one a line, such as vendi.order=2."),
                    *inputs(MetricConfig)],
            outputs=[METRIC_SET.Output("metric_set", display_name="metrics")])

    @classmethod
    def execute(cls, *, metrics, options="", **common):
        return io.NodeOutput(select_metrics(metrics, options.split(), **config.to_json(read(MetricConfig, common))))


class Evaluate(io.ComfyNode):
    """Real and generated records, or their features -> scores."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneEvaluate", display_name="Evaluate", category=CATEGORY, is_output_node=True,
            description="Scores generated images against real ones that were not trained on.",
            inputs=[RECORDS_OR_FEATURES.Input("real", tooltip="Held-out real images, or their features."),
                    RECORDS_OR_FEATURES.Input("fake", tooltip="Generated images, or their features."),
                    EXTRACTOR.Input("extractor", optional=True, tooltip="The feature space; the same one for all that is compared. "
                                    "Features bring their own."),
                    METRIC_SET.Input("metrics", optional=True, tooltip=f"A Metric Set; without one: {', '.join(STANDARD)}."),
                    EXTRACTOR.Input("captions", optional=True, tooltip="An extractor that reads text, such as open_clip's, for the "
                                    "metrics of prompt alignment; not needed where the extractor itself reads text."),
                    EXTRACTOR.Input("labels", optional=True, tooltip="An extractor that tells findings, for the agreement with the "
                                    "prompts' labels; not needed where the extractor itself does."),
                    io.String.Input("name", default="tuned", tooltip="What the generated images are called in a report."),
                    io.Combo.Input("figure", options=list(METRICS), default="frechet", tooltip="The metric of the output number."),
                    io.Boolean.Input("per_class", default=False, optional=True, tooltip="Scores for each label, and their mean."),
                    io.Boolean.Input("equal", default=False, optional=True, tooltip="As many real as generated images, drawn from the "
                                     "larger set: for figures that depend on the number.")],
            outputs=[SCORES.Output("scores", display_name="scores"), io.String.Output("json", display_name="json"),
                     io.Float.Output("number", display_name="number", tooltip="NaN where it cannot be had; the scores say why.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, real, fake, name, extractor=None, metrics=None, captions=None, labels=None, figure="frechet", per_class=False,
                equal=False):
        from ..evaluation.metric import CHOSEN
        from ..evaluation.run import score
        from ..evaluation.spaces import Spaces

        if figure not in METRICS:
            raise UnknownName("metric", figure, METRICS)
        metrics = metrics if metrics is not None else select_metrics()
        names = [metric.name for metric in metrics]
        if figure not in names:
            raise ConfigError(f"figure is {figure!r}, which is not computed; it must be one of: {', '.join(names)}")
        progress = host.Progress(cls, len(real) + len(fake))
        real, fake = (_features(given, extractor, progress) for given in (real, fake))
        with host.computing():
            spaces = Spaces(real.records, fake.records, real.extractor, captions, _labeller(labels), known={CHOSEN: (real, fake)},
                            read={"cache": cache_folder() / "features"})
            scores = score(spaces, metrics, per_class=per_class, equal=equal)
        value = scores.find(figure).value
        progress.say(f"{figure}: {'cannot be had, ' + scores.find(figure).reason if value is None else format(value, '.4g')}")
        text = json.dumps({"name": name, **scores.to_json()}, indent=1, allow_nan=False)
        return io.NodeOutput(ScoredSet(name, scores, fake.records), text, math.nan if value is None else float(value),
                             ui={"medtune": [{"table": {"columns": COLUMNS, "rows": rows(scores)}, "notices": list(scores.notices)}],
                                 "scores": [text]})


def _labeller(extractor: Any) -> Any:
    """What tells findings behind an extractor; None for no extractor."""
    found = extractor.labeller() if extractor is not None else None
    if extractor is not None and found is None:
        raise ConfigError(f"the extractor {extractor.name} that is linked to labels tells no findings; link one that does")
    return found


def rows(scores: Any) -> list[list[Any]]:
    """The scores as the rows of a table in a node."""
    return [[score.metric, score.value, score.low, score.high, score.direction, score.n_real, score.n_fake, score.label or "all",
             score.reason or ""] for score in scores.scores]


def nodes() -> list[type]:
    """The nodes of this file: one per extractor, then the rest."""
    return [*(extractor_node(name, extractor) for name, extractor in EXTRACTORS.items()), Extract, MetricSet, Evaluate]
