"""Write an adapter in another form: kohya's keys, a peft folder, or merged into its base as a checkpoint or a diffusers folder.
With --kohya, write instead what kohya's sd-scripts needs to train the same adapter: images, data-set file and command line."""

from pathlib import Path

from ..config import add_flags, from_json, parse, read_flags
from ..errors import ConfigError
from .inputs import add_data, read_data
from .output import say, show

EXAMPLE = "medtune export adapter.safetensors --to checkpoint --base sd15.safetensors --out merged.safetensors --dtype float16"


def add_arguments(parser) -> None:
    """What, in which form, for which base; for --kohya also data, method and options."""
    from ..training.objective import ObjectiveOptions
    from ..training.options import TrainOptions

    parser.add_argument("file", type=Path, nargs="?", help="an adapter; with --kohya, the one whose settings to take [none]")
    parser.add_argument("--to", choices=("peft", "kohya", "checkpoint", "diffusers"), help="the form")
    parser.add_argument("--base", default="embedded", help="checkpoint file, diffusers folder, or embedded [embedded]")
    parser.add_argument("--out", type=Path, help="the file or folder to write")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="type of the weights [float32]")
    parser.add_argument("--measure", action="store_true", help="compare the U-Net's output, too, where nothing is rounded")
    training = parser.add_argument_group("for sd-scripts")
    training.add_argument("--kohya", type=Path, metavar="DIR", help="folder to write a training for sd-scripts to")
    training.add_argument("--reference", action="store_true", help="name the original images instead of writing them anew")
    training.add_argument("--method", default="lora", help="see `medtune methods` [lora]")
    training.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of the method")
    add_data(training, required=False)
    add_flags(training, TrainOptions)
    add_flags(training, ObjectiveOptions)


def run(arguments) -> None:
    """Write it."""
    if arguments.kohya:
        return _kohya(arguments)
    if not (arguments.file and arguments.to and arguments.out):
        raise ConfigError("give a file, --to and --out; or --kohya DIR with --data to write a training for sd-scripts")
    from ..training.adapter import read_adapter
    from ..training.export import export

    done = export(read_adapter(arguments.file), arguments.base, arguments.to, arguments.out, arguments.dtype,
                  measure=arguments.measure or None)
    for notice in done.notices:
        say(f"note: {notice}")
    name, worst = done.worst
    value = {"path": str(done.path), "to": done.target, "dtype": done.dtype, "notices": done.notices,
             "relative_error": {"differences": done.difference, "worst": {"parameter": name, "error": worst}, "output": done.output}}
    output = f", of the U-Net's output {done.output:.2e}" if done.output is not None else ""
    return show(arguments, value, f"{done.path} ({done.dtype}): relative error of the differences {done.difference:.2e}, at worst "
                                  f"{worst:.2e} ({name}){output}")


def _kohya(arguments) -> None:
    from ..training.base import load_base
    from ..training.kohya import write_training

    if not arguments.data:
        raise ConfigError("--kohya needs the training images: give them by --data")
    method, options, objective = _settings(arguments)
    base = load_base(arguments.base, device="meta")
    written = write_training(arguments.kohya, read_data(arguments, arguments.data), base, method, options=options, objective=objective,
                             reference=arguments.reference)
    for notice in written.notices:
        say(f"note: {notice}")
    value = {"folder": str(written.folder), "dataset": str(written.dataset), "command": written.command, "images": written.images,
             "notices": written.notices}
    show(arguments, value, f"{written.images} images and captions, {written.dataset} and the command line in "
                           f"{written.folder / 'train.sh'}")


def _settings(arguments) -> tuple:
    """Method, options and objective: of an adapter's header where one is given, else of the arguments."""
    from ..training.method import METHODS
    from ..training.objective import ObjectiveOptions
    from ..training.options import TrainOptions

    if not arguments.file:
        entry = METHODS[arguments.method]
        return entry(parse(entry.Config, arguments.set)), read_flags(TrainOptions, arguments), read_flags(ObjectiveOptions, arguments)
    from ..training.adapter import read_adapter
    from ..training.anatomy import settings

    adapter = read_adapter(arguments.file)
    held = settings(adapter.header)
    if "medtune.method" not in held:
        raise ConfigError(f"{arguments.file} does not say how it was trained: MedTune did not make it. Give --method and its options")
    entry = METHODS[held["medtune.method"]]
    return (entry(from_json(entry.Config, held.get("medtune.config", {}))), from_json(TrainOptions, held.get("medtune.options", {})),
            from_json(ObjectiveOptions, held.get("medtune.objective", {})))
