"""Score several image sets and write JSON, CSV, LaTeX and one HTML page.

Results of `medtune classify` and `medtune privacy` can be shown in it, too."""

from pathlib import Path

from ..errors import ConfigError
from .inputs import add_scoring, extractor, read_data, score
from .output import show

EXAMPLE = "medtune report --real phantoms --split test --fit phantoms --arm untuned=base --arm lora=generated --out report"


def add_arguments(parser) -> None:
    """Real images, the arms, features and metrics."""
    add_scoring(parser)
    parser.add_argument("--arm", action="append", required=True, metavar="NAME=FOLDER", help="an image set to score; may be repeated")
    parser.add_argument("--reference", type=Path, metavar="PATH",
                        help="other real images, scored like an arm to show what could be reached")
    parser.add_argument("--privacy", action="append", default=[], metavar="NAME=FILE",
                        help="the privacy.json of an arm; may be repeated")
    parser.add_argument("--downstream", type=Path, metavar="FILE", help="the downstream.json of a study of classifiers")
    parser.add_argument("--title", default="MedTune report", help="the page's title [MedTune report]")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")


def run(arguments) -> None:
    """Write the report."""
    from ..evaluation.report.arm import Arm, read_privacy
    from ..evaluation.report.report import write_report

    folders, privacy = [named("--arm", pair) for pair in arguments.arm], dict(named("--privacy", pair) for pair in arguments.privacy)
    _check(privacy, folders)
    audits = {name: read_privacy(path) for name, path in privacy.items()}
    downstream = _downstream(arguments.downstream)
    real, features = read_data(arguments, arguments.real), extractor(arguments)
    arms = [Arm.of(name, folder, score(arguments, real, folder, features), privacy=audits.get(name)) for name, folder in folders]
    if arguments.reference:
        arms.append(Arm("real", score(arguments, real, arguments.reference, features), reference=True))
    page = write_report(arguments.out, arms, real, title=arguments.title, downstream=downstream)
    show(arguments, {"report": str(page)}, str(page))


def named(flag: str, pair: str) -> tuple[str, Path]:
    """(name, path) of NAME=PATH."""
    name, separator, path = pair.partition("=")
    if not (separator and name and path):
        raise ConfigError(f"{flag} is {pair!r}; it must be NAME={'FOLDER' if flag == '--arm' else 'FILE'}")
    return name, Path(path)


def _check(privacy: dict[str, Path], folders: list[tuple[str, Path]]) -> None:
    """ConfigError where an audit belongs to no arm."""
    names = [name for name, _ in folders]
    for name in privacy:
        if name not in names:
            raise ConfigError(f"--privacy {name}= names no arm; the arms are: {', '.join(names)}")


def _downstream(path: Path | None):
    if path is None:
        return None
    from ..evaluation.downstream.result import Downstream

    return Downstream.read(path)
