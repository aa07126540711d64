"""The captioned procedural world that the embedded base is pre-trained on: plain shapes and textures on grey, told in plain words.

A scene is a background and up to three objects, each with a kind, size, tone, place and edge; the caption names what was drawn.
There is no anatomy in it and no photograph: fine-tuning is to teach the base everything about radiographs.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .world import noise

TONES = {"black": 0.04, "dark": 0.2, "grey": 0.5, "bright": 0.78, "white": 0.96}
KINDS = ("circle", "ellipse", "square", "bar", "ring", "triangle")
SIZES = {"small": 0.09, "": 0.15, "large": 0.25}  # radius as a share of the side
PLACES = {
    "on the left": (0.25, 0.5),
    "on the right": (0.75, 0.5),
    "at the top": (0.5, 0.25),
    "at the bottom": (0.5, 0.75),
    "in the centre": (0.5, 0.5),
    "at the top left": (0.27, 0.27),
    "at the top right": (0.73, 0.27),
    "at the bottom left": (0.27, 0.73),
    "at the bottom right": (0.73, 0.73),
}
GROUNDS = ("plain", "plain", "cloudy", "cloudy", "grainy", "striped", "brighter at the top", "brighter at the bottom",
           "brighter on the left", "brighter on the right")
HUES = {"red": (1.0, 0.55, 0.5), "green": (0.6, 1.0, 0.6), "blue": (0.5, 0.65, 1.0)}


@dataclass(frozen=True)
class Thing:
    """One object of a scene, in the words of its caption."""

    kind: str
    size: str
    tone: str
    place: str
    soft: bool

    def phrase(self) -> str:
        """For instance "a large soft bright circle on the left"."""
        words = [self.size, "soft" if self.soft else "", self.tone, self.kind]
        return f"a {' '.join(word for word in words if word)} {self.place}"


@dataclass(frozen=True)
class Scene:
    """A background and its objects; `caption` and `render` both follow from this and the random numbers given."""

    ground: str
    tone: str
    things: tuple[Thing, ...]
    hue: str = ""

    def caption(self) -> str:
        """One line of plain words."""
        shade = f"{self.tone} {self.ground}" if not self.ground.startswith("brighter") else self.tone
        ground = f"{self.hue + ' ' if self.hue else ''}{shade} background"
        if self.ground.startswith("brighter"):
            ground += f", {self.ground}"
        if not self.things:
            return f"a {ground}"
        return f"{', '.join(thing.phrase() for thing in self.things)}, {ground}"


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene: mostly one or two objects, told from the background by their tone, no two in one place."""
    tone = str(rng.choice(["dark", "dark", "grey", "grey", "bright"]))
    others = [name for name in TONES if abs(TONES[name] - TONES[tone]) > 0.2]
    count = int(rng.choice([0, 1, 2, 3], p=[0.06, 0.5, 0.3, 0.14]))
    things = []
    for place in rng.permutation(list(PLACES))[:count]:
        size = str(rng.choice(list(SIZES) if count == 1 else ["small", ""]))
        if count == 1 and rng.random() < 0.5:
            place = rng.choice(list(PLACES)[:5])
        things.append(Thing(str(rng.choice(KINDS)), size, str(rng.choice(others)), str(place), bool(rng.random() < 0.4)))
    hue = str(rng.choice(list(HUES))) if rng.random() < 0.08 else ""
    return Scene(str(rng.choice(GROUNDS)), tone, tuple(things), hue)


def render(scene: Scene, rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """The scene as (3, size, size) float32 in [0, 1]."""
    canvas = _ground(scene, rng, size)
    for thing in scene.things:
        cover = _cover(thing, rng, size)
        tone = TONES[thing.tone] + rng.normal(0, 0.03)
        if rng.random() < 0.3:
            tone = tone + rng.uniform(0, 0.06) * noise(rng, size, 1.5)
        canvas += cover * rng.uniform(0.85, 1) * (tone - canvas)
    canvas += rng.uniform(0, 0.01) * rng.standard_normal(canvas.shape)
    canvas = np.repeat(np.clip(canvas, 0, 1)[None], 3, 0)
    if scene.hue:
        canvas = canvas * np.array(HUES[scene.hue])[:, None, None]
    return canvas.astype(np.float32)


def of_few_objects(seed: int, objects: int) -> Iterator[int]:
    """The indices at which `sample` draws at most so many objects, without end."""
    return (index for index in itertools.count() if len(draw_scene(np.random.default_rng([seed, index])).things) <= objects)


def sample(seed: int, index: int, size: int = 512) -> tuple[str, np.ndarray]:
    """Caption and image of one scene, which depend on (seed, index) alone."""
    rng = np.random.default_rng([seed, index])
    scene = draw_scene(rng)
    return scene.caption(), render(scene, rng, size)


def _ground(scene: Scene, rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) background of the scene's tone and texture."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    canvas = np.full((size, size), TONES[scene.tone] + rng.normal(0, 0.03), np.float32)
    ramp = {"at the top": -y, "at the bottom": y, "on the left": -x, "on the right": x}
    if scene.ground.startswith("brighter"):
        canvas += rng.uniform(0.4, 0.7) * ramp[scene.ground.removeprefix("brighter ")]
    elif scene.ground == "cloudy":
        canvas += rng.uniform(0.06, 0.12) * noise(rng, size, rng.uniform(1.6, 2.2))
    elif scene.ground == "grainy":
        canvas += rng.uniform(0.04, 0.08) * noise(rng, size, rng.uniform(0.6, 1.0))
    elif scene.ground == "striped":
        angle, bend = rng.uniform(0, np.pi), rng.uniform(-1.5, 1.5)
        wave = x * np.cos(angle) + y * np.sin(angle) + bend * (x**2 + y**2)
        canvas += rng.uniform(0.06, 0.14) * np.sin(2 * np.pi * rng.uniform(5, 12) * wave + rng.uniform(0, 6))
    return canvas


def _cover(thing: Thing, rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) share of each pixel that the object covers, in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    cx, cy = np.array(PLACES[thing.place]) + rng.normal(0, 0.025, 2)
    x, y = x - cx, y - cy
    radius = SIZES[thing.size] * rng.uniform(0.9, 1.1)
    angle = rng.uniform(-0.3, 0.3) + (rng.integers(2) * np.pi / 2 if thing.kind in ("ellipse", "bar") else 0)
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = {
        "circle": lambda: np.hypot(x, y) - radius,
        "ellipse": lambda: (np.hypot(x / 1.35, y / 0.65) - radius) * 0.8,
        "square": lambda: np.maximum(np.abs(x), np.abs(y)) - 0.9 * radius,
        "bar": lambda: np.maximum(np.abs(x) / 1.8, np.abs(y) / 0.3) * 0.4 - 0.4 * radius,
        "ring": lambda: np.abs(np.hypot(x, y) - radius) - 0.25 * radius,
        "triangle": lambda: np.maximum(np.abs(x) * 0.87 + y * 0.5, -y) - 0.6 * radius,
    }[thing.kind]()
    edge = rng.uniform(0.02, 0.04) if thing.soft else 0.003
    return 1 / (1 + np.exp(np.clip(distance / (0.5 * edge), -30, 30)))
