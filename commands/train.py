"""Fine-tune a base on images; the result is one adapter file. The same request finds its finished result, and an
interrupted one goes on where it stopped."""

import sys
from pathlib import Path

from ..config import add_flags, parse, read_flags
from .inputs import add_data, add_device, device, read_data
from .output import say, show

EXAMPLE = "medtune train --base embedded --data phantoms --method lora --set rank=8 --steps 200"


def add_arguments(parser) -> None:
    """Base, data, method and the training options."""
    from ..training.options import TrainOptions

    parser.add_argument("--base", default="embedded", help="checkpoint file, diffusers folder, or embedded [embedded]")
    add_data(parser)
    parser.add_argument("--method", default="lora", help="see `medtune methods` [lora]")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of the method")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs [runs]")
    add_device(parser)
    add_flags(parser, TrainOptions)


def run(arguments) -> None:
    """Train, or find the finished adapter."""
    from ..training.base import load_base
    from ..training.loop import train
    from ..training.method import METHODS
    from ..training.options import TrainOptions

    options = read_flags(TrainOptions, arguments)
    entry = METHODS[arguments.method]
    method = entry(parse(entry.Config, arguments.set))
    records = read_data(arguments, arguments.data)
    base = load_base(arguments.base, device=device(arguments.device))
    result = train(base, method, records, options, progress, runs=arguments.runs)
    for notice in result.notices:
        say(f"note: {notice}")
    show(arguments, {"adapter": str(result.adapter), "run": str(result.run), "reused": result.reused, "losses": result.losses},
         f"{result.adapter}" + (" (finished before)" if result.reused else ""))


def progress(info) -> None:
    """One line of progress, kept up to date."""
    end = "\n" if info.step >= info.total else ""
    if info.phase == "train":
        text = (f"step {info.step}/{info.total}  loss {info.smoothed:.4f}  {info.steps_per_second:.2f} steps/s  "
                f"{info.remaining_s:.0f} s left   ")
    else:
        text = f"{info.phase} {info.step}/{info.total}"
    print(f"\r{text}", end=end, file=sys.stderr, flush=True)
