"""From a scene to the picture: attenuations add up, air in the lungs is taken off, findings are put in."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .anatomy import SIZE
from .bones import bones
from .film import film
from .scene import COARSE, Blob, Points, Scene, cut, enlarge, level, textures
from .tissue import body, marks, soft_middle


def draw(scene: Scene, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The picture, (SIZE, SIZE) float32 in [0, 1], and what of each finding's region can be seen, by name.

    The regions are ``heart`` and, where there are some, ``fluid``, ``cloud``, ``ball`` (attenuations) and ``air`` (coverage).
    """
    a, rng = scene.anatomy, np.random.default_rng([seed, 8])
    fine, clouds = textures()
    pleura = {side: scene.fill(a.lung(side, scene.raised)) for side in (-1, 1)}
    lungs = {side: pleura[side] * scene.fill(scene.collapsed[side]) if side in scene.collapsed else pleura[side] for side in (-1, 1)}
    chest, aerated = pleura[-1] + pleura[1], lungs[-1] + lungs[1]
    heart = scene.fill(a.heart_outline(*scene.heart))
    middle = np.maximum(heart, scene.fill(a.mediastinum()))

    total = enlarge(body(scene) + 0.27 * soft_middle(scene)) + 0.04 * middle
    space = enlarge(0.45 + 0.55 * np.clip(2 * scene.fill(a.thorax(), size=COARSE, blur=9) - 1, 0, 1)) * (1 - 0.86 * middle)
    fluid = scene.fill(*scene.fluid) * chest if scene.fluid else None
    if fluid is not None:
        total += 0.22 * fluid * space
        space *= 1 - 0.96 * fluid
    total -= space * aerated * (0.69 - 0.24 * marks(scene) - 0.028 * cut(fine, rng) - 0.05 * cut(clouds, rng))
    for side, outline in scene.collapsed.items():
        total -= space * (0.84 * (pleura[side] - lungs[side]) - 0.08 * lungs[side] - 0.2 * _edge(scene, outline) * pleura[side])
    total += bones(scene) * (1 - 0.45 * middle)
    cloud, ball = _cloud(scene), _ball(scene)
    inside = aerated * (0.25 + 0.75 * space)
    if cloud is not None:
        total += cloud * inside * np.clip(0.95 + 0.25 * cut(clouds, rng) + 0.06 * cut(fine, rng), 0.4, 1.5)
    if ball is not None:
        total += ball * inside
    layers = {"fluid": fluid, "cloud": cloud, "ball": ball, "air": chest - aerated if scene.collapsed else None}
    regions = {name: layer * chest * (1 - middle) for name, layer in layers.items() if layer is not None}
    return film(total, np.random.default_rng([seed, 9])), {"heart": heart, **regions}


def _edge(scene: Scene, outline: Points) -> np.ndarray:
    """A fine line along an outline, (SIZE, SIZE)."""
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).line(scene.place(outline).ravel().tolist(), fill=255, width=2)
    return level(image)


def _cloud(scene: Scene) -> np.ndarray | None:
    """The ill-defined opacities as attenuation, (SIZE, SIZE), or None where there is none."""
    blobs = [blob for blob in scene.blobs if not blob.sharp]
    if not blobs:
        return None
    grid = np.arange(COARSE, dtype=np.float32) * 4 + 1.5
    each = [blob.weight * _disc(grid[None] - blob.centre[0], grid[:, None] - blob.centre[1], blob) for blob in blobs]
    return enlarge(np.max(each, axis=0))


def _ball(scene: Scene) -> np.ndarray | None:
    """The nodules as attenuation, (SIZE, SIZE), or None where there is none."""
    layer = np.zeros((SIZE, SIZE), np.float32)
    balls = [blob for blob in scene.blobs if blob.sharp]
    for blob in balls:
        _stamp(layer, blob)
    return layer if balls else None


def _stamp(layer: np.ndarray, blob: Blob) -> None:
    reach = int(blob.radius * 1.5 + 4)
    left, top = int(blob.centre[0]) - reach, int(blob.centre[1]) - reach
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + 2 * reach, SIZE), min(top + 2 * reach, SIZE)
    x, y = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)
    part = blob.weight * _disc(x[None] - blob.centre[0], y[:, None] - blob.centre[1], blob)
    layer[y0:y1, x0:x1] = np.maximum(layer[y0:y1, x0:x1], part)


def _disc(x: np.ndarray, y: np.ndarray, blob: Blob) -> np.ndarray:
    """A lobed disc: a ball's thickness with a crisp edge, or a bell."""
    turn = np.arctan2(y, x)
    depth, count, phase = blob.lobes
    radius = np.hypot(x, y) / (blob.radius * (1 + depth * np.cos(round(count) * turn + phase)))
    if not blob.sharp:
        return np.exp(-(radius**2) * 1.2)
    edge = np.clip((1 - radius) * blob.radius / 4 + 0.5, 0, 1)
    return edge * (0.45 + 0.55 * np.sqrt(np.clip(1 - radius**2, 0, 1)))
