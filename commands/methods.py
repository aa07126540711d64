"""List the fine-tuning methods with what they train and cost, or the presets of published studies."""

from .output import plugins, show, table

EXAMPLE = "medtune methods --base sd1"


def add_arguments(parser) -> None:
    """What to list."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--base", metavar="REF", help="count what is trained on this base, without reading its weights: sd1, sd2, "
                                                     "embedded, a checkpoint file or a diffusers folder")
    which.add_argument("--presets", nargs="?", const="", metavar="NAME", help="list the presets instead, or one with all it says")


def run(arguments) -> None:
    """Print the list."""
    if arguments.presets is not None:
        list_presets(arguments)
    else:
        list_methods(arguments)


def list_methods(arguments) -> None:
    """Methods with their counts: on Stable Diffusion 1.5 as stated, or on the base that was named."""
    from ..training.count import count_all
    from ..training.method import METHODS

    counts = count_all(arguments.base) if arguments.base else {name: entry.facts.cost for name, entry in METHODS.items()}
    plugins(arguments, [((name, entry.facts.title, entry.facts.year, counts[name], entry.facts.trains, entry.facts.file), entry)
                        for name, entry in METHODS.items()], ("method", "title", "year", "trained values", "trains", "file"))


def list_presets(arguments) -> None:
    """Presets as a table, or one of them with its settings and notes."""
    from ..training.preset import KINDS, PRESETS

    chosen = [PRESETS[arguments.presets]] if arguments.presets else [preset for _, preset in PRESETS.items()]
    values = [describe(preset) for preset in chosen]
    if arguments.presets:
        text = "\n".join(f"{key}: {_plain(value)}" for key, value in values[0].items() if value)
    else:
        rows = [(preset.name, preset.method, " or ".join(KINDS[kind] for kind in preset.bases), preset.title) for preset in chosen]
        text = f"{table(rows, ('preset', 'method', 'base', 'title'))}\n\nmedtune methods --presets NAME shows the settings of one."
    show(arguments, values[0] if arguments.presets else values, text)


def describe(preset) -> dict:
    """All that a preset says, as JSON values."""
    return {"preset": preset.name, "title": preset.title, "source": preset.source, "base": list(preset.bases), "method": preset.method,
            "config": dict(preset.config), "options": dict(preset.options), "objective": dict(preset.objective),
            "sampling": dict(preset.sampling), "caption": preset.caption, "notes": preset.notes}


def _plain(value) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={one}" for key, one in value.items() if one != "")
    return ", ".join(value) if isinstance(value, list) else str(value)
