"""Fine-tune a base on images; the result is one adapter file, or another where that cannot hold what was trained.

The same request finds its finished result, and an interrupted one goes on where it stopped.
"""

import sys
from pathlib import Path

from ..config import add_flags, parse, read_flags
from .inputs import add_data, add_device, add_preset, device, preset, read_data
from .output import say, show

EXAMPLE = "medtune train --base embedded --data phantoms --method lora --set rank=8 --steps 200"


def add_arguments(parser) -> None:
    """Base, data, method, the training options and the objective."""
    from ..training.objective import ObjectiveOptions
    from ..training.options import TrainOptions

    parser.add_argument("--base", default="embedded", help="checkpoint file, diffusers folder, or embedded [embedded]")
    add_data(parser)
    add_preset(parser)
    parser.add_argument("--any-base", action="store_true", help="take the preset for a base that its study did not train")
    parser.add_argument("--method", help="see `medtune methods` [the preset's, or lora]")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of the method")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs [runs]")
    add_device(parser)
    add_flags(parser, TrainOptions)
    add_flags(parser.add_argument_group("objective", "what to minimise"), ObjectiveOptions)


def run(arguments) -> None:
    """Train, or find the finished adapter."""
    from ..training.base import load_base
    from ..training.loop import train
    from ..training.objective import ObjectiveOptions
    from ..training.preset import use
    from ..training.processes import count, is_main

    chosen, method, options = requested(arguments)
    records = read_data(arguments, arguments.data, chosen.caption)
    objective = read_flags(ObjectiveOptions, arguments, chosen.objective)
    alone = count() == 1  # several processes have a device each, which train() chooses
    base = load_base(arguments.base, device=device(arguments.device) if alone else "cpu")
    for notice in use(chosen, base, arguments.any_base):
        say(f"note: {notice}")
    result = train(base, method, records, options, progress, objective=objective, runs=arguments.runs,
                   device=arguments.device or None)
    if not is_main():
        return
    for notice in result.notices:
        say(f"note: {notice}")
    show(arguments, {"adapter": str(result.adapter), "products": {kind: str(file) for kind, file in result.products.items()},
                     "run": str(result.run), "reused": result.reused, "losses": result.losses},
         "\n".join(map(str, result.products.values())) + (" (finished before)" if result.reused else ""))


def requested(arguments) -> tuple:
    """Preset, method and options; what the arguments say wins over the preset."""
    from ..training.method import METHODS
    from ..training.options import TrainOptions

    chosen = preset(arguments)
    name = arguments.method or chosen.method
    entry = METHODS[name]
    method = entry(parse(entry.Config, arguments.set, chosen.config if name == chosen.method else None))
    return chosen, method, read_flags(TrainOptions, arguments, chosen.options)


def progress(info) -> None:
    """One line of progress, kept up to date."""
    end = "\n" if info.step >= info.total else ""
    if info.phase == "train":
        text = (f"step {info.step}/{info.total}  loss {info.smoothed:.4f}  {info.steps_per_second:.2f} steps/s  "
                f"{info.remaining_s:.0f} s left   ")
    else:
        text = f"{info.phase} {info.step}/{info.total}"
    print(f"\r{text}", end=end, file=sys.stderr, flush=True)
