"""Draw images from a base, with or without an adapter, into an image set; an interrupted one goes on."""

from pathlib import Path

from ..config import add_flags, read_flags
from .inputs import add_device, add_preset, device, preset
from .output import counter, say, show

EXAMPLE = "medtune sample --adapter runs/lora-1a2b3c/adapter.safetensors --table counts.csv --out generated"


def add_arguments(parser) -> None:
    """Base, adapter, prompts and the sampling options."""
    from ..training.sample import SampleOptions

    parser.add_argument("--base", default="embedded", help="checkpoint file, diffusers folder, or embedded [embedded]")
    parser.add_argument("--adapter", type=Path, action="append", default=[],
                        help="adapter, VAE or embedding file; may be repeated, as for the several files of one training [none]")
    parser.add_argument("--strength", type=float, default=1.0, help="strength of the adapter [1.0]")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", type=Path, help="CSV of label combinations and counts: labels,count")
    what.add_argument("--balanced", metavar="TEMPLATE", help="every class of a closed list alike: retinopathy, isic")
    what.add_argument("--prompt", action="append", help="a prompt; may be repeated")
    parser.add_argument("--template", help="caption template for the table's labels [the preset's, or chest-xray]")
    parser.add_argument("--count", type=int, default=1, help="images per --prompt, or of each class of --balanced [1]")
    add_preset(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the image set")
    add_device(parser)
    add_flags(parser, SampleOptions)


def run(arguments) -> None:
    """Sample the image set."""
    from ..training.adapter import apply_adapter, read_adapter
    from ..training.base import load_base
    from ..training.sample import SampleOptions, sample

    options = read_flags(SampleOptions, arguments, preset(arguments).sampling)
    wanted = prompts(arguments, options.seed)
    base, made_by = load_base(arguments.base, device=device(arguments.device)), None
    for path in arguments.adapter:
        adapter = read_adapter(path)
        for notice in apply_adapter(base, adapter, arguments.strength):
            say(f"note: {notice}")
        facts = {**adapter.info(), "strength": arguments.strength}
        made_by = facts if made_by is None else {**made_by, "further": [*made_by.get("further", []), facts]}
    images = sample(base, wanted, arguments.out, options, adapter=made_by, on_image=counter("image"))
    show(arguments, {"folder": str(arguments.out), "images": len(images.records)}, f"{len(images.records)} images in {arguments.out}")


def prompts(arguments, seed: int) -> list:
    """The prompts of a table of labels, of all classes alike, or of the command line."""
    from ..training.sample import Prompt
    from ..training.table import balanced_table, prompts_from_table, read_table

    if arguments.balanced:
        return prompts_from_table(balanced_table(arguments.balanced, arguments.count), arguments.template or arguments.balanced, seed)
    if arguments.table:
        template = arguments.template or preset(arguments).caption or "chest-xray"
        return prompts_from_table(read_table(arguments.table), template, seed)
    texts = [text for text in arguments.prompt for _ in range(arguments.count)]
    return [Prompt(text, seed=seed + index) for index, text in enumerate(texts)]
