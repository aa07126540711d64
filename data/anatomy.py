"""The geometry of one phantom patient: outlines of lungs, heart, ribs and the rest, in pixels of a 512 px image.

x grows to the right of the image, which is the patient's left; ``side`` is -1 for the patient's right and +1 for the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE = 512
WALL = 40  # points of a lung's lateral wall


@dataclass
class Anatomy:
    """What stays the same from one image of a patient to the next.

    ``half`` is the half width of the thorax at its widest, ``top`` and ``base`` the heights of the lung apex and of the
    costophrenic angle, ``heart`` the heart's extent right and left of the midline as fractions of ``half``.
    """

    seed: int
    half: float
    top: float
    base: float
    middle: float
    flank: float
    shoulder: float
    dome: tuple[float, float]
    heart: tuple[float, float]
    apex: float
    knob: float
    spread: float
    rib_width: float
    rib_drop: float
    rib_count: int
    bone: float
    breast: float
    breast_drop: float
    bubble: float
    scale: float

    @classmethod
    def of(cls, seed: int) -> Anatomy:
        """The anatomy that belongs to a patient's seed."""
        draw = np.random.default_rng([seed, 1]).uniform
        large = draw(0, 1)
        top = draw(36, 78)
        return cls(
            seed=seed, half=draw(164, 190) + 18 * large, top=top, base=top + draw(305, 360) + 22 * large,
            middle=256 + draw(-8, 8), flank=draw(24, 44) + 46 * draw(0, 1) ** 2, shoulder=top + draw(24, 50),
            dome=(draw(54, 78), draw(40, 60)),
            heart=(draw(0.2, 0.28), draw(0.58, 0.68)), apex=draw(0.76, 0.86), knob=draw(0.19, 0.27), spread=draw(0.34, 0.42),
            rib_width=draw(5.2, 7.2), rib_drop=draw(0.29, 0.4), rib_count=int(draw(9, 11)), bone=draw(0.75, 1.3),
            breast=max(0.0, draw(-0.34, 0.34)), breast_drop=draw(0.6, 0.78), bubble=max(0.0, draw(-0.4, 1.0)),
            scale=draw(0.94, 1.03),
        )

    def y(self, fraction: np.ndarray | float) -> np.ndarray | float:
        """Height at a fraction of the way from lung apex (0) to costophrenic angle (1)."""
        return self.top + fraction * (self.base - self.top)

    def outer(self, y: np.ndarray | float) -> np.ndarray:
        """Distance of the thorax's inner wall from the midline."""
        t = np.clip((np.asarray(y, float) - self.top) / (self.base - self.top), 0, 1)
        rounded = np.sqrt(1 - (1 - t) ** 2.5)
        return self.half * (self.spread + (1 - self.spread) * rounded - 0.05 * np.clip(t - 0.8, 0, 1))

    def diaphragm(self, side: int, raised: float = 0.0, count: int = 24) -> np.ndarray:
        """The dome from the costophrenic angle to the midline, (count, 2)."""
        u = np.linspace(0, 1, count)  # 0 at the wall, 1 at the midline
        height = self.dome[0 if side < 0 else 1] + raised
        y = self.base - height * np.sin(np.pi * np.clip(u / 1.16, 0, 1) ** 0.7) ** 0.95 - 0.55 * height * u**2
        x = self.middle + side * self.outer(self.base) * (1 - u)
        return np.stack([x, y + (6 if side > 0 else 0)], 1)

    def lung(self, side: int, raised: float = 0.0) -> np.ndarray:
        """The outline of the pleural space: apex, lateral wall, diaphragm, mediastinal side, (N, 2)."""
        t = np.linspace(0, 1, WALL) ** 1.6
        wall = np.stack([self.middle + side * self.outer(self.y(t)), self.y(t)], 1)
        inner = np.array([[0.1, 0.5], [0.1, 0.2], [0.15, 0.08], [0.22, 0.02]])
        medial = np.stack([self.middle + side * self.half * inner[:, 0], self.y(inner[:, 1])], 1)
        return np.concatenate([wall, self.diaphragm(side, raised)[1:-2], medial])

    def thorax(self) -> np.ndarray:
        """The whole chest's inner outline, carried on below the diaphragm."""
        t = np.linspace(0, 1, 24)
        wall, y = self.outer(self.y(t)), self.y(t)
        right, left = np.stack([self.middle - wall, y], 1), np.stack([self.middle + wall, y], 1)
        low = SIZE + 80
        return np.concatenate([right[::-1], left, [[left[-1, 0], low], [right[-1, 0], low]]])

    def silhouette(self, side: int) -> np.ndarray:
        """Half of the skin line: neck, shoulder, arm pit, flank."""
        wide = self.half + self.flank
        pit = self.top + 0.52 * (self.base - self.top)
        x = np.array([0, 62, 66, 92, 160, 226, 276, 278, wide + 12, wide, wide + 3, wide + 2, 0])
        y = np.concatenate([[-40, -40, -18, 8], self.shoulder + np.array([-52, -26, 30]), pit + np.array([-20, 0, 60]),
                            [self.base, SIZE + 60, SIZE + 60]])
        return np.stack([self.middle + side * x, y], 1)

    def arm(self, side: int) -> np.ndarray:
        """The upper arm, hanging beside the chest and leaving the picture at the bottom."""
        wide = self.half + self.flank
        x = [228, 290, wide + 150, wide + 62, wide + 30]
        y = [self.shoulder - 8, self.shoulder + 20, SIZE + 60, SIZE + 60, self.y(0.5)]
        return np.stack([self.middle + side * np.array(x), np.array(y)], 1)

    def heart_outline(self, right: float, left: float) -> np.ndarray:
        """The heart, its extents right and left of the midline being given as fractions of ``half``."""
        low = min(self.diaphragm(-1)[:, 1].min(), self.diaphragm(1)[:, 1].min()) + 34
        top = self.y(0.36)
        at = top + (low - top) * np.array([0.02, 0.28, 0.6, 0.84, 1.02, 1.12, 1.08, self.apex, 0.58, 0.34, 0.14, 0.0])
        x = np.concatenate([[-0.1], -right * np.array([0.72, 1, 0.9, 0.6]), left * np.array([0.2, 0.78, 1, 0.87, 0.6, 0.36]), [0.16]])
        return smooth(np.stack([self.middle + self.half * x, at], 1))

    def mediastinum(self) -> np.ndarray:
        """Vessels and soft tissue between the lungs above the heart, with the aortic knob on the left."""
        half, knob = self.half, self.knob
        x = np.array([-0.19, -0.16, -0.15, -0.17, -0.1, 0.2, 0.15, knob, knob * 0.98, 0.13, 0.15, 0.2])
        t = np.array([-0.12, 0.02, 0.2, 0.42, 0.66, 0.6, 0.37, 0.3, 0.22, 0.14, 0.03, -0.12])
        return smooth(np.stack([self.middle + half * x, self.y(t)], 1))

    def ribs(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Upper and lower edges of the ribs from spine to front, each (ribs, points, 2).

        A rib is a ring that is tilted forward, seen from the front: its posterior half falls gently outward, its
        anterior half steeply inward.
        """
        rows = np.arange(self.rib_count)[:, None]
        angle = np.linspace(0.1, 2.5, 36)[None]
        pitch = (self.base - self.top) * 0.98 / self.rib_count
        start = self.top - 4 + pitch * (rows * 0.93 + 0.006 * rows**2)
        drop = (self.base - self.top) * self.rib_drop * np.clip(0.5 + 0.16 * rows, 0, 1)
        y = start + drop * (0.5 - 0.5 * np.cos(angle)) - 0.12 * drop * np.sin(2 * np.clip(angle, 0, np.pi / 2))
        reach = self.outer(start + drop * 0.5) + 5
        x = reach * np.sin(angle)
        dx, dy = np.gradient(x, axis=1), np.gradient(y, axis=1)
        long = np.hypot(dx, dy)
        wide = self.rib_width * (1 - 0.25 * np.sin(angle) ** 4 + 0.25 * (angle > 1.7)) * np.clip(0.7 + 0.06 * rows, 0, 1)
        ox, oy = -dy / long * wide, dx / long * wide
        place = lambda sign: np.stack([self.middle + side * (x + sign * ox), y + sign * oy], -1)  # noqa: E731
        return place(-1), place(1)

    def clavicle(self, side: int) -> np.ndarray:
        """The collar bone's centre line from the sternum to the shoulder, (N, 2)."""
        lift = self.shoulder - self.top
        points = np.array([[0.09, 40], [0.25, 37], [0.5, 20], [0.8, 0.4 * lift - 10], [1.05, lift - 29], [1.22, lift - 18]])
        return smooth(np.stack([self.middle + side * self.half * points[:, 0], self.top + 6 + points[:, 1]], 1), closed=False)

    def scapula(self, side: int) -> np.ndarray:
        """The shoulder blade's inner edge and tip, mostly outside of the lung."""
        x = np.array([1.05, 0.93, 0.9, 0.98, 1.12, 1.3, 1.28])
        y = np.array([-8, 40, 110, 168, 130, 56, 6]) + self.top + 10
        return smooth(np.stack([self.middle + side * self.half * x, y], 1))

    def hilum(self, side: int) -> np.ndarray:
        """Where the vessels of a lung come out of the mediastinum, (2,)."""
        return np.array([self.middle + side * self.half * 0.19, self.y(0.43 if side < 0 else 0.4)])


def smooth(points: np.ndarray, closed: bool = True, steps: int = 8) -> np.ndarray:
    """A Catmull-Rom curve through the points, (N * steps, 2)."""
    ahead = [np.roll(points, -k, 0) for k in (-1, 0, 1, 2)] if closed else _open(points)
    before, here, after, beyond = (p[:, None] for p in ahead)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * here + (after - before) * t + (2 * before - 5 * here + 4 * after - beyond) * t**2
                   + (3 * here - before - 3 * after + beyond) * t**3)
    return curve.reshape(-1, 2)


def _open(points: np.ndarray) -> list[np.ndarray]:
    padded = np.concatenate([points[:1], points, points[-1:]])
    return [padded[k:len(padded) - 3 + k] for k in range(4)]


def vessels(anatomy: Anatomy, side: int) -> list[tuple[np.ndarray, np.ndarray, float, int]]:
    """A lung's branching vessels: (starts, ends, width, level) of each generation; starts and ends (N, 2)."""
    rng = np.random.default_rng([anatomy.seed, 2 + side])
    fan = np.linspace(-1.45, 1.35, 9) + rng.uniform(-0.14, 0.14, 9)  # angle from lateral, negative is up
    starts, angles = np.repeat(anatomy.hilum(side)[None], 9, 0) + rng.normal(0, 7, (9, 2)), fan
    lengths, found = anatomy.half * rng.uniform(0.22, 0.34, 9), []
    for level, width in enumerate((5.2, 3.4, 2.2, 1.2)):
        for _ in range(2):  # two bent pieces a generation
            step = np.stack([side * np.cos(angles), np.sin(angles)], 1) * lengths[:, None] / 2
            found.append((starts, starts + step, width, level))
            starts, angles = starts + step, angles + rng.normal(0, 0.2, len(angles))
        turn = rng.uniform(0.18, 0.5, (2, len(angles))) * np.array([[1.0], [-1.0]])
        starts, angles = np.concatenate([starts, starts]), np.concatenate([angles, angles]) + turn.ravel()
        lengths = np.concatenate([lengths, lengths]) * rng.uniform(0.55, 0.85, len(angles))
    return found
