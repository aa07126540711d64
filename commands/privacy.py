"""Say what generated images, and the adapter that drew them, give away of the training images: nearness, copies with the pairs, and,
with --adapter, membership inference."""

import argparse
from pathlib import Path

from ..config import add_flags, read_flags
from ..files import cache_folder, write_json
from .inputs import add_device, device, extractor, read_data
from .output import counter, say, show, table

EXAMPLE = "medtune privacy --train phantoms --train-split train --held-out-split test --fake generated --out privacy"
SHOWN = 5


def add_arguments(parser) -> None:
    """The three sets, the feature space, and the adapter."""
    from ..evaluation.privacy.audit import PrivacyOptions
    from ..training.membership import MembershipOptions

    parser.add_argument("--train", type=Path, required=True, metavar="PATH", help="the images that the generator was trained on")
    parser.add_argument("--train-split", default="", help="only the records of this split: train, val or test [all]")
    parser.add_argument("--held-out", type=Path, metavar="PATH", help="images of the same kind that it was not trained on [--train]")
    parser.add_argument("--held-out-split", default="", help="only the records of this split [all]")
    parser.add_argument("--source", default="auto", help="layout of both on disk, e.g. image-set, kohya; auto finds it [auto]")
    parser.add_argument("--source-option", action="append", default=[], metavar="NAME=VALUE", help="option of the source")
    parser.add_argument("--fake", type=Path, required=True, metavar="PATH", help="image set of generated images")
    parser.add_argument("--extractor", default="thumbnail", help="space of the distances, see `medtune extractors` [thumbnail]")
    parser.add_argument("--fit", type=Path, metavar="PATH", help="labelled images that the in-domain extractor learns from")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of the extractor")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--adapter", type=Path, action="append", default=[], help="measure membership inference on this adapter; may be "
                      "repeated, as for the several files of one training [none]")
    what.add_argument("--losses", type=Path, metavar="FILE", help="losses of membership inference, of an earlier run's losses.json")
    parser.add_argument("--base", default="embedded", help="what the adapter was trained on: checkpoint file, diffusers folder, or "
                        "embedded [embedded]")
    parser.add_argument("--strength", type=float, default=1.0, help="strength of the adapter [1.0]")
    parser.add_argument("--out", type=Path, required=True, help="folder for privacy.json and losses.json")
    add_device(parser)
    add_flags(parser, PrivacyOptions)
    add_flags(parser.add_argument_group("membership inference", "how losses are measured; size and seed as in the training, where "
                                        "the adapter says its size"), MembershipOptions, skip=("fit", "seed"))


def run(arguments) -> None:
    """Print the figures and the pairs that are most alike."""
    from ..data.source import read_records
    from ..evaluation.privacy.audit import PrivacyOptions, audit
    from ..evaluation.privacy.membership import Membership

    options = read_flags(PrivacyOptions, arguments)
    train = _records(arguments, arguments.train, arguments.train_split)
    held_out = _records(arguments, arguments.held_out or arguments.train, arguments.held_out_split)
    membership = Membership.read(arguments.losses) if arguments.losses else None
    if arguments.adapter:
        membership = Membership.from_json(_losses(arguments, train, held_out))
    found = audit(train, held_out, read_records(arguments.fake), extractor(arguments), options, membership=membership,
                  cache=cache_folder() / "features", on_progress=counter("images"))
    found.write(arguments.out / "privacy.json")
    for notice in found.notices:
        say(f"note: {notice}")
    show(arguments, found.to_json(), page(found))


def _records(arguments, path: Path, split: str) -> list:
    return read_data(argparse.Namespace(**{**vars(arguments), "split": split}), path)


def _losses(arguments, train: list, held_out: list) -> dict:
    """The losses of the adapter, kept beside the result."""
    from ..training.adapter import read_adapter
    from ..training.base import load_base
    from ..training.membership import MembershipOptions, membership_losses, trained_with

    adapters = [read_adapter(path) for path in arguments.adapter]
    given = argparse.Namespace(**{name: value for name, value in vars(arguments).items() if name != "fit"})  # another fit
    options = read_flags(MembershipOptions, given, trained_with(adapters))
    base = load_base(arguments.base, device=device(arguments.device))
    losses = membership_losses(base, adapters, train, held_out, options, strength=arguments.strength,
                               cache=cache_folder() / "training", on_progress=counter("losses"))
    write_json(arguments.out / "losses.json", losses.to_json())
    return losses.to_json()


def page(found) -> str:
    """The figures, then the pairs."""
    rows = [figure_row(figure) for figure in found.figures]
    pairs = [(f"{pair.value:.4f}", "copy" if pair.copy else "", str(pair.fake), str(pair.train)) for pair in found.alike[:SHOWN]]
    near = [(f"{pair.value:.4g}", f"{pair.held_out_distance:.4g}", str(pair.fake), str(pair.train)) for pair in found.nearest[:SHOWN]]
    return "\n\n".join([
        table(rows, ("figure", "value", "95 % interval", "expected", "images", "note")),
        f"copies: a correlation of {found.threshold.value:.3f} or more; {found.threshold.how}",
        table(pairs, ("correlation", "", "generated", "training")), table(near, ("distance", "to held-out", "generated", "training"))])


def figure_row(figure) -> tuple:
    """The cells of one figure."""
    interval = f"{figure.low:.4g} to {figure.high:.4g}" if figure.low is not None and figure.high is not None else ""
    images = ", ".join(f"{name} {count}" for name, count in figure.n.items())
    return (figure.title, "-" if figure.value is None else f"{figure.value:.4g}", interval,
            "" if figure.expected is None else f"{figure.expected:.3g}", images, figure.reason)
