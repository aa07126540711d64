"""Score generated images against real ones."""

from pathlib import Path

from .inputs import add_scoring, extractor, read_data, score
from .output import show, table

EXAMPLE = "medtune evaluate --real phantoms --split test --fake generated --fit phantoms"


def add_arguments(parser) -> None:
    """Real, fake, features and metrics."""
    add_scoring(parser)
    parser.add_argument("--fake", type=Path, required=True, metavar="PATH",
                        help="image set of generated images, or statistics of one (.safetensors; --real then, too)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the scores to this JSON file, too")


def run(arguments) -> None:
    """Print the scores."""
    from ..files import write_json

    kept = [path for path in (arguments.real, arguments.fake) if path.suffix == ".safetensors"]
    scores = of_statistics(arguments) if kept else score(arguments, read_data(arguments, arguments.real), arguments.fake,
                                                         extractor(arguments))
    if arguments.out:
        write_json(arguments.out, scores.to_json())
    heads = ("metric", "of", "value", "95 % interval", "real", "fake", "better is", "note")
    show(arguments, scores.to_json(), table([row(one) for one in scores.scores], heads))


def of_statistics(arguments):
    """The scores of two files of statistics."""
    from ..errors import ConfigError
    from ..evaluation.selection import select_metrics
    from ..evaluation.statistics import Statistics
    from ..evaluation.statistics_score import score_all

    if any(path.suffix != ".safetensors" for path in (arguments.real, arguments.fake)):
        raise ConfigError(f"{arguments.real} and {arguments.fake}: where one is a file of statistics the other must be one, too; "
                          "`medtune statistics` makes them")
    metrics = select_metrics(arguments.metrics, arguments.metric_option)
    return score_all(Statistics.read(arguments.real), Statistics.read(arguments.fake), metrics)


def row(one) -> tuple:
    """The cells of one score."""
    interval = f"{one.low:.4g} to {one.high:.4g}" if one.low is not None else ""
    value = "-" if one.value is None else f"{one.value:.4g}"
    return one.metric, one.label or "all", value, interval, one.n_real, one.n_fake, one.direction, one.reason
