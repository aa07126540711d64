"""Find out whether synthetic images help a classifier: protocols x shares of the real images x seeds, tested on real images.

What is trained is kept in --out: run it again and it finds what is there; interrupt it and it goes on."""

from __future__ import annotations

import sys
from pathlib import Path

from ..config import add_flags, read_flags
from ..errors import ConfigError
from .inputs import add_device, device
from .output import say, show, table

EXAMPLE = ("medtune classify --real phantoms --synthetic generated --test phantoms --protocols real-only,real+synthetic "
           "--fractions 5,100 --seeds 5 --out downstream")


def add_arguments(parser) -> None:
    """Real, synthetic and test images, the study and the network."""
    from ..evaluation.classifiers.network import LearningOptions
    from ..evaluation.downstream.study import StudyOptions

    parser.add_argument("--real", type=Path, required=True, metavar="PATH",
                        help="real images to learn from; those of the split val are for validation, those of test left out")
    parser.add_argument("--synthetic", action="append", default=[], metavar="[NAME=]PATH",
                        help="image set of synthetic images; may be repeated, with names, to compare what made them")
    parser.add_argument("--test", type=Path, required=True, metavar="PATH",
                        help="real images to test on, of patients that nothing was trained on; where there is a split test, it alone")
    parser.add_argument("--generator-data", type=Path, metavar="PATH",
                        help="images that the generator was trained on, where the set does not tell; its split test is left out")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the result and of what was trained")
    add_device(parser)
    add_flags(parser, StudyOptions)
    add_flags(parser, LearningOptions)


def run(arguments) -> None:
    """Print the mean AUROC of each protocol at each fraction, and which differences hold."""
    from ..data.source import read_records
    from ..evaluation.classifiers.network import LearningOptions
    from ..evaluation.downstream.result import downstream
    from ..evaluation.downstream.study import StudyOptions

    options, learning = read_flags(StudyOptions, arguments), read_flags(LearningOptions, arguments)
    test = read_records(arguments.test)
    held = [record for record in test if record.split == "test"]
    generator = None
    if arguments.generator_data:
        generator = [record for record in read_records(arguments.generator_data) if record.split != "test"]
    result = downstream(read_records(arguments.real), _synthetic(arguments.synthetic), held or test, options, learning,
                        generator=generator, out=arguments.out / "cells", device=device(arguments.device), on_trial=_progress)
    result.write(arguments.out / "downstream.json")
    for notice in result.notices:
        say(f"note: {notice}")
    show(arguments, result.to_json(), f"{_figures(result)}\n\n{_differences(result)}\n\n{arguments.out / 'downstream.json'}")


def _synthetic(words: list[str]) -> dict[str, list]:
    """Records by the set's name; a single one needs none."""
    from ..data.source import read_records

    found: dict[str, list] = {}
    for word in words:
        name, separator, path = word.partition("=") if not Path(word).exists() else ("", "", word)
        name, path = (name, path) if separator else ("", word)
        if name in found or (not name and len(words) > 1):
            raise ConfigError(f"--synthetic {word}: {'the name is taken' if name else 'of several sets each needs a name'}; give "
                              "NAME=PATH, each name once")
        found[name] = read_records(path)
    return found


def _progress(done: int, total: int, what: str) -> None:
    print(f"\r{done}/{total} {what:<60}", end="\n" if done >= total else "", file=sys.stderr, flush=True)


def _figures(result) -> str:
    from ..evaluation.macro import MACRO

    rows = []
    for curve in result.curves:
        if (curve["label"], curve["figure"]) != (MACRO, "auroc"):
            continue
        for point in curve["points"]:
            images = "-".join(str(count) for count in sorted({min(point["n_real"]), max(point["n_real"])}))
            rows.append((curve["contender"], f"{point['fraction'] * 100:g} %", images, _number(point["value"]), _interval(point),
                         point["reason"]))
    return table(rows, ("protocol", "real", "images", "mean AUROC", "95 % interval", "note"))


def _differences(result) -> str:
    from ..evaluation.macro import MACRO

    rows = [(pair["first"], pair["second"], f"{pair['fraction'] * 100:g} %", _number(pair["value"]), _interval(pair),
             _number(pair["p_holm"]), "yes" if pair["holds"] else "no", pair["reason"])
            for pair in result.pairs if (pair["label"], pair["figure"]) == (MACRO, "auroc")]
    return table(rows, ("difference of", "and", "real", "AUROC", "95 % interval", "p (Holm)", "holds", "note"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(values: dict) -> str:
    return "" if values["low"] is None else f"{values['low']:.3f} to {values['high']:.3f}"
