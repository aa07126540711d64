"""Soft tissue as attenuation: trunk, arms, breasts, abdomen, heart and great vessels, and the lungs' own vessels."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .anatomy import SIZE, vessels
from .scene import COARSE, Scene, ellipse, enlarge, level


def body(scene: Scene) -> np.ndarray:
    """Soft tissue of trunk, arms, breasts and abdomen at a quarter of the size."""
    a = scene.anatomy
    skin = np.clip(1.9 * scene.fill(a.silhouette(-1), a.silhouette(1), size=COARSE, blur=2.5) - 0.75, 0, 1)
    arms = np.clip(1.9 * scene.fill(a.arm(-1), a.arm(1), size=COARSE, blur=2.5) - 0.75, 0, 1)
    thick = scene.fill(a.silhouette(-1), a.silhouette(1), size=COARSE, blur=12)
    total = np.maximum(0.35 * skin + 0.6 * np.clip(1.6 * thick - 0.6, 0, 1) ** 0.7 * skin, 0.62 * arms)
    rows = (np.arange(COARSE, dtype=np.float32)[:, None] + 0.5) * 4
    total += skin * 0.55 * np.clip((rows - a.base + 95) / 150, 0, 1)
    if a.breast > 0:
        total += a.breast * _breasts(scene)
    if a.bubble > 0:
        centre = np.array([a.middle + 0.5 * a.half, a.base - 2])
        total -= 0.3 * a.bubble * scene.fill(ellipse(centre, 44, 22 + 12 * a.bubble), size=COARSE, blur=1.5)
    return total


def _breasts(scene: Scene) -> np.ndarray:
    a = scene.anatomy
    centres = [np.array([a.middle + side * 0.62 * a.half, a.y(a.breast_drop)]) for side in (-1, 1)]
    rounds = scene.fill(*(ellipse(centre, 0.46 * a.half, 88) for centre in centres), size=COARSE, blur=1.2)
    fade = np.clip(((np.arange(COARSE, dtype=np.float32)[:, None] + 0.5) * 4 - a.y(a.breast_drop) + 95) / 120, 0, 1)
    return rounds * fade


def soft_middle(scene: Scene) -> np.ndarray:
    """Thickness of heart, mediastinum and spine, less the wind-pipe, at a quarter of the size."""
    a = scene.anatomy
    mass = scene.fill(a.heart_outline(*scene.heart), a.mediastinum(), size=COARSE, blur=5)
    centre = np.array([a.middle, 0])
    column = centre + np.array([[-26, -50], [26, -50], [30, SIZE + 50], [-30, SIZE + 50]])
    pipe = centre + np.array([[-7, -50], [11, -50], [12, a.y(0.3)], [2, a.y(0.34)], [-8, a.y(0.3)]])
    return 1.0 * mass + 0.45 * scene.fill(column, size=COARSE, blur=3) - 0.7 * scene.fill(pipe, size=COARSE, blur=1)


def marks(scene: Scene) -> np.ndarray:
    """The lungs' vessels with the haze that they make near the hilum, (SIZE, SIZE)."""
    image = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(image)
    for grey, width, lines in _vessel_lines(scene):
        for line in lines:
            pen.line(line, fill=grey, width=width)
    sharp = level(image)
    return sharp + enlarge(level(image.reduce(4).filter(ImageFilter.GaussianBlur(4)))) * 0.9


def _vessel_lines(scene: Scene) -> list[tuple[int, int, list[list[float]]]]:
    found = []
    for side in (-1, 1):
        for starts, ends, width, generation in vessels(scene.anatomy, side):
            lines = np.concatenate([scene.place(starts), scene.place(ends)], 1)
            found.append(((190, 150, 110, 80)[generation], max(1, round(width)), lines.tolist()))
    return found[::-1]  # the thick ones last, over the thin ones
