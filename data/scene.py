"""One exposure of a phantom patient, and the ways its shadows are drawn: outlines, soft layers, textures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .anatomy import SIZE, Anatomy

COARSE = SIZE // 4
Points = np.ndarray


@dataclass
class Blob:
    """A soft shadow in the lung: centre and radius in pixels, weight, how sharply it ends, and the shape of its edge."""

    centre: tuple[float, float]
    radius: float
    weight: float
    sharp: bool
    lobes: tuple[float, float, float]


@dataclass
class Scene:
    """One exposure: the patient, how they stand, and what is wrong."""

    anatomy: Anatomy
    heart: tuple[float, float]
    raised: float = 0.0
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    fluid: list[Points] = field(default_factory=list)
    collapsed: dict[int, Points] = field(default_factory=dict)
    blobs: list[Blob] = field(default_factory=list)

    def place(self, points: Points) -> Points:
        """From the patient's coordinates to the picture's: scaled, turned and shifted about the middle."""
        c, s = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        return (points - SIZE / 2) @ np.array([[c, s], [-s, c]]) + SIZE / 2 + np.array(self.shift)

    def fill(self, *outlines: Points, size: int = SIZE, blur: float = 0.0) -> np.ndarray:
        """Coverage in [0, 1] of closed outlines, (size, size) float32, blurred by that many of its pixels."""
        image = Image.new("L", (size, size))
        pen = ImageDraw.Draw(image)
        for outline in outlines:
            pen.polygon((self.place(outline) * (size / SIZE)).ravel().tolist(), fill=255)
        return level(image.filter(ImageFilter.GaussianBlur(blur)) if blur else image)


def level(image: Image.Image) -> np.ndarray:
    """An 8-bit picture as float32 in [0, 1]."""
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def enlarge(coarse: np.ndarray, size: int = SIZE) -> np.ndarray:
    """A soft layer drawn small, at full size."""
    return np.array(Image.fromarray(coarse.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))


def ellipse(centre: np.ndarray, wide: float, high: float) -> Points:
    """An ellipse's outline, (28, 2)."""
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return centre + np.stack([wide * np.cos(t), high * np.sin(t)], 1)


@lru_cache(maxsize=1)
def textures() -> tuple[np.ndarray, np.ndarray]:
    """Two unit-variance textures to cut pieces from: fine lung markings and coarse clouds, each (1024, 1024)."""
    white = np.random.default_rng(5).standard_normal((1024, 1024)).astype(np.float32)
    frequency = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None]) * 1024
    spectrum = np.fft.rfft2(white)
    made = [np.fft.irfft2(spectrum * weight) for weight in (frequency / (1 + (frequency / 70) ** 3), 1 / (6 + frequency) ** 1.6)]
    return tuple((texture / texture.std()).astype(np.float32) for texture in made)  # type: ignore[return-value]


def cut(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random piece, (SIZE, SIZE), turned over at random."""
    y, x = rng.integers(0, texture.shape[0] - SIZE, 2)
    flip = rng.integers(0, 2, 2) * 2 - 1
    return texture[y:y + SIZE, x:x + SIZE][::flip[0], ::flip[1]]
