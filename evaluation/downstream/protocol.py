"""What a downstream classifier learns from: the protocols, and the part of the real images that each may see.

Every protocol takes the same number of optimiser steps, whatever the number of images. A part of the real images is a part of the
patients, drawn evenly over their combinations of labels; with one seed the smaller part lies within the larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.record import Record
from ...errors import ConfigError

REAL, SYNTHETIC, MIXED, TUNED = "real-only", "synthetic-only", "real+synthetic", "synthetic-then-real"
PROTOCOLS = {
    REAL: "real images alone: what synthetic ones are compared with",
    SYNTHETIC: "synthetic images alone: what they can stand in for",
    MIXED: "real and synthetic images shuffled together, at a given ratio",
    TUNED: "pre-training on all synthetic images, then fine-tuning on the real ones",
}
ALL = "all"


@dataclass(frozen=True, order=True)
class Cell:
    """One training: a protocol with its synthetic set and ratio, a share of the real patients, and a seed."""

    protocol: str
    source: str  # name of the synthetic set; "" where there is one alone, or none
    ratio: str  # synthetic images per real image, or "all"; "" where that has no meaning
    fraction: float  # share of the real patients; 0 for synthetic-only
    seed: int

    @property
    def contender(self) -> str:
        """What a table calls the protocol with its synthetic set and ratio."""
        ratio = "" if not self.ratio else f" {self.ratio}" if self.ratio == ALL else f" 1:{self.ratio}"
        return f"{self.protocol}{ratio}" + (f" ({self.source})" if self.source else "")


@dataclass(frozen=True)
class Stage:
    """Real and synthetic images by index, learnt from in this many steps."""

    real: tuple[int, ...]
    synthetic: tuple[int, ...]
    steps: int
    lr: float


def make_cells(protocols: Sequence[str], sources: Sequence[str], *, ratios: Sequence[str], fractions: Sequence[float],
               seeds: int) -> list[Cell]:
    """Every training of a study; synthetic-only has no real images and is trained once a seed."""
    cells = []
    for protocol in protocols:
        for source in ("",) if protocol == REAL else sources:
            for ratio in ratios if protocol == MIXED else ("",):
                for fraction in (0.0,) if protocol == SYNTHETIC else fractions:
                    cells += [Cell(protocol, source, ratio, fraction, seed) for seed in range(seeds)]
    return cells


def read_fractions(words: Sequence[str]) -> list[float]:
    """Percentages in words as shares, ascending; ConfigError for what is none."""
    found = set()
    for word in words:
        try:
            share = float(word.strip().removesuffix("%")) / 100
        except ValueError as error:
            raise ConfigError(f"the fraction {word!r} is no number; give percentages of the real patients, such as 1,5,100") from error
        if not (0 < share <= 1 and math.isfinite(share)):
            raise ConfigError(f"the fraction {word!r} is outside of what is allowed: above 0 and at most 100 per cent")
        found.add(share)
    if not found:
        raise ConfigError("no fractions of the real patients were given; give percentages, such as 1,5,10,25,100")
    return sorted(found)


def check_ratios(words: Sequence[str]) -> list[str]:
    """Ratios as given, each once; ConfigError for what is neither "all" nor a number above 0."""
    for word in words:
        try:
            valid = word == ALL or 0 < float(word) < math.inf
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(f"the ratio {word!r} is neither {ALL} nor a number above 0: synthetic images for each real one")
    if not words:
        raise ConfigError(f"no ratios for {MIXED} were given; give {ALL}, or synthetic images for each real one, such as 1,2")
    return list(dict.fromkeys(words))


def order(records: Sequence[Record], seed: int) -> list[list[int]]:
    """The images of each patient, by index, in the order in which patients are drawn.

    Patients with one combination of labels are shuffled and spread evenly over the order from a random start, so that any
    beginning of it holds about the share of each combination that the whole has, and each patient is as likely as another.
    """
    patients: dict[object, list[int]] = {}
    for index, record in enumerate(records):
        patients.setdefault(record.patient if record.patient is not None else (index,), []).append(index)
    kinds: dict[tuple, list[list[int]]] = {}
    for images in patients.values():
        kinds.setdefault(tuple(sorted({label for index in images for label in records[index].labels})), []).append(images)
    generator, placed = np.random.default_rng([seed, 31]), []
    for _, members in sorted(kinds.items()):
        shuffled, start = generator.permutation(len(members)), generator.random()
        placed += [((rank + start) / len(members), members[index]) for rank, index in enumerate(shuffled)]
    return [images for _, images in sorted(placed, key=lambda pair: (pair[0], pair[1][0]))]


def draw_fraction(records: Sequence[Record], fraction: float, seed: int) -> list[int]:
    """The images, by index, of a share of the patients, at least one; sorted."""
    patients = order(records, seed)
    count = max(1, math.floor(fraction * len(patients) + 0.5)) if patients and fraction > 0 else 0
    return sorted(index for images in patients[:count] for index in images)


def draw_count(records: Sequence[Record], count: int, seed: int) -> list[int]:
    """So many images, by index, drawn as ``draw_fraction`` draws patients; sorted."""
    return sorted([index for images in order(records, seed) for index in images][:count])
