"""List the metrics and their options."""

from .output import plugins

EXAMPLE = "medtune metrics"


def add_arguments(parser) -> None:
    """No arguments of its own."""


def run(arguments) -> None:
    """Print the list."""
    from ..evaluation.metric import METRICS

    plugins(arguments, [((name, entry.facts.title, entry.facts.direction), entry) for name, entry in METRICS.items()],
            ("metric", "title", "better is"))
