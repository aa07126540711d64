"""What is kept of a set of images that is too large to keep its features: moments by group of patients, and a sample.

Statistics of shards that several processes or machines made are merged; the result does not depend on how the images were shared
out. The sample holds the images whose hashes are smallest, so that the sample of the whole is found in the samples of its parts.
It serves the metrics that need single features. A file of them holds no image, and can be given where images cannot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.record import Record
from ..errors import ConfigError, DataError
from ..files import hash_json, whole
from .extractor import Extractor
from .features import Features, extract
from .moments import Moments, merged

FORMAT = 1
CHUNK = 512  # images whose features are held at once


@dataclass(frozen=True)
class Statistics:
    """Of ``n`` images in the space of ``extractor_id``, read at ``size`` by ``fit``.

    ``groups`` are the moments of each group; ``sample`` the features (K, D) of the images of smallest hash, ``hashes`` these
    hashes, ``units`` what each belongs to (its patient, or its prompt and seed), at most ``keep`` of them. ``about`` is the
    extractor's description.
    """

    extractor_id: str
    size: int
    fit: str
    keep: int
    groups: tuple[Moments, ...]
    sample: np.ndarray
    hashes: tuple[str, ...]
    units: tuple[str, ...]
    about: dict[str, Any]

    def __len__(self) -> int:
        return sum(group.n for group in self.groups)

    @property
    def total(self) -> Moments:
        """The moments of all images."""
        return merged(list(self.groups))

    def without(self, group: int) -> Moments:
        """The moments of all images but a group's."""
        return merged([moments for index, moments in enumerate(self.groups) if index != group])

    def merge(self, other: Statistics) -> Statistics:
        """The statistics of both sets; DataError when they are of different spaces, or share images."""
        for name in ("extractor_id", "size", "fit", "keep"):
            if getattr(self, name) != getattr(other, name):
                raise DataError(f"statistics with {name} {getattr(self, name)!r} and {getattr(other, name)!r} cannot be merged")
        if len(self.groups) != len(other.groups):
            raise DataError(f"statistics of {len(self.groups)} and {len(other.groups)} groups cannot be merged")
        twice = len(set(self.hashes) & set(other.hashes))
        if twice:
            raise DataError(f"{twice} images are in both statistics; merge those of different shards")
        groups = tuple(one.merge(two) for one, two in zip(self.groups, other.groups))
        return _smallest(dataclasses.replace(self, groups=groups, sample=np.concatenate([self.sample, other.sample]),
                                             hashes=self.hashes + other.hashes, units=self.units + other.units))

    def features(self) -> Features:
        """The sample as features, which can be scored like any others."""
        records = tuple(Record(Path(digest), "", patient=unit) for digest, unit in zip(self.hashes, self.units))
        return Features(self.sample, records, _Named(self.extractor_id, self.about), self.hashes, None, self.size, self.fit)

    def write(self, path: str | Path) -> None:
        """Keep them as a safetensors file, whole or not at all."""
        from safetensors.numpy import save_file

        stacked = {name: np.stack([getattr(group, name) for group in self.groups]) for name in ("mean", "scatter", "cosine")}
        counts = np.array([[group.n, group.empty] for group in self.groups])
        facts = {"format": FORMAT, "extractor": self.extractor_id, "size": self.size, "fit": self.fit, "keep": self.keep,
                 "hashes": self.hashes, "units": self.units, "about": self.about}
        with whole(path) as beside:
            save_file({**stacked, "counts": counts, "sample": self.sample}, beside, {"medtune.statistics": json.dumps(facts)})

    @classmethod
    def read(cls, path: str | Path) -> Statistics:
        """Statistics from a file; DataError when it holds something else or is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {})["medtune.statistics"])
                values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["format"] != FORMAT:
                raise DataError(f"{path} is of format {facts['format']}, which this version does not read; make it again")
            groups = tuple(Moments(int(n), *parts, int(empty)) for (n, empty), *parts in
                           zip(values["counts"], values["mean"], values["scatter"], values["cosine"]))
            return cls(facts["extractor"], facts["size"], facts["fit"], facts["keep"], groups, values["sample"],
                       tuple(facts["hashes"]), tuple(facts["units"]), facts["about"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} holds no statistics of medtune ({error}); make it with `medtune statistics`") from error


class _Named:
    """What is left of an extractor in a file: its name."""

    reads_text = False

    def __init__(self, name: str, about: dict[str, Any]):
        self.id, self.described = name, about

    def about(self) -> dict[str, Any]:
        return self.described

    def seen(self) -> frozenset[str]:
        return frozenset()

    def limits(self) -> tuple[str, ...]:
        return ()


def gather(records: Sequence[Record], extractor: Extractor, *, cache: str | Path | None = None, groups: int = 10, keep: int = 5000,
           size: int = 512, fit: str = "crop", batch: int = 16, on_progress: Callable[[int, int], None] | None = None) -> Statistics:
    """The statistics of records, a chunk at a time.

    ``groups`` is how many groups of patients intervals are made from (two D x D matrices each are kept), ``keep`` how large the
    sample is. The group of an image depends on its patient alone. Raises DataError for images that cannot be read.
    """
    if groups < 1 or keep < 2:
        raise ConfigError(f"groups is {groups} and keep is {keep}; there must be at least 1 group and 2 images kept")
    found: Statistics | None = None
    for features in stream(records, extractor, cache=cache, size=size, fit=fit, batch=batch, on_progress=on_progress):
        part = _of(features, extractor, groups, keep)
        found = part if found is None else _joined(found, part)
    if found is None:
        raise DataError("no images to gather statistics of; check the data set, its split and the shard")
    return found


def stream(records: Sequence[Record], extractor: Extractor, *, cache: str | Path | None = None,
           on_progress: Callable[[int, int], None] | None = None, **read: Any) -> Iterator[Features]:
    """The features of records, a chunk at a time."""
    for start in range(0, len(records), CHUNK):
        part = records[start:start + CHUNK]
        progress = (lambda done, _, start=start: on_progress(start + done, len(records))) if on_progress is not None else None
        yield extract(part, extractor, cache, **read, on_progress=progress)


def shard(records: Sequence[Record], index: int, count: int) -> list[Record]:
    """Part ``index`` (from 1) of ``count`` parts of the records."""
    if not 1 <= index <= count:
        raise ConfigError(f"shard {index}/{count} is not one of 1/{count} to {count}/{count}")
    return list(records[index - 1::count])


def _of(features: Features, extractor: Extractor, groups: int, keep: int) -> Statistics:
    units = [_unit(record, digest) for record, digest in zip(features.records, features.hashes)]
    place = np.array([int(hashlib.sha256(unit.encode()).hexdigest(), 16) % groups for unit in units])
    parts = tuple(Moments.of(features.values[place == group]) for group in range(groups))
    return _smallest(Statistics(extractor.id, features.size, features.fit, keep, parts, features.values, features.hashes,
                                tuple(units), extractor.about()))


def _unit(record: Record, digest: str) -> str:
    """What an image belongs to: its patient, or its prompt and seed, or itself."""
    if record.patient is not None:
        return f"patient {record.patient}"
    return f"{record.caption} #{record.seed}" if record.seed is not None else f"image {digest}"


def _joined(first: Statistics, second: Statistics) -> Statistics:
    """Two chunks of one set, in which a file may lie twice."""
    groups = tuple(one.merge(two) for one, two in zip(first.groups, second.groups))
    return _smallest(dataclasses.replace(first, groups=groups, sample=np.concatenate([first.sample, second.sample]),
                                         hashes=first.hashes + second.hashes, units=first.units + second.units))


def _smallest(statistics: Statistics) -> Statistics:
    """With the sample cut to the images of smallest hash, in the order of the hashes."""
    keys = [hash_json([digest]) for digest in statistics.hashes]
    order = sorted(range(len(keys)), key=lambda index: (keys[index], statistics.units[index]))[:statistics.keep]
    return dataclasses.replace(statistics, sample=statistics.sample[order], hashes=tuple(statistics.hashes[i] for i in order),
                               units=tuple(statistics.units[i] for i in order))
