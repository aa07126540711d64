"""Take the tensors out of a pickled model or TorchScript archive, without running it, and write them as safetensors.

For the files of weights that are published as pickles alone, which may run programs when they are opened: the Inception network of
clean-fid, torchxrayvision's networks, and any model of torch. Nothing in the file is imported or run."""

from pathlib import Path

from ..errors import ConfigError
from .output import say, show

EXAMPLE = "medtune convert-weights inception-2015-12-05.pt inception-2015-12-05.safetensors"


def add_arguments(parser) -> None:
    """From where, to where."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a file of torch.save or torch.jit.save (.pt, .pth, .bin, .ckpt)")
    parser.add_argument("out", type=Path, metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def run(arguments) -> None:
    """Write the file, and say what it holds."""
    from ..evaluation.networks.conversion import convert

    if arguments.out.suffix != ".safetensors":
        raise ConfigError(f"OUT is {arguments.out}; it must end in .safetensors")
    if arguments.out.exists() and not arguments.force:
        raise ConfigError(f"{arguments.out} is there already; give another name, or --force to write over it")
    made = convert(arguments.file, arguments.out)
    if made.foreign:
        say(f"note: the file names what models are not made of ({', '.join(made.foreign)}): none of it was followed")
    value = {"file": str(arguments.out), "what": made.what, "tensors": made.tensors, "numbers": made.numbers, "sha256": made.sha256,
             "foreign": made.foreign}
    show(arguments, value, f"{arguments.out}: {made.what}, {made.tensors} tensors of {made.numbers:,} numbers, sha256 {made.sha256}")
