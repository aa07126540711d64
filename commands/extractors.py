"""List the feature spaces, and which of them are ready."""

from .output import plugins

EXAMPLE = "medtune extractors"


def add_arguments(parser) -> None:
    """No arguments of its own."""


def run(arguments) -> None:
    """Print the list; below it, what to put where for those that are not ready."""
    from ..evaluation.extractor import EXTRACTORS

    entries = EXTRACTORS.items()
    missing = {name: entry.missing() for name, entry in entries}
    said = {name: (found if arguments.json else "not ready") if found else "ready" for name, found in missing.items()}
    plugins(arguments, [((name, entry.facts.title, said[name]), entry) for name, entry in entries], ("extractor", "title", "state"))
    if not arguments.json:
        print("".join(f"\n{name} is not ready: {found}" for name, found in missing.items() if found))
