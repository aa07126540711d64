"""That each metric means what it says: ladders of ever worse phantoms move it its way, step by step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.image import save_image
from medtune.data.phantom import FINDINGS, phantom
from medtune.data.record import Record
from medtune.evaluation.extractor import EXTRACTORS, make_extractor
from medtune.evaluation.features import Features
from medtune.evaluation.metric import METRICS, make_metric
from torch.nn import functional

COUNT, SIDE = 60, 192
KINDS = FINDINGS[:4]


@dataclasses.dataclass(frozen=True)
class Images:
    """Pictures (N, 1, SIDE, SIDE) and the finding that each was asked to show."""

    pictures: torch.Tensor
    kinds: tuple[str, ...]

    def pick(self, indices) -> Images:
        return Images(self.pictures[list(indices)], tuple(self.kinds[index] for index in indices))

    def over(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Images:
        return Images(change(self.pictures).clamp(0, 1), self.kinds)


def draw(seed: int) -> Images:
    kinds = tuple(KINDS[index % len(KINDS)] for index in range(COUNT))
    return Images(torch.stack([phantom(seed + index, kind, SIDE).image[:1] for index, kind in enumerate(kinds)]), kinds)


@pytest.fixture(scope="module")
def real():
    return draw(0)


@pytest.fixture(scope="module")
def good():
    """Other phantoms, the most typical first: what a generator collapses to."""
    images = draw(10_000)
    values = seen(images).values
    return images.pick(np.argsort(np.linalg.norm(values - values.mean(0), axis=1)))


def blur(images: Images, sigma: float) -> Images:
    if not sigma:
        return images
    offsets = torch.arange(-4 * sigma, 4 * sigma + 1)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = (window / window.sum())[None, None, None]
    pad = [int(4 * sigma)] * 4
    return images.over(lambda x: functional.conv2d(functional.conv2d(functional.pad(x, pad, mode="reflect"), window),
                                                   window.transpose(2, 3)))


def noise(images: Images, sigma: float) -> Images:
    return images.over(lambda x: x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))


def darker(images: Images, gain: float) -> Images:
    return images.over(lambda x: gain * x)


def modes(images: Images, count: int) -> Images:
    """As many images as ever, of only so many different ones."""
    return images.pick([index % count for index in range(COUNT)])


def dropped(images: Images, kinds: int) -> Images:
    """Only so many of the findings: the others' places are taken by images of these."""
    there = [index for index, kind in enumerate(images.kinds) if kind in KINDS[:kinds]]
    return images.pick([there[index % len(there)] for index in range(COUNT)])


def copies(images: Images, share: float) -> Images:
    """A share of the images are one and the same."""
    return images.pick([0 if index < share * COUNT else index for index in range(COUNT)])


LADDERS = {
    "blur": (blur, (0, 1, 2, 4, 8)),
    "noise": (noise, (0, 0.03, 0.06, 0.12, 0.24)),
    "darker": (darker, (1, 0.9, 0.8, 0.6, 0.4)),
    "modes": (modes, (60, 20, 8, 3, 1)),
    "dropped": (dropped, (4, 3, 2, 1)),
    "copies": (copies, (0, 0.25, 0.5, 0.75, 1)),
}


def seen(images: Images) -> Features:
    """Mean grey by place, and how much detail there is by place: (N, 24)."""
    grey = functional.adaptive_avg_pool2d(images.pictures, 4).flatten(1)
    fine = (images.pictures - functional.avg_pool2d(images.pictures, 5, 1, 2, count_include_pad=False)).abs()
    detail = functional.adaptive_avg_pool2d(fine, (4, 2)).flatten(1)
    records = tuple(Record(Path(f"{index}.png"), kind, (kind,), seed=index) for index, kind in enumerate(images.kinds))
    return Features(torch.cat([(grey - 0.54) / 0.15, (detail - 0.016) / 0.005], 1).numpy(), records)


def by(name: str) -> Callable[[Images], Features]:
    """Features by one of the extractors that need no weights."""
    extractor = make_extractor(name)
    return lambda images: Features(extractor.features(images.pictures.expand(-1, 3, -1, -1)).numpy(), (), extractor)


FALLS = {
    "frechet": ("blur", "noise", "darker", "modes", "dropped", "copies"),
    "cmmd": ("blur", "noise", "darker", "modes", "dropped", "copies"),
    "coverage": ("blur", "noise", "darker", "modes", "dropped", "copies"),
    "kid": ("blur", "noise", "darker", "dropped", "copies"),
    "fd-infinity": ("blur", "noise", "darker", "modes", "dropped"),
    "recall": ("blur", "noise", "darker", "modes", "dropped"),
    "precision": ("blur", "noise", "darker"),
    "density": ("blur", "noise", "darker"),
    "vendi": ("modes", "copies"),
    "intensity": ("darker",),
    "spectrum": ("blur", "noise", "darker"),
}
KEEPS = dict.fromkeys(("precision", "density"), ("modes", "dropped", "copies"))


@pytest.fixture(scope="module")
def rungs(real, good):
    """The features of the real images and of each step of a ladder, in the space of a metric; each computed once."""
    @functools.cache
    def find(space: str, ladder: str) -> tuple[Features, list[Features]]:
        features, (change, steps) = by(space) if space in EXTRACTORS else seen, LADDERS[ladder]
        return features(real), [features(change(good, step)) for step in steps]

    return find


def climb(name: str, ladder: str, rungs) -> np.ndarray:
    """The metric's figures, from the good images to the worst, so that larger is worse."""
    metric = make_metric(name, groups=0)
    known, steps = rungs(metric.facts.space if metric.facts.space == name else "seen", ladder)
    figures = [metric.score(known, step).value for step in steps]
    return np.array(figures) * (1 if metric.facts.direction == "lower" else -1)


@pytest.mark.parametrize("name, ladder", [(name, ladder) for name, ladders in FALLS.items() for ladder in ladders])
def test_each_step_is_worse_than_the_last(name, ladder, rungs):
    figures = climb(name, ladder, rungs)
    steps = np.diff(figures)
    bounded = METRICS[name].facts.low == 0 and METRICS[name].facts.direction == "higher"  # what is at its worst cannot get worse
    assert ((steps > 0) | (bounded & (figures[1:] == figures[:-1]) & (figures[1:] > -0.05))).all()


@pytest.mark.parametrize("name, ladder", [(name, ladder) for name, ladders in KEEPS.items() for ladder in ladders])
def test_fidelity_does_not_see_that_images_are_missing(name, ladder, rungs):
    """Mode collapse keeps precision and density."""
    figures = climb(name, ladder, rungs)
    assert (figures[1:] <= figures[0]).all()


def test_mode_collapse_keeps_precision_and_loses_recall(real, good):
    collapsed = seen(modes(good, 3))
    found = {name: make_metric(name).score(seen(real), collapsed).value for name in ("precision", "recall", "coverage", "vendi")}
    assert found["precision"] > 0.9 and found["recall"] < 0.05 and found["coverage"] < 0.5 and found["vendi"] < 1.5


@pytest.mark.parametrize("ladder", ["modes", "copies"])
def test_images_of_one_prompt_that_are_more_alike_have_more_ms_ssim(ladder, good, tmp_path):
    change, steps = LADDERS[ladder]
    figures = []
    for step in steps:
        records = []
        for index, (picture, kind) in enumerate(zip(change(good, step).pictures, good.kinds)):
            save_image(picture, tmp_path / f"{step} {index}.png")
            records.append(Record(tmp_path / f"{step} {index}.png", kind, seed=index))
        fake = Features(np.zeros((COUNT, 2), np.float32), tuple(records), size=SIDE)
        figures.append(make_metric("ms-ssim", pairs=60, groups=0).score(fake, fake).value)
    assert figures[-1] == pytest.approx(1) and figures[0] < figures[2] < figures[3] < figures[4]
    assert figures[1] > figures[0] - 0.02  # few of the pairs are copies yet


class Reader:
    """A classifier of findings: linear discriminants (scikit-learn) of what is seen at 8 x 8 places, as a labeller."""

    name, id, labels = "reader", "reader-1", KINDS

    def __init__(self, images: Images):
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        self.model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(self.look(images), images.kinds)

    def look(self, images: Images) -> np.ndarray:
        return functional.adaptive_avg_pool2d(images.pictures, 8).flatten(1).numpy().astype(np.float64)

    def judge(self, images: Images, asked: tuple[str, ...]) -> Features:
        """The probabilities of findings, which are also a place for images and captions to meet in."""
        found = self.model.predict_proba(self.look(images))[:, [list(self.model.classes_).index(kind) for kind in KINDS]]
        records = tuple(Record(Path(f"{index}.png"), kind, (kind,), seed=index) for index, kind in enumerate(asked))
        texts = np.eye(len(KINDS))[[KINDS.index(kind) for kind in asked]] - 1 / len(KINDS)
        return Features(found.astype(np.float32), records, self, texts=texts.astype(np.float32))


@pytest.mark.parametrize("name", ["alignment", "clip-score", "retrieval-r1", "fjd", "label-agreement", "label-f1"])
def test_images_that_are_not_what_was_asked_for_lower_agreement(name, real, good):
    """Ever more images stand under the caption of another: the pictures are the same."""
    reader, figures = Reader(real), []
    metric = make_metric(name, groups=0)
    known = reader.judge(real, real.kinds)
    turned = dict(zip(KINDS, KINDS[1:] + KINDS[:1]))
    for share in (0, 0.2, 0.4, 0.6):
        asked = tuple(turned[kind] if index % 10 < 10 * share else kind for index, kind in enumerate(good.kinds))
        figures.append(metric.score(known, reader.judge(good, asked)).value)
    steps = np.diff(figures)
    assert (steps > 0).all() if metric.facts.direction == "lower" else (steps < 0).all()
