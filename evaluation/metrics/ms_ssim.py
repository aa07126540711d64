"""MS-SSIM within a prompt: how alike the images of one caption are (Wang et al. 2003, as a figure of diversity: Odena et al. 2017)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, zip_longest

import numpy as np
import torch

from ...config import option
from ...data.image import hash_image
from ..features import Features
from ..measures.mean import WeightedMetric
from ..measures.structural_similarity import LEAST_SIDE, Pyramid, ms_ssim
from ..metric import METRICS, MetricConfig, MetricFacts, Undefined, Weighted

_KNOWN: dict[tuple, float] = {}
"""Similarities by the images' hashes and the way they were read: a class's figure needs those of all images again."""
MOST_KNOWN = 100_000


@dataclass(frozen=True)
class MSSSIMConfig(MetricConfig):
    """The pairs besides what every metric has."""

    pairs: int = option(200, "Most pairs of images compared, spread evenly over the captions and their images.", low=1, high=100_000,
                        advanced=True)


@METRICS.register("ms-ssim")
class MSSSIM(WeightedMetric):
    """Low for noise, too. The real images' own is what a varied set looks like, where several of them share a caption."""

    name = "ms-ssim"
    facts = MetricFacts(
        title="MS-SSIM within a prompt",
        direction="lower",
        says="how alike two generated images of one caption are, from 0 to 1; the mean over captions of the mean over their pairs",
        paper="Wang et al. 2003, Multiscale structural similarity for image quality assessment; Odena et al. 2017, Conditional Image "
              "Synthesis with Auxiliary Classifier GANs",
        biased=False,
        uses_real=False,
        low=0.0,
        high=1.0,
    )
    Config = MSSSIMConfig

    def weighted(self, real: Features, fake: Features) -> Weighted:
        chosen = choose(fake, self.config.pairs)
        firsts, seconds = np.array([pair for pairs in chosen for pair in pairs]).T
        values = np.array([value for pairs in chosen for value in similarities(fake, pairs)])  # (P,)
        of_prompt = np.repeat(np.eye(len(chosen)), [len(pairs) for pairs in chosen], axis=0)  # (P, prompts)

        def figure(_: np.ndarray, weights: np.ndarray) -> np.ndarray:
            pairs = weights[:, firsts] * weights[:, seconds]  # an image drawn twice makes no pair with itself
            counts = pairs @ of_prompt
            with np.errstate(invalid="ignore"):
                return np.where(counts > 0, (pairs * values) @ of_prompt / counts.clip(1e-300), 0).sum(1) / (counts > 0).sum(1)

        return figure


def choose(features: Features, most: int) -> list[list[tuple[int, int]]]:
    """Pairs of images of one caption, at most so many, for each caption in turn; Undefined where no two share one."""
    prompts: dict[str, list[int]] = {}
    for index, record in enumerate(features.records):
        prompts.setdefault(record.caption, []).append(index)
    several = [images for images in prompts.values() if len(images) > 1]
    if not several:
        raise Undefined("no two generated images share a caption: sample several of each prompt" if features.records
                        else "these features come without image files")
    if len(several) > most:
        several = [several[round(place)] for place in np.linspace(0, len(several) - 1, most)]
    shuffled = [sorted(images, key=lambda index: _draw(features.records[index].image.name)) for images in several]
    ranks = zip_longest(*(islice(_around(images), most) for images in shuffled))
    chosen: list[list[tuple[int, int]]] = [[] for _ in several]
    for place, pair in islice(((place, pair) for rank in ranks for place, pair in enumerate(rank) if pair is not None), most):
        chosen[place].append(pair)
    return chosen


def _draw(name: str) -> bytes:
    """A place in an order that has nothing to do with the images, and is the same for those that are left when some are left out."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _around(images: Sequence[int]) -> Iterator[tuple[int, int]]:
    """All pairs, first each image with the next, then with the next but one, and so on: every image takes part early."""
    count = len(images)
    for step in range(1, count // 2 + 1):
        for start in range(count if 2 * step < count else step):
            yield images[start], images[(start + step) % count]


def similarities(features: Features, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """MS-SSIM of pairs of images, each pair computed once; Undefined for images that are too small, or not of one size."""
    if len(_KNOWN) > MOST_KNOWN:
        _KNOWN.clear()
    hashes = features.hashes or [hash_image(record.image) for record in features.records]
    keys = [(*sorted((hashes[i], hashes[j])), features.size, features.fit) for i, j in pairs]

    @lru_cache(maxsize=16)
    def pyramid(index: int) -> Pyramid:
        image = features.image(index)
        if min(image.shape[1:]) < LEAST_SIDE:
            raise Undefined(f"an image has {image.shape[2]} x {image.shape[1]} pixels; five scales need at least {LEAST_SIDE} a side")
        return Pyramid.of(image)

    with torch.inference_mode():
        for (i, j), key in zip(pairs, keys):
            if key not in _KNOWN:
                _KNOWN[key] = _similarity(pyramid(i), pyramid(j))
    return [_KNOWN[key] for key in keys]


def _similarity(first: Pyramid, second: Pyramid) -> float:
    if first.pixels[0].shape[1:] != second.pixels[0].shape[1:]:
        raise Undefined("the images are not of one size: let them be read at one, by the fit crop or pad")
    return ms_ssim(first, second)
