"""Parts of a data set that share no patient."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import ConfigError, DataError, listing
from .record import Record

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}
OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


def split_name(name: str) -> str:
    """The name of a split as it is used here: ``valid`` and ``validation`` are ``val``; unknown names stay."""
    plain = name.strip().lower()
    return OTHER_NAMES.get(plain, plain if plain in SPLITS else name.strip())


def split(records: Sequence[Record], fractions: Mapping[str, float] = FRACTIONS, seed: int = 0) -> list[Record]:
    """The records, in their order, with ``split`` filled in; a split that they had is replaced.

    All images of a patient go to one part, and each label is spread over the parts by the fractions as evenly as whole
    patients allow (iterative stratification: the rarest label first, to the part that lacks it most). A record without
    a patient is its own. DataError where there are fewer patients than parts.
    """
    _check_fractions(fractions)
    parts = [name for name, fraction in fractions.items() if fraction > 0]
    groups = _groups(records)
    if len(groups) < len(parts):
        raise DataError(f"{len(groups)} patients ({len(records)} images) cannot fill {len(parts)} parts that share none: "
                        f"{', '.join(parts)}; give more data or fewer parts")
    order = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    share = np.array([fractions[name] for name in parts])
    placed = _fill(_assign(records, order, share / share.sum()), order, len(parts))
    names = {index: parts[part] for group, part in zip(order, placed, strict=True) for index in group}
    return [dataclasses.replace(record, split=names[index]) for index, record in enumerate(records)]


def _check_fractions(fractions: Mapping[str, float]) -> None:
    values = list(fractions.values())
    if not values or any(not math.isfinite(value) or value < 0 for value in values) or abs(sum(values) - 1) > 1e-6:
        raise ConfigError(f"fractions are {dict(fractions)}; they must be at least 0 and add up to 1")


def _groups(records: Sequence[Record]) -> list[list[int]]:
    """Indices of each patient's records."""
    groups: dict[object, list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault(record.patient if record.patient is not None else (index,), []).append(index)
    return list(groups.values())


def _assign(records: Sequence[Record], groups: list[list[int]], share: np.ndarray) -> list[int]:
    """The part of each group: the rarest label first, to the part that lacks most of it."""
    held = [Counter(label for index in group for label in records[index].labels or ("",)) for group in groups]
    totals = sum(held, Counter())
    wanted = {label: share * count for label, count in totals.items()}
    room = share * len(records)
    placed = [-1] * len(groups)
    with_label: dict[str, list[int]] = {label: [] for label in totals}
    for number, labels in enumerate(held):
        for label in labels:
            with_label[label].append(number)
    for label in sorted(totals, key=lambda name: (totals[name], name)):
        for number in sorted(with_label[label], key=lambda number: -held[number][label]):
            if placed[number] >= 0:
                continue
            part = max(range(len(share)), key=lambda part: (round(wanted[label][part], 9), room[part]))
            placed[number] = part
            room[part] -= len(groups[number])
            for name, count in held[number].items():
                wanted[name][part] -= count
    return placed


def _fill(placed: list[int], groups: list[list[int]], parts: int) -> list[int]:
    """The same with no part empty: the smallest patient of the part with most patients moves."""
    for part in range(parts):
        if part not in placed:
            most = Counter(placed).most_common(1)[0][0]
            mover = min((number for number, at in enumerate(placed) if at == most), key=lambda number: (len(groups[number]), number))
            placed[mover] = part
    return placed


def check_split(records: Sequence[Record]) -> None:
    """DataError naming the patients who are in more than one split, with the number of their images."""
    where: dict[str, set[str]] = {}
    for record in records:
        if record.patient is not None and record.split is not None:
            where.setdefault(record.patient, set()).add(record.split)
    shared = sorted(patient for patient, names in where.items() if len(names) > 1)
    if shared:
        count = sum(record.patient in set(shared) for record in records)
        example = " and ".join(sorted(where[shared[0]]))
        raise DataError(f"{len(shared)} patients with {count} images are in more than one split: {listing(shared)} "
                        f"({shared[0]} in {example}). Scores on such a split say nothing of new patients; split again by patient.")


def select(records: Sequence[Record], split: str) -> list[Record]:
    """The records of one split; DataError naming the splits there are when it has none."""
    chosen = [record for record in records if record.split == split]
    if not chosen:
        there = Counter(record.split or "(none)" for record in records)
        raise DataError(f"no image is in the split {split!r}; there are: "
                        f"{', '.join(f'{name} ({count})' for name, count in sorted(there.items())) or 'no images'}")
    return chosen
