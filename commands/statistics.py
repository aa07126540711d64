"""Keep what scoring needs of a set of images that is too large to keep its features, or that may not be given away."""

from pathlib import Path

from ..config import parse
from ..errors import ConfigError
from .inputs import add_data, read_data
from .output import counter, show, table

EXAMPLE = "medtune statistics --data real --extractor inception --out real.safetensors"


def add_arguments(parser) -> None:
    """Data and extractor, or files to merge."""
    add_data(parser, "--data", "the images, real or generated", required=False)
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="statistics of shards to merge, instead of --data")
    parser.add_argument("--extractor", default="in-domain", help="see `medtune extractors` [in-domain]")
    parser.add_argument("--fit", type=Path, metavar="PATH", help="labelled images that the in-domain extractor learns from")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of the extractor")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="only every N-th image, from the I-th: one process each [1/1]")
    parser.add_argument("--groups", type=int, default=10, help="groups of patients that intervals are made from [10]")
    parser.add_argument("--keep", type=int, default=5000, help="features kept for the metrics that need single ones [5000]")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the safetensors file to write")


def run(arguments) -> None:
    """Write the statistics, and say of what they are."""
    if bool(arguments.merge) == bool(arguments.data):
        raise ConfigError("give either --data, to gather statistics of, or --merge, with the files of shards")
    statistics = _merged(arguments.merge) if arguments.merge else _gathered(arguments)
    statistics.write(arguments.out)
    facts = {"file": str(arguments.out), "images": len(statistics), "extractor": statistics.extractor_id,
             "kept": len(statistics.hashes), "groups": len(statistics.groups)}
    show(arguments, facts, table([tuple(facts.values())], tuple(facts)))


def _merged(paths: list[Path]):
    from ..evaluation.statistics import Statistics

    found = Statistics.read(paths[0])
    for path in paths[1:]:
        found = found.merge(Statistics.read(path))
    return found


def _gathered(arguments):
    from ..data.source import read_records
    from ..evaluation.extractor import EXTRACTORS
    from ..evaluation.statistics import gather, shard
    from ..files import cache_folder

    part = _part(arguments.shard)
    entry = EXTRACTORS[arguments.extractor]
    extractor = entry.prepare(parse(entry.Config, arguments.set), read_records(arguments.fit) if arguments.fit else (),
                              on_progress=counter(f"preparing {arguments.extractor}"))
    records = shard(read_data(arguments, arguments.data), *part)
    return gather(records, extractor, cache=cache_folder() / "features", groups=arguments.groups, keep=arguments.keep,
                  on_progress=counter("features"))


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--shard is {text!r}; it must look like 2/8, the second of eight")
    return int(index), int(count)
