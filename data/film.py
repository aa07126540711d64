"""The film: a curve from attenuation to grey, blur, grain, the side marker and the collimator's border."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .anatomy import SIZE
from .scene import level

STROKES = {"L": [[(0, 0), (0, 1), (0.6, 1)]],
           "R": [[(0, 1), (0, 0), (0.45, 0), (0.6, 0.12), (0.6, 0.38), (0.45, 0.5), (0, 0.5)], [(0.3, 0.5), (0.62, 1)]]}


def film(total: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The film's curve over the attenuation, then blur, grain, letters and the collimator's border."""
    centre, contrast = rng.uniform(0.52, 0.84), rng.uniform(0.26, 0.4)
    tilt = np.linspace(-1, 1, SIZE, dtype=np.float32)
    total += rng.normal(0, 0.03) * tilt[None] + rng.normal(0, 0.03) * tilt[:, None]
    total = _soften(_soften(total))
    total -= np.float32(centre)
    total *= np.float32(0.5 / contrast)
    image = np.tanh(total, out=total)
    image -= np.tanh(-0.5 * centre / contrast)
    image *= np.float32(rng.uniform(0.9, 1.0) / (1 - np.tanh(-0.5 * centre / contrast)))
    grain = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    image += _soften(grain) * np.float32(rng.uniform(0.012, 0.028))
    image = np.maximum(image, _letter(rng))
    _border(image, rng)
    return np.clip(image, 0, 1, out=image)


def _soften(image: np.ndarray) -> np.ndarray:
    """A binomial (1 2 1) blur along both axes; the outermost pixels stay."""
    out = image.copy()
    out[:, 1:-1] += 0.5 * (image[:, :-2] + image[:, 2:]) - image[:, 1:-1]
    out[:, 1:-1] = 0.5 * (out[:, 1:-1] + image[:, 1:-1])
    rows = out.copy()
    rows[1:-1] = 0.25 * (out[:-2] + out[2:]) + 0.5 * out[1:-1]
    return rows


def _letter(rng: np.random.Generator) -> np.ndarray:
    """The side marker beside a shoulder: an L at the patient's left or an R at the right."""
    name = "L" if rng.random() < 0.7 else "R"
    high, turn = rng.uniform(15, 26), rng.normal(0, 0.35)
    at = np.array([rng.uniform(440, 480) if name == "L" else rng.uniform(20, 56), rng.uniform(22, 70)])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    image = Image.new("L", (SIZE, SIZE))
    for stroke in STROKES[name]:
        ImageDraw.Draw(image).line((np.array(stroke) * high @ rotation + at).ravel().tolist(), fill=240, width=max(2, int(high / 6)))
    return level(image)


def _border(image: np.ndarray, rng: np.random.Generator) -> None:
    """On a third of the films, up to four black edges that the collimator left."""
    if rng.random() > 0.33:
        return
    left, right, top, bottom = (int(rng.uniform(0, 16)) if rng.random() < 0.5 else 0 for _ in range(4))
    image[:top], image[SIZE - bottom:] = 0.01, 0.01
    image[:, :left], image[:, SIZE - right:] = 0.01, 0.01
