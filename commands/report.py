"""Score several image sets and write JSON, CSV and one HTML page."""

from pathlib import Path

from ..errors import ConfigError
from .inputs import add_scoring, extractor, read_data, score
from .output import show

EXAMPLE = "medtune report --real phantoms --split test --fit phantoms --arm untuned=base --arm lora=generated --out report"


def add_arguments(parser) -> None:
    """Real images, the arms, features and metrics."""
    add_scoring(parser)
    parser.add_argument("--arm", action="append", required=True, metavar="NAME=FOLDER", help="an image set to score; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")


def run(arguments) -> None:
    """Write the report."""
    from ..evaluation.report import Arm, write_report

    folders = [arm(pair) for pair in arguments.arm]
    real, features = read_data(arguments, arguments.real), extractor(arguments)
    arms = [Arm.of(name, folder, score(arguments, real, folder, features)) for name, folder in folders]
    page = write_report(arguments.out, arms, real)
    show(arguments, {"report": str(page)}, str(page))


def arm(pair: str) -> tuple[str, Path]:
    """(name, folder) of NAME=FOLDER."""
    name, separator, folder = pair.partition("=")
    if not (separator and name and folder):
        raise ConfigError(f"--arm is {pair!r}; it must be NAME=FOLDER")
    return name, Path(folder)
