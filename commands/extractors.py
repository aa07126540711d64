"""List the feature spaces, and which of them are ready."""

from .output import plugins

EXAMPLE = "medtune extractors"


def add_arguments(parser) -> None:
    """No arguments of its own."""


def run(arguments) -> None:
    """Print the list."""
    from ..evaluation.extractor import EXTRACTORS

    plugins(arguments, [((name, entry.facts.title, entry.missing() or "ready"), entry) for name, entry in EXTRACTORS.items()],
            ("extractor", "title", "state"))
