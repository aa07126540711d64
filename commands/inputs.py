"""Arguments that several verbs take: a data set, an extractor, a device."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import parse
from ..errors import ConfigError
from ..files import cache_folder
from .output import counter


def add_data(parser: argparse.ArgumentParser, flag: str = "--data", what: str = "the training images", required: bool = True) -> None:
    """``--data`` (or another flag) with the layout and the split to read."""
    parser.add_argument(flag, type=Path, required=required, metavar="PATH", help=f"folder or file of {what}")
    parser.add_argument("--source", default="auto", help="layout on disk, e.g. image-set, kohya, chexpert; auto finds it [auto]")
    parser.add_argument("--source-option", action="append", default=[], metavar="NAME=VALUE", help="option of the source")
    parser.add_argument("--split", default="", help="only the records of this split: train, val or test [all]")


def read_data(arguments: argparse.Namespace, path: Path, template: str = "") -> list:
    """The records of ``add_data``'s arguments.

    ``template`` is how captions are made, unless the arguments say it, where the source makes captions of that kind from labels.
    """
    from ..data.caption import modality
    from ..data.source import SOURCES, read_records, recognise
    from ..data.split import select

    options = {}
    if arguments.source_option:
        if arguments.source == "auto":
            raise ConfigError("--source-option needs --source, so that it is known whose option it is")
        config = parse(SOURCES[arguments.source].Config, arguments.source_option)
        names = [pair.partition("=")[0].replace("-", "_") for pair in arguments.source_option]
        options = {name: getattr(config, name) for name in names}
    source = arguments.source
    if template and "caption" not in options and path.exists():
        source = recognise(path) if source == "auto" else source
        if modality(getattr(SOURCES[source].Config(), "caption", "")) == modality(template) != "":
            options["caption"] = template
    records = read_records(path, source, **options)
    return select(records, arguments.split) if arguments.split else records


def add_preset(parser: argparse.ArgumentParser) -> None:
    """``--preset``."""
    parser.add_argument("--preset", default="", metavar="NAME",
                        help="settings of a published study, see `medtune methods --presets`; what else is given wins over them")


def preset(arguments: argparse.Namespace):
    """The preset that was asked for, or the one that sets nothing."""
    from ..training.preset import PLAIN, PRESETS

    return PRESETS[arguments.preset] if arguments.preset else PLAIN


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument("--device", default="", help="cuda, cuda:1, mps, cpu [the best there is]")


def device(name: str) -> str:
    """The device asked for, or the best there is."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """What real images, features and metrics to score with."""
    add_data(parser, "--real", "the real images to compare with, held out from training")
    parser.add_argument("--extractor", default="in-domain", help="see `medtune extractors` [in-domain]")
    parser.add_argument("--fit", type=Path, metavar="PATH", help="labelled images that the in-domain extractor learns from")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of the extractor")
    parser.add_argument("--captions", default="", metavar="EXTRACTOR", help="extractor that reads text, for prompt alignment")
    parser.add_argument("--captions-set", action="append", default=[], metavar="NAME=VALUE", help="option of that extractor")
    parser.add_argument("--labels", default="", metavar="EXTRACTOR",
                        help="extractor that tells findings, for the agreement with the prompts' labels [--extractor, if it does]")
    parser.add_argument("--labels-set", action="append", default=[], metavar="NAME=VALUE", help="option of that extractor")
    parser.add_argument("--metrics", default="", help="comma-separated, see `medtune metrics`, or all [the standard ones]")
    parser.add_argument("--metric-option", action="append", default=[], metavar="METRIC.NAME=VALUE",
                        help="option of a metric, or, without METRIC, of all: least, groups, interval, repeats")
    parser.add_argument("--per-class", action="store_true", help="figures for each label, and their mean, too")
    parser.add_argument("--equal", action="store_true", help="as many real as generated images, drawn from the larger set")


def extractor(arguments: argparse.Namespace):
    """The extractor of ``add_scoring``'s arguments, ready."""
    return _prepared(arguments.extractor, arguments.set, arguments.fit)


def _prepared(name: str, options: list[str], fit: Path | None):
    from ..data.source import read_records
    from ..evaluation.extractor import EXTRACTORS

    entry = EXTRACTORS[name]
    return entry.prepare(parse(entry.Config, options), read_records(fit) if fit else (), on_progress=counter(f"preparing {name}"))


def score(arguments: argparse.Namespace, real: list, fake: Path, features):
    """Scores of one image set by the metrics asked for."""
    from ..data.source import read_records
    from ..evaluation.run import evaluate
    from ..evaluation.selection import select_metrics

    metrics = select_metrics(arguments.metrics, arguments.metric_option)
    captions = _prepared(arguments.captions, arguments.captions_set, None) if arguments.captions else None
    return evaluate(real, read_records(fake), features, metrics, captions=captions, labels=_labeller(arguments),
                    per_class=arguments.per_class, equal=arguments.equal, cache=cache_folder() / "features",
                    on_progress=counter("features"))


def _labeller(arguments: argparse.Namespace):
    if not arguments.labels:
        return None
    found = _prepared(arguments.labels, arguments.labels_set, arguments.fit).labeller()
    if found is None:
        raise ConfigError(f"the extractor {arguments.labels} tells no findings; see `medtune extractors` for one that does")
    return found
