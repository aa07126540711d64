"""The images of a downstream study, checked and divided, and which of them each trial learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...config import option
from ...data.image import hash_image
from ...data.record import Record
from ...data.split import split
from ...errors import ConfigError, DataError
from ..classifiers.calibration import BINS
from ..classifiers.label_set import settle_labels, settle_mode, to_targets
from ..classifiers.network import LearningOptions
from ..classifiers.picture_store import Pictures
from ..privacy.leaks import check_leaks
from .generator import check_generator, read_made_by
from .protocol import (
    ALL,
    PROTOCOLS,
    REAL,
    SYNTHETIC,
    TUNED,
    Cell,
    Stage,
    check_ratios,
    draw_count,
    draw_fraction,
    make_cells,
    order,
    read_fractions,
)
from .trial import Course, Material, Trial, run_trial

FEW_SEEDS, FEW_TEST = 3, 50


@dataclass(frozen=True)
class StudyOptions:
    """What a downstream study compares."""

    protocols: tuple[str, ...] = option(tuple(PROTOCOLS), "What classifiers learn from.", choices=tuple(PROTOCOLS))
    fractions: tuple[str, ...] = option(("1", "5", "10", "25", "100"), "Percentages of the real patients that they may see.")
    ratios: tuple[str, ...] = option((ALL,), "For real+synthetic: synthetic images for each real one, or all.")
    seeds: int = option(5, "Trainings of each, with other weights and, below 100 %, other patients.", low=1, high=100)
    labels: tuple[str, ...] = option((), "The labels to tell apart; without any, all that the real images have.")
    mode: str = option("auto", "single: exactly one label an image; multi: any number; auto goes by the images.",
                       choices=("auto", "single", "multi"))
    validation: str = option("shared", "Validation images, which set thresholds and stop early. shared: the same real patients "
                             "everywhere, besides the fraction; scaled: the fraction of them, and of the synthetic images for "
                             "synthetic-only.", choices=("shared", "scaled"))
    validation_share: float = option(0.2, "Share of the real patients kept for validation where no split val says which.", above=0,
                                     high=0.5)
    unchecked_generator: bool = option(False, "Go on where it is not known what the generator was trained on; the result says so.")
    pictures: bool = option(True, "Also refuse test images that were saved anew among the others, which compares every picture; off "
                            "looks at patients and files alone, and the result says so.", advanced=True)
    keep: bool = option(True, "Keep every network, to be used as an extractor; off keeps its answers alone.")
    repeats: int = option(1000, "Draws of the bootstrap.", low=100, high=100_000, advanced=True)
    bins: int = option(BINS, "Bins of the calibration error.", low=2, high=100, advanced=True)


class Study:
    """The images of a study, checked and divided, and its trials."""

    def __init__(self, real: Sequence[Record], synthetic: Mapping[str, Sequence[Record]], test: Sequence[Record],
                 options: StudyOptions, learning: LearningOptions):
        used = synthetic if any(protocol != REAL for protocol in options.protocols) else {}
        self.options, self.learning, self.synthetic, self.test = options, learning, dict(used), list(test)
        self.real = [record for record in real if record.split != "test"]
        self._check_sizes()
        self.labels = settle_labels(self.real, self.test, self.synthetic, options.labels)
        everything = [*self.real, *self.test, *(record for records in self.synthetic.values() for record in records)]
        self.mode = settle_mode(everything, self.labels, options.mode)
        self.train, self.validation = divide(self.real, options.validation_share)
        self.fractions = read_fractions(options.fractions)
        self.ratios = check_ratios(options.ratios)
        self.cells = make_cells(tuple(dict.fromkeys(options.protocols)), tuple(self.synthetic), ratios=self.ratios,
                                fractions=self.fractions, seeds=options.seeds)

    def _check_sizes(self) -> None:
        if not self.options.protocols:
            raise ConfigError(f"no protocols were given; there are: {', '.join(PROTOCOLS)}")
        if not self.real:
            raise DataError("there are no real training images (those of the split test are left out); they also say which labels "
                            "there are and set the thresholds")
        needing = [protocol for protocol in self.options.protocols if protocol != REAL]
        if needing and not self.synthetic:
            raise DataError(f"{', '.join(needing)} needs synthetic images, and no set was given; give one, or ask for {REAL} alone")
        for name, records in self.synthetic.items():
            if not records:
                raise DataError(f"the synthetic set{f' {name}' if name else ''} holds no images, and {', '.join(needing)} needs them")

    def check(self, generator: Sequence[Record] | None, cache: Path | None = None) -> list[str]:
        """What a reader must know; DataError where the test images are not apart from all else. ``cache`` keeps small pictures."""
        read, said = {"cache": cache, "fit": self.learning.fit, "pictures": self.options.pictures}, []
        if not self.test:
            raise DataError("there are no test images; give real images of patients whom nothing was trained on")
        check_leaks(self.real, self.test, names=("real training", "test"), **read)
        for name, records in self.synthetic.items():
            check_leaks(records, self.test, names=(f"synthetic {name}".strip(), "test"), **read)
            said.append(check_generator(records, self.real, self.test, name=name, generator=generator,
                                        unchecked=self.options.unchecked_generator, **read))
            base = read_made_by(records).get("base")
            said += [base["notice"]] if isinstance(base, dict) and base.get("notice") else []
        if not self.options.pictures:
            said.append("test images were told from the others by patient and by file: that none was saved anew was NOT checked")
        if self.options.validation == "shared":
            said.append(f"{len(self.validation)} further real images set the thresholds"
                        f"{' and stop the training' if self.learning.patience else ''}, whatever the fraction and the protocol")
        if len(self.test) < FEW_TEST or self.options.seeds < FEW_SEEDS:
            said.append(f"{len(self.test)} test images and {self.options.seeds} seeds are few: large differences alone will show")
        return list(dict.fromkeys(said))

    @cached_property
    def at(self) -> dict[str, range]:
        """Where the images of each group are among all images."""
        named = {f"synthetic {name}": records for name, records in self.synthetic.items()}
        found, start = {}, 0
        for name, group in {"train": self.train, "validation": self.validation, **named, "test": self.test}.items():
            found[name] = range(start, start + len(group))
            start += len(group)
        return found

    @cached_property
    def material(self) -> Material:
        """All images by index: training, validation, synthetic, test."""
        drawn = [record for records in self.synthetic.values() for record in records]
        records = (*self.train, *self.validation, *drawn, *self.test)
        hashes = tuple(hash_image(record.image) for record in records)
        return Material(records, hashes, Pictures(records, self.learning), to_targets(records, self.labels), tuple(self.labels),
                        self.mode, self.learning, tuple(self.at["test"]))

    def run(self, cell: Cell, out: Path, device: str, on_step: Callable[[int, int], None] | None) -> Trial:
        """The trial of a cell; one without probabilities where the images do not suffice for it."""
        material = self.material
        real = [self.at["train"][index] for index in draw_fraction(self.train, cell.fraction, cell.seed)]
        found = self._synthetic(cell, len(real))
        if isinstance(found, str):
            return Trial(cell, None, {}, {}, {"n_real": len(real), "n_synthetic": 0, "patients": 0}, found)
        validation, found = self._validation(cell, found)
        course = Course(cell, self._stages(cell, real, found), tuple(validation))
        if self.learning.patience and not validation:
            return Trial(cell, None, {}, {}, {"n_real": len(real), "n_synthetic": len(found), "patients": 0},
                         "no validation images are left to stop early by; take more, or set patience to 0")
        return run_trial(material, course, out=out, device=device, keep=self.options.keep, on_step=on_step)

    def _synthetic(self, cell: Cell, n_real: int) -> list[int] | str:
        """The synthetic images of a cell, or why there are not as many as asked for."""
        if cell.protocol == REAL:
            return []
        held, at = self.synthetic[cell.source], self.at[f"synthetic {cell.source}"]
        count = len(held) if cell.ratio in ("", ALL) else round(float(cell.ratio) * n_real)
        if not 0 < count <= len(held):
            return f"a ratio of {cell.ratio} to {n_real} real images asks for {count} synthetic ones, and there are {len(held)}"
        return [at[index] for index in draw_count(held, count, cell.seed)]

    def _validation(self, cell: Cell, synthetic: list[int]) -> tuple[list[int], list[int]]:
        """(validation images, the synthetic ones that are left to learn from)."""
        at = self.at["validation"]
        if self.options.validation == "shared":
            return list(at), synthetic
        if cell.protocol != SYNTHETIC:
            return [at[index] for index in draw_fraction(self.validation, cell.fraction, cell.seed)], synthetic
        start = self.at[f"synthetic {cell.source}"][0]
        units = order(self.synthetic[cell.source], cell.seed)
        kept = {start + index for images in units[:round(self.options.validation_share * len(units))] for index in images}
        return sorted(kept), [index for index in synthetic if index not in kept]

    def _stages(self, cell: Cell, real: list[int], synthetic: list[int]) -> tuple[Stage, ...]:
        steps, lr = self.learning.steps, self.learning.lr
        if cell.protocol != TUNED:
            return (Stage(tuple(real), tuple(synthetic), steps, lr),)
        first = min(max(1, round(self.learning.pretraining * steps)), max(1, steps - 1))
        return (Stage((), tuple(synthetic), first, lr), Stage(tuple(real), (), max(1, steps - first), lr * self.learning.tuning_lr))


def divide(real: Sequence[Record], share: float) -> tuple[list[Record], list[Record]]:
    """(training, validation) images: by the split "val", or else a share of the patients with labels spread evenly."""
    if not any(record.split == "val" for record in real):
        real = split(real, {"train": 1 - share, "val": share}, seed=0)
    train = [record for record in real if record.split != "val"]
    if not train:
        raise DataError(f"all {len(real)} real images are of the split val; give images to train on")
    return train, [record for record in real if record.split == "val"]
