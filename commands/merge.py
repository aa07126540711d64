"""Add adapters with weights into one file: LoRAs exactly, by laying their ranks side by side, all else as whole differences.
Adapters of different bases are refused."""

from pathlib import Path

from ..errors import ConfigError
from .output import say, show

EXAMPLE = "medtune merge a.safetensors b.safetensors --weights 0.7 0.3 --out merged.safetensors"


def add_arguments(parser) -> None:
    """The files, their weights, where to."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="adapter files, or folders of peft")
    parser.add_argument("--weights", type=float, nargs="+", metavar="WEIGHT", help="one for each file [1 for each]")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--base", help="the base that they are for, where the files do not tell, or hold changes that depend on it")
    parser.add_argument("--force", action="store_true", help="merge adapters of different bases all the same")


def run(arguments) -> None:
    """Write the sum."""
    from ..training.adapter import read_adapter
    from ..training.merge import check_weights, merge

    weights = arguments.weights or [1.0] * len(arguments.files)
    if len(weights) != len(arguments.files):
        raise ConfigError(f"there are {len(weights)} --weights for {len(arguments.files)} files; give one for each")
    adapters = [read_adapter(file) for file in arguments.files]
    check_weights(adapters, weights)
    merged = merge(adapters, weights, arguments.out, arguments.base, force=arguments.force)
    for notice in merged.notices:
        say(f"note: {notice}")
    show(arguments, {"file": str(merged.path), "low_rank": merged.low_rank, "whole": merged.whole, "notices": merged.notices},
         f"{merged.path}: {merged.low_rank} layers as LoRA, {merged.whole} weights and biases as whole differences")
