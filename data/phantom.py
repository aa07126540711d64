"""Synthetic chest radiographs: seeded pictures with anatomy, findings, captions, labels, boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import ConfigError, UnknownName
from .anatomy import SIZE, Anatomy
from .caption import caption
from .findings import ADD, NORMAL
from .image_set import ImageSet
from .radiograph import draw
from .record import Box
from .scene import Scene

FINDINGS = tuple(ADD)


@dataclass(frozen=True)
class Phantom:
    """One synthetic radiograph.

    ``image`` is (3, size, size) in [0, 1]; ``mask`` (1, size, size) is 1 within any of the findings; ``boxes`` carry the
    finding's label; ``places`` says in words where each finding is (``"right lower"``), in the order of ``labels``.
    """

    image: torch.Tensor
    caption: str
    labels: tuple[str, ...]
    boxes: tuple[Box, ...]
    mask: torch.Tensor
    places: tuple[str, ...]
    patient: str


def phantom(seed: int, finding: str | Sequence[str] | None = None, size: int = SIZE, patient: int | None = None) -> Phantom:
    """The radiograph of a seed: with one finding, several, or none (a normal chest).

    Images with the same ``patient`` share their anatomy; without one each seed is its own patient. The same seed with
    another finding is the same exposure but for the finding.
    """
    patient = seed if patient is None else patient
    if size < 32 or seed < 0 or patient < 0:
        raise ConfigError(f"size is {size}, seed {seed}, patient {patient}; size must be at least 32 pixels, the others at least 0")
    labels, scene = _labels(finding), _scene(seed, patient)
    places, regions, rng = [], [], np.random.default_rng([seed, 10])
    for label in labels:
        place, region = ADD[label](scene, rng)
        places.append(place)
        regions.append(region)
    picture, drawn = draw(scene, seed)
    masks = [region(drawn) for region in regions]
    boxes = tuple(box for label, mask in zip(labels, masks, strict=True) for box in _boxes(mask, label, size / SIZE))
    mask = np.any(masks, axis=0) if masks else np.zeros((SIZE, SIZE), bool)
    found = labels or (NORMAL,)
    return Phantom(_tensor(picture, size), caption(found, "chest-xray-all"), found, boxes, _mask(mask, size), tuple(places),
                   f"phantom-{patient:05d}")


def _scene(seed: int, patient: int) -> Scene:
    """How the patient stands this time, and how deeply they breathed in."""
    rng, anatomy = np.random.default_rng([seed, 7]), Anatomy.of(patient)
    return Scene(anatomy, anatomy.heart, raised=rng.uniform(-6, 14), angle=rng.normal(0, 0.022),
                 shift=(rng.normal(0, 7), rng.normal(0, 6)), scale=anatomy.scale * rng.uniform(0.985, 1.015))


def _labels(finding: str | Sequence[str] | None) -> tuple[str, ...]:
    wanted = () if finding is None else (finding,) if isinstance(finding, str) else tuple(finding)
    wanted = tuple(label for label in wanted if label != NORMAL)
    for label in wanted:
        if label not in ADD:
            raise UnknownName("finding", label, (*FINDINGS, NORMAL))
    return tuple(sorted(set(wanted)))


def _boxes(mask: np.ndarray, label: str, scale: float) -> list[Box]:
    """The rectangle around each half's part of a region; one for a region that crosses the midline."""
    halves = [mask] if label == "Cardiomegaly" else [np.where(np.arange(SIZE) < SIZE // 2, mask, False),
                                                     np.where(np.arange(SIZE) >= SIZE // 2, mask, False)]
    found = []
    for half in halves:
        if half.sum() < 12:
            continue
        columns, rows = np.flatnonzero(half.any(0)), np.flatnonzero(half.any(1))
        x, y = columns[0] * scale, rows[0] * scale
        found.append(Box(float(x), float(y), float((columns[-1] + 1) * scale - x), float((rows[-1] + 1) * scale - y), label))
    return found


def _tensor(picture: np.ndarray, size: int) -> torch.Tensor:
    if size != SIZE:
        way = Image.Resampling.BOX if size < SIZE else Image.Resampling.BICUBIC
        picture = np.clip(np.asarray(Image.fromarray(picture).resize((size, size), way)), 0, 1)
    return torch.from_numpy(np.repeat(picture[None], 3, 0))


def _mask(mask: np.ndarray, size: int) -> torch.Tensor:
    if size != SIZE:
        mask = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST))
    return torch.from_numpy(mask.astype(np.float32)[None])


def write_phantoms(folder: str | Path, count: int, seed: int = 0, findings: Sequence[str | None] = (*FINDINGS, None), *,
                   size: int = SIZE, images_per_patient: int = 2, held_out: float = 0.0) -> ImageSet:
    """An image set of ``count`` phantoms, the given findings taking turns; it goes on where it was interrupted.

    Each image is drawn from (seed, its number), so that a larger set begins with the smaller one's images. With ``held_out``,
    about that share of the patients make the split "test" and the others "train"; otherwise there is no split.
    """
    if count < 1 or images_per_patient < 1 or not findings:
        raise ConfigError(f"count is {count}, images_per_patient {images_per_patient}, findings {tuple(findings)}; "
                          "each needs at least one")
    if not 0 <= held_out < 1:
        raise ConfigError(f"held_out is {held_out}; it must be at least 0 and below 1")
    made_by = {"kind": "phantoms", "seed": seed, "findings": [finding or NORMAL for finding in findings], "size": size,
               "images_per_patient": images_per_patient, **({"held_out": held_out} if held_out else {})}
    images = ImageSet(folder)
    images.claim(made_by)
    for index in range(len(images.records), count):
        number = index // images_per_patient
        made = phantom(seed * 1_000_003 + index, findings[index % len(findings)], size, patient=seed * 1_000_003 + number)
        images.append(made.image, made.caption, made.labels, patient=made.patient, mask=made.mask if made.boxes else None,
                      boxes=made.boxes, seed=seed * 1_000_003 + index, places=list(made.places),
                      split=_split(number, held_out) if held_out else None)
    return images


def _split(number: int, held_out: float) -> str:
    """The part of a patient by number: multiples of the golden ratio spread evenly, whatever the count of patients."""
    return "test" if (number + 1) * 0.6180339887498949 % 1 < held_out else "train"
