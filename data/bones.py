"""Bones as attenuation: ribs, collar bones, shoulders and vertebrae."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .anatomy import SIZE
from .scene import Points, Scene, ellipse


def bones(scene: Scene) -> np.ndarray:
    """Ribs, collar bones, shoulders and vertebrae as attenuation, (SIZE, SIZE)."""
    a = scene.anatomy
    back, front = Image.new("L", (SIZE, SIZE)), Image.new("L", (SIZE, SIZE))
    for side in (-1, 1):
        upper, lower = a.ribs(side)
        for high, low in zip(scene.place(upper), scene.place(lower), strict=True):
            _tube(back, high[:21], low[:21], 92, 172)
            _tube(front, high[19:], low[19:], 58, 100)
    girdle = Image.new("L", (SIZE, SIZE))
    for side in (-1, 1):
        _shoulder(girdle, scene, side)
    _spine(girdle, scene)
    mixed = np.asarray(back, np.float32) + np.asarray(front, np.float32) + np.asarray(girdle, np.float32)
    return mixed * np.float32(a.bone * 0.27 / 255)


def _tube(image: Image.Image, upper: Points, lower: Points, inside: int, edge: int) -> None:
    """A hollow bone between two edges: grey within, brighter rims."""
    pen = ImageDraw.Draw(image)
    pen.polygon(np.concatenate([upper, lower[::-1]]).ravel().tolist(), fill=inside)
    pen.line(lower.ravel().tolist(), fill=edge, width=2)
    pen.line((0.72 * upper + 0.28 * lower).ravel().tolist(), fill=(inside + edge) // 2, width=1)
    pen.line(upper.ravel().tolist(), fill=(inside + edge) // 2, width=1)


def _shoulder(image: Image.Image, scene: Scene, side: int) -> None:
    a = scene.anatomy
    blade = scene.place(a.scapula(side))
    pen = ImageDraw.Draw(image)
    pen.polygon(blade.ravel().tolist(), fill=38)
    pen.line(blade.ravel().tolist(), fill=95, width=2)
    head = np.array([a.middle + side * (a.half * 1.0 + 62), a.shoulder + 22])
    shaft = head + np.array([[side * -16, 10], [side * 16, 0], [side * 52, 380], [side * 26, 380]])
    pen.polygon(scene.place(shaft).ravel().tolist(), fill=110)
    pen.polygon(scene.place(ellipse(head, 25, 27)).ravel().tolist(), fill=125)
    line = a.clavicle(side)
    normal = np.gradient(line, axis=0)[:, ::-1] * [1, -1]
    normal *= 6.3 * np.clip(np.linspace(5, 0.4, len(line)), 0, 1)[:, None] / np.linalg.norm(normal, axis=1, keepdims=True)
    _tube(image, scene.place(line + normal), scene.place(line - normal), 150, 205)


def _spine(image: Image.Image, scene: Scene) -> None:
    a = scene.anatomy
    pen = ImageDraw.Draw(image)
    pitch = (a.base - a.top) / 12.5
    for top in np.arange(a.top - 70, SIZE, pitch):
        at = np.array([a.middle, top])
        wide, low = 17 + 0.014 * top, pitch - 2
        block = at + np.array([[-wide, 2], [wide, 2], [wide - 2, pitch / 2], [wide, low], [-wide, low], [2 - wide, pitch / 2]])
        pen.polygon(scene.place(block).ravel().tolist(), fill=64, outline=100)
        pen.polygon(scene.place(ellipse(at + np.array([0, 0.55 * pitch]), 3, 7)).ravel().tolist(), fill=110)
