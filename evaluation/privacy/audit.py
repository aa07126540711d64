"""What a set of generated images, and the adapter that drew them, give away of the training images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ... import config
from ...config import option
from ...data.record import Record
from ...errors import DataError
from ...files import write_json
from ..extractor import Extractor
from ..features import Features, extract
from ..run import versions
from .copies import CopyOptions, Match, find_matches, null_correlations, thumbnails
from .figure import PrivacyFigure, over_patients
from .leaks import refuse, same_pictures, shared
from .membership import Membership, membership_figures
from .nearness import authenticity_figure, nearer_figure, ratio_figure, tail_figure
from .neighbours import NeighbourOptions, Neighbours, find_neighbours
from .pairs import Pair, alike_pairs, nearest_pairs, rows
from .threshold import FEWEST, Threshold, choose_threshold

NAMES = ("training", "held-out")


@dataclass(frozen=True)
class PrivacyOptions(NeighbourOptions, CopyOptions):
    """How closely it is looked."""

    pairs: int = option(20, "Pairs of a generated and a training image that are listed, the most alike first.", low=0, high=10_000)


@dataclass(frozen=True)
class Privacy:
    """The figures; the pairs that are nearest in features and most alike in pixels, ranked; and a row for each generated image."""

    figures: tuple[PrivacyFigure, ...]
    nearest: tuple[Pair, ...]
    alike: tuple[Pair, ...]
    images: tuple[Mapping[str, Any], ...]
    threshold: Threshold
    n: Mapping[str, int]
    extractor: Mapping[str, Any]
    options: Mapping[str, Any]
    membership: Mapping[str, Any] | None = None
    notices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> PrivacyFigure | None:
        """The figure of that name."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        listed = {name: [one.to_json() for one in getattr(self, name)] for name in ("figures", "nearest", "alike")}
        return {**listed, "images": [dict(row) for row in self.images], "threshold": self.threshold.to_json(), "n": dict(self.n),
                "extractor": dict(self.extractor), "options": dict(self.options),
                "membership": None if self.membership is None else dict(self.membership), "notices": list(self.notices),
                "versions": dict(self.versions)}

    def write(self, path: str | Path) -> None:
        """Keep it as a JSON file."""
        write_json(path, self.to_json())


def audit(train: Sequence[Record], held_out: Sequence[Record], fake: Sequence[Record], extractor: Extractor,
          options: PrivacyOptions | None = None, *, membership: Membership | None = None, cache: str | Path | None = None,
          size: int = 512, fit: str = "crop", batch: int = 16,
          on_progress: Callable[[int, int], None] | None = None) -> Privacy:
    """Compare generated images with those trained on and with others of the same kind.

    ``membership`` are losses of the adapter that drew them. Images are read at ``size`` by ``fit``. ``on_progress(done, total)``
    counts the images of each pass. Raises DataError for a set without images, and where training and held-out images share patients
    or pictures.
    """
    options = config.check(options or PrivacyOptions())
    sets = {"train": train, "held_out": held_out, "fake": fake}
    empty = [name for name, records in sets.items() if not records]
    if empty:
        raise DataError(f"there are no images in: {', '.join(empty)}; all three sets are needed")
    leaks = shared(train, held_out)
    refuse(leaks, NAMES)
    read = {"cache": cache, "size": size, "fit": fit, "batch": batch, "on_progress": on_progress}
    small = {name: thumbnails(records, **read) for name, records in sets.items()}
    between = find_matches(small["held_out"], small["train"], options, on_progress=on_progress)
    refuse(same_pictures(small["train"], small["held_out"], between, leaks), NAMES)
    threshold = _threshold(between, small["train"], options, on_progress)
    matches = find_matches(small["fake"], small["train"], options, on_progress=on_progress)
    features = small if extractor.id == small["fake"].extractor_id else {
        name: extract(records, extractor, **read) for name, records in sets.items()}
    if membership is not None:
        membership.check_images(small["train"].hashes, small["held_out"].hashes)
    return _assemble(features, matches, threshold, membership, options)


def _threshold(between: Sequence[Match | None], train: Features, options: PrivacyOptions,
               on_progress: Callable[[int, int], None] | None) -> Threshold:
    """From held-out images' best matches; from training images of other patients where held-out ones are too few."""
    null = [match.correlation for match in between if match is not None]
    if len(null) < FEWEST:
        null = null_correlations(train, train, options, on_progress)
    return choose_threshold(null, options.false_alarms)


def _assemble(features: Mapping[str, Features], matches: Sequence[Match], threshold: Threshold, membership: Membership | None,
              options: PrivacyOptions) -> Privacy:
    train, held_out, fake = (features[name] for name in ("train", "held_out", "fake"))
    found = find_neighbours(train, held_out, fake, options)
    units = held_out.units(), fake.units()
    copied = np.array([match.correlation >= threshold.value for match in matches])
    figures = [ratio_figure(found, units[1], (len(train), len(held_out)), options), tail_figure(found, *units, len(train), options),
               nearer_figure(found, *units, len(train), options), authenticity_figure(found, train, *units, options),
               _copies_figure(copied, threshold, units[1], len(train), options)]
    if membership is not None:
        figures += membership_figures(membership, repeats=options.repeats, seed=options.seed)
    about = fake.extractor.about() if fake.extractor is not None else {}
    return Privacy(
        tuple(figures), tuple(nearest_pairs(found, train, fake, options.pairs)),
        tuple(alike_pairs(matches, copied, train, fake, options.pairs)), tuple(rows(found, matches, copied, features)), threshold,
        {name: len(features[name]) for name in ("train", "held_out", "fake")}, about, config.to_json(options),
        membership.about if membership is not None else None, tuple(_notices(features, found, membership)), versions())


def _copies_figure(copied: np.ndarray, threshold: Threshold, units: Sequence[str], train: int,
                   options: PrivacyOptions) -> PrivacyFigure:
    figure = PrivacyFigure(
        "copies", "Copies of training images",
        f"the share of generated images whose pixels correlate with a training image's at {threshold.value:.3f} or more, after small "
        "shifts and whatever their brightness and contrast", expected=threshold.false_alarms,
        n={"train": train, "fake": len(copied), "copies": int(copied.sum())})
    return over_patients(figure, lambda _, counts: (counts @ copied.astype(float)) / counts.sum(1), units, units,
                         repeats=options.repeats, seed=options.seed)


def _notices(features: Mapping[str, Features], found: Neighbours, membership: Membership | None) -> list[str]:
    """What a reader must be told."""
    train, held_out, fake = (features[name] for name in ("train", "held_out", "fake"))
    said = []
    if len(train) != len(held_out):
        said.append(f"{len(train)} training and {len(held_out)} held-out images: the ratio of distances is among {found.n} of each, "
                    "chosen by chance; the other figures ask how near images lie to all training images")
    seen = fake.extractor.seen() if fake.extractor is not None else frozenset()
    known = [sum(digest in seen for digest in part.hashes) for part in (train, held_out)]
    if known[0] / len(train) != known[1] / len(held_out):
        said.append(f"the extractor learnt from {known[0]} of {len(train)} training and {known[1]} of {len(held_out)} held-out "
                    "images: it may place the two sets differently; choose one that knows neither, such as thumbnail")
    again = len(set(fake.hashes) & set(held_out.hashes))
    if again:
        said.append(f"{again} generated images are the same files as held-out ones")
    said += fake.extractor.limits() if fake.extractor is not None else ()
    if membership is not None:
        said += membership.about.get("notices", ())
    return said
