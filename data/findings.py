"""The five findings of the phantoms: each changes the scene and says where it lies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .anatomy import WALL
from .scene import Blob, Scene

NORMAL = "No Finding"
SIDE = {-1: "right", 1: "left"}
Region = Callable[[dict], np.ndarray]
Finding = Callable[[Scene, np.random.Generator], tuple[str, Region]]


def _side(rng: np.random.Generator) -> int:
    return -1 if rng.random() < 0.5 else 1


def cardiomegaly(scene: Scene, rng: np.random.Generator) -> tuple[str, Region]:
    """A heart of 0.57 to 0.72 of the chest's width."""
    scene.heart = (rng.uniform(0.28, 0.42), rng.uniform(0.88, 0.97))
    return "", lambda drawn: drawn["heart"] > 0.5


def effusion(scene: Scene, rng: np.random.Generator) -> tuple[str, Region]:
    """Fluid at the base of one lung or both, its upper edge a meniscus that climbs at the wall."""
    both = rng.random() < 0.2
    sides = (-1, 1) if both else (_side(rng),)
    for side in sides:
        amount = rng.uniform(0.28, 0.55 if both else 0.85)
        scene.fluid.append(_meniscus(scene, side, amount))
    return "both" if both else SIDE[sides[0]], lambda drawn: drawn["fluid"] > 0.5


def _meniscus(scene: Scene, side: int, amount: float) -> np.ndarray:
    a = scene.anatomy
    wall = a.base - (0.1 + 0.72 * amount) * (a.base - a.top)
    centre = min(wall + 48 + 26 * (1 - amount), a.base - 4)
    u = np.linspace(0, 1, 20)  # 0 at the wall
    y = centre - (centre - wall) * (1 - u) ** 3.2 - 8 * u**4
    x = a.middle + side * (a.half * 1.05) * (1 - u)
    return np.concatenate([np.stack([x, y], 1), [[a.middle, a.base + 40], [a.middle + side * a.half * 1.05, a.base + 40]]])


def pneumothorax(scene: Scene, rng: np.random.Generator) -> tuple[str, Region]:
    """Air between wall and lung: the lung shrinks from apex and side, its edge shows as a fine line."""
    side, amount = _side(rng), rng.uniform(0.19, 0.5)
    a = scene.anatomy
    outline, hilum = a.lung(side, scene.raised), a.hilum(side) + np.array([0, 30])
    away = outline - hilum
    lateral = np.clip(side * away[:, 0] / a.half, 0, 1)
    upward = np.clip(-away[:, 1] / (hilum[1] - a.top), 0, 1)
    below = np.clip((away[:, 1] - 40) / (a.base - hilum[1] - 40), 0, 1)
    pull = amount * np.clip(0.72 * lateral + 0.75 * upward, 0, 1) * (1 - below * np.clip(1.3 - 1.4 * amount, 0, 1))
    pull[WALL:-4] = 0  # the base stays on the diaphragm
    scene.collapsed[side] = hilum + away * (1 - pull)[:, None]
    return SIDE[side], lambda drawn: drawn["air"] > 0.5


def opacity(scene: Scene, rng: np.random.Generator) -> tuple[str, Region]:
    """An ill-defined cloud of two to five overlapping shadows in one zone of one lung."""
    side, zone = _side(rng), int(rng.integers(0, 3))
    centre = _spot(scene, rng, side, zone)
    size, weight = rng.uniform(36, 64), rng.uniform(0.4, 0.58)
    for _ in range(int(rng.integers(2, 6))):
        at = centre + rng.normal(0, size * 0.55, 2)
        scene.blobs.append(Blob(tuple(at), size * rng.uniform(0.6, 1.1), weight * rng.uniform(0.75, 1), False,
                                (rng.uniform(0.1, 0.3), rng.integers(2, 5), rng.uniform(0, 6))))
    return f"{SIDE[side]} {ZONES[zone]}", lambda drawn: drawn["cloud"] > 0.3 * weight


def nodule(scene: Scene, rng: np.random.Generator) -> tuple[str, Region]:
    """One round shadow of 14 to 44 px across."""
    side, zone = _side(rng), int(rng.integers(0, 3))
    centre, radius = _spot(scene, rng, side, zone), rng.uniform(8, 22)
    scene.blobs.append(Blob(tuple(centre), radius, rng.uniform(0.3, 0.46), True,
                            (rng.uniform(0, 0.08), rng.integers(2, 6), rng.uniform(0, 6))))
    return f"{SIDE[side]} {ZONES[zone]}", lambda drawn: drawn["ball"] > 0.1


ZONES = ("upper", "mid", "lower")


def _spot(scene: Scene, rng: np.random.Generator, side: int, zone: int) -> np.ndarray:
    """A place in a zone of a lung, clear of heart, wall and diaphragm, in the picture's pixels."""
    a = scene.anatomy
    fraction = rng.uniform(*((0.12, 0.32), (0.36, 0.56), (0.58, 0.74))[zone])
    y = a.y(fraction)
    inner = (0.2, 0.32, 0.4)[zone] if side < 0 else (0.2, 0.34, scene.heart[1] if scene.heart[1] < 0.7 else 0.72)[zone]
    return scene.place(np.array([[a.middle + side * rng.uniform(inner * a.half + 12, a.outer(y) - 24), y]]))[0]


ADD: dict[str, Finding] = {"Cardiomegaly": cardiomegaly, "Pleural Effusion": effusion, "Pneumothorax": pneumothorax,
                           "Lung Opacity": opacity, "Nodule": nodule}
