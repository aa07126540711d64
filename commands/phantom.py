"""Write synthetic chest radiographs with captions, labels, boxes and masks."""

from pathlib import Path

from .output import show

EXAMPLE = "medtune phantom phantoms --count 120 --seed 0"


def add_arguments(parser) -> None:
    """Where, how many, which."""
    parser.add_argument("out", type=Path, help="folder of the image set")
    parser.add_argument("--count", type=int, default=120, help="number of images [120]")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images [0]")
    parser.add_argument("--held-out", type=float, default=0.25, help="share of the patients that make the split test [0.25]")
    parser.add_argument("--size", type=int, default=512, help="side in pixels [512]")


def run(arguments) -> None:
    """Write the image set."""
    from ..data.phantom import write_phantoms

    images = write_phantoms(arguments.out, arguments.count, seed=arguments.seed, size=arguments.size, held_out=arguments.held_out)
    count = len(images.records)
    show(arguments, {"folder": str(arguments.out), "images": count}, f"{count} phantoms in {arguments.out}")
