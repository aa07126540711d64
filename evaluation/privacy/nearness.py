"""Whether generated images lie nearer to the training images than images that were never trained on do.

The comparison with held-out images is that of Meehan, Chaudhuri and Dasgupta 2020, "A Non-Parametric Test to Detect Data-Copying in
Generative Models"; authenticity is that of Alaa et al. 2022, "How Faithful is your Synthetic Data?". A generator of typical images
lies near to every real image, trained on or not: the ratio alone, which compares each generated image with both sets, sees through
that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..features import Features
from .figure import PrivacyFigure, bounds, chance_below, over_patients, quantile_of, weighted_quantile
from .neighbours import NeighbourOptions, Neighbours, nearest, prepared

FEWEST = 8
FEWEST_FOR_TAIL = 20
"""Held-out images from which a twentieth of them is at least one."""
TAIL = 0.05


def ratio_figure(found: Neighbours, fake_units: Sequence[str], sizes: tuple[int, int], options: NeighbourOptions) -> PrivacyFigure:
    """The median ratio of the distances. Its interval is of other images of the same generator, against the same real ones."""
    figure = PrivacyFigure(
        "nearest_ratio", "Distance to training over held-out images",
        "the median of each generated image's distance to its nearest training image over that to its nearest held-out image; below "
        "1 the generator stays nearer to what it was trained on", expected=1.0,
        n={"train": found.n, "held_out": found.n, "train_given": sizes[0], "held_out_given": sizes[1], "fake": len(fake_units)})
    ratios = found.ratios()
    reason = _too_few(found.n, len(fake_units)) or _undefined(ratios)
    if reason:
        return replace(figure, reason=reason)
    median = quantile_of(ratios, 0.5)
    value = float(np.median(ratios))
    if not np.isfinite(value):
        return replace(figure, reason="half of the generated images are held-out images")
    low, high = bounds(median, fake_units, fake_units, value, repeats=options.repeats, seed=options.seed)
    return replace(figure, value=value, low=_finite(low), high=_finite(high))


def tail_figure(found: Neighbours, held_units: Sequence[str], fake_units: Sequence[str], train: int,
                options: NeighbourOptions) -> PrivacyFigure:
    """The share of generated images that lie nearer to a training image than the 5th percentile of the held-out images do."""
    figure = PrivacyFigure(
        "near_training", "Nearer to training than 95 % of held-out images",
        "the share of generated images nearer to a training image than all but a twentieth of the held-out images are", expected=TAIL,
        n={"train": train, "held_out": len(held_units), "fake": len(fake_units)})
    if len(held_units) < FEWEST_FOR_TAIL or len(fake_units) < FEWEST:
        return replace(figure, reason=_too_few(len(held_units), len(fake_units), FEWEST_FOR_TAIL))
    held, fake = found.held_to_train.distances, found.to_train.distances
    order = np.argsort(held, kind="stable")

    def share(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        limits = weighted_quantile(held[order], first[:, order], TAIL)
        return (second * (fake[None] < limits[:, None])).sum(1) / second.sum(1)

    return over_patients(figure, share, held_units, fake_units, repeats=options.repeats, seed=options.seed)


def nearer_figure(found: Neighbours, held_units: Sequence[str], fake_units: Sequence[str], train: int,
                  options: NeighbourOptions) -> PrivacyFigure:
    """The chance that a generated image lies nearer to the training images than a held-out one (Meehan's statistic, in one cell)."""
    figure = PrivacyFigure(
        "nearer_than_held_out", "Nearer to training than a held-out image",
        "the chance that a generated image lies nearer to the training images than a held-out image does", expected=0.5,
        n={"train": train, "held_out": len(held_units), "fake": len(fake_units)})
    if min(len(held_units), len(fake_units)) < FEWEST:
        return replace(figure, reason=_too_few(len(held_units), len(fake_units)))
    chance = chance_below(found.held_to_train.distances, found.to_train.distances)
    return over_patients(figure, chance, held_units, fake_units, repeats=options.repeats, seed=options.seed)


def authenticity_figure(found: Neighbours, train: Features, held_units: Sequence[str], fake_units: Sequence[str],
                        options: NeighbourOptions) -> PrivacyFigure:
    """Alaa's authenticity; what held-out images have of it is what is expected."""
    figure = PrivacyFigure(
        "authentic", "Authenticity",
        "the share of generated images that lie farther from their nearest training image than that image does from the nearest other "
        "training image; expected is the share of the held-out images that do",
        n={"train": len(train), "held_out": len(held_units), "fake": len(fake_units)})
    if min(len(train), len(held_units), len(fake_units)) < FEWEST:
        return replace(figure, reason=_too_few(min(len(train), len(held_units)), len(fake_units)))
    values = prepared(train.values, options.distance)
    among = nearest(values, values, apart=True).distances
    authentic, expected = ((near.distances > among[near.places]).astype(float) for near in (found.to_train, found.held_to_train))

    def share(_: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (second @ authentic) / second.sum(1)

    return over_patients(replace(figure, expected=float(expected.mean())), share, fake_units, fake_units, repeats=options.repeats,
                         seed=options.seed)


def _too_few(real: int, fake: int, least: int = FEWEST) -> str | None:
    if real < least:
        return f"{real} held-out or training images; at least {least} are needed"
    return f"{fake} generated images; at least {FEWEST} are needed" if fake < FEWEST else None


def _undefined(ratios: np.ndarray) -> str | None:
    count = int(np.isnan(ratios).sum())
    return f"{count} generated images have the features of both a training and a held-out image" if count else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
