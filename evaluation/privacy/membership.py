"""Whether the training images can be told from others by how well a tuned model takes their noise away.

The attack by the loss is that of Yeom et al. 2018, "Privacy Risk in Machine Learning"; for diffusion models, Matsumoto et al. 2023,
"Membership Inference Attacks against Diffusion Models". That each image's difficulty is taken off by another model's loss, here the
untuned base's, follows Watson et al. 2022, "On the Importance of Difficulty Calibration in Membership Inference Attacks"; that few
false alarms matter more than the area, Carlini et al. 2022, "Membership Inference Attacks From First Principles". The losses are
measured by ``medtune privacy --adapter``, and read here from its file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, listing
from .figure import PrivacyFigure, chance_below, over_patients, weighted_quantile

FEWEST = 8
FEWEST_FOR_TAIL = 100
"""Held-out images from which one of a hundred is at least one."""
TAIL = 0.01
TRAINED, HELD_OUT = "train", "held-out"


@dataclass(frozen=True)
class ImageLoss:
    """An image by its hash, with its mean denoising loss under the tuned model and under the base."""

    image: str
    patient: str | None
    split: str
    loss: float
    base_loss: float

    @property
    def unit(self) -> str:
        return f"patient {self.patient}" if self.patient is not None else f"image {self.image}"


@dataclass(frozen=True)
class Membership:
    """The losses of training and of held-out images, and what was measured."""

    losses: tuple[ImageLoss, ...]
    about: dict[str, Any]

    @classmethod
    def from_json(cls, values: Any) -> Membership:
        """Losses as ``medtune privacy`` writes them; DataError for anything else, and for losses that are not finite."""
        try:
            losses = tuple(ImageLoss(str(row["image"]), row["patient"], row["split"], float(row["loss"]), float(row["base_loss"]))
                           for row in values["images"])
            about = {key: value for key, value in values.items() if key != "images"}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"these are no losses of images ({error!r}); let medtune privacy --adapter measure them") from error
        unknown = sorted({loss.split for loss in losses} - {TRAINED, HELD_OUT})
        if unknown:
            raise DataError(f"the losses are of images of the splits {listing(unknown)}; they must be {TRAINED} or {HELD_OUT}")
        broken = [loss.image[:12] for loss in losses if not (math.isfinite(loss.loss) and math.isfinite(loss.base_loss))]
        if broken:
            raise DataError(f"the losses of {len(broken)} of {len(losses)} images are not finite: {listing(broken)}; the adapter "
                            "or the base is broken")
        return cls(losses, about)

    @classmethod
    def read(cls, path: str | Path) -> Membership:
        """Losses from a file."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read losses from {path}: {error}") from error
        return cls.from_json(values)

    def of(self, split: str) -> tuple[ImageLoss, ...]:
        """The losses of one split."""
        return tuple(loss for loss in self.losses if loss.split == split)

    def check_images(self, train: Sequence[str], held_out: Sequence[str]) -> None:
        """DataError when losses are of images whose hashes are not among those given."""
        for split, known in ((TRAINED, set(train)), (HELD_OUT, set(held_out))):
            of_split = self.of(split)
            strange = [loss.image[:12] for loss in of_split if loss.image not in known]
            if strange:
                raise DataError(f"{len(strange)} of {len(of_split)} losses of {split} images are of none of the {len(known)} {split} "
                                f"images given: {listing(strange)}; measure the losses of this very data")


def membership_figures(found: Membership, *, repeats: int = 2000, seed: int = 0) -> list[PrivacyFigure]:
    """The area under the ROC curve by the loss less the base's and by the loss itself, and what is found at 1 % false alarms."""
    trained, held = found.of(TRAINED), found.of(HELD_OUT)
    n = {"train": len(trained), "held_out": len(held)}
    blanks = [
        PrivacyFigure("membership_auc", "Membership inference, AUC", "the chance that the adapter lowers the denoising loss of a "
                      "training image more than that of a held-out image", expected=0.5, n=n),
        PrivacyFigure("membership_auc_loss", "Membership inference by the loss alone, AUC", "the chance that the tuned model's "
                      "denoising loss of a training image is below that of a held-out image", expected=0.5, n=n),
        PrivacyFigure("membership_found", "Training images told at 1 % false alarms", "the share of training images whose loss the "
                      "adapter lowers more than that of all but one of a hundred held-out images", expected=TAIL, n=n),
    ]
    if min(len(trained), len(held)) < FEWEST:
        return [replace(blank, reason=f"{len(trained)} training and {len(held)} held-out losses; at least {FEWEST} of each are needed")
                for blank in blanks]
    fallen, alone = ([np.array([score(loss) for loss in losses]) for losses in (held, trained)]
                     for score in (lambda loss: loss.loss - loss.base_loss, lambda loss: loss.loss))
    units = [[loss.unit for loss in losses] for losses in (held, trained)]
    settings = {"repeats": repeats, "seed": seed}
    figures = [over_patients(blank, chance_below(*values), *units, **settings) for blank, values in zip(blanks, (fallen, alone))]
    if len(held) < FEWEST_FOR_TAIL:
        return [*figures, replace(blanks[2], reason=f"{len(held)} held-out losses; at least {FEWEST_FOR_TAIL} are needed")]
    return [*figures, over_patients(blanks[2], _share_found(*fallen), *units, **settings)]


def _share_found(held: np.ndarray, trained: np.ndarray):
    """The share of the trained values below the held-out ones' first percentile, by how often each counts."""
    order = np.argsort(held, kind="stable")

    def figure(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        limits = weighted_quantile(held[order], first[:, order], TAIL)
        return (second * (trained[None] < limits[:, None])).sum(1) / second.sum(1)

    return figure
