"""List the fine-tuning methods and their options."""

from .output import plugins

EXAMPLE = "medtune methods --json"


def add_arguments(parser) -> None:
    """No arguments of its own."""


def run(arguments) -> None:
    """Print the list."""
    from ..training.method import METHODS

    plugins(arguments, [((name, entry.facts.title, entry.facts.year, entry.facts.trains), entry) for name, entry in METHODS.items()],
            ("method", "title", "year", "trains"))
