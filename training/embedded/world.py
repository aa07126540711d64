"""Generic procedural images to train an autoencoder on: "dead leaves" of soft and hard shapes over 1/f noise.

Dead leaves with 1/f textures have the edge and scale statistics of natural images (Lee, Mumford and Huang, IJCV 2001; Baradad et al.,
"Learning to See by Looking at Noise", NeurIPS 2021). Most images are grey and of low contrast. No photograph and no medical image is
read.
"""

import numpy as np

GREY_SHARE = 0.8


def image(rng: np.random.Generator, size: int) -> np.ndarray:
    """One image, (3, size, size) float32 in [0, 1]."""
    canvas = gradient(rng, size) + rng.uniform(0, 0.7) * rng.random() * noise(rng, size)
    for _ in range(int(np.exp(rng.uniform(np.log(3), np.log(60))))):
        _lay_leaf(rng, canvas)
    for _ in range(rng.integers(0, 9)):
        _lay_line(rng, canvas)
    canvas = _expose(rng, canvas)
    canvas += 0.02 * rng.random() ** 2 * noise(rng, size, rng.uniform(-0.2, 0.8))
    return _tint(rng, np.clip(canvas, 0, 1)).astype(np.float32)


def images(seed: int, count: int, size: int) -> np.ndarray:
    """(count, 3, size, size) uint8; image i depends on (seed, i) alone."""
    return np.stack([np.round(image(np.random.default_rng([seed, i]), size) * 255).astype(np.uint8) for i in range(count)])


def noise(rng: np.random.Generator, size: int, slope: float | None = None) -> np.ndarray:
    """(size, size) noise of unit deviation and zero mean whose amplitude falls as 1 / frequency ** slope (at random 1.2 to 2.6)."""
    slope = rng.uniform(1.2, 2.6) if slope is None else slope
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    stretch = np.exp(rng.uniform(-0.7, 0.7))  # anisotropy
    frequency = np.sqrt((fy * stretch) ** 2 + (fx / stretch) ** 2)
    frequency[0, 0] = np.inf if slope > 0 else 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * frequency**-slope
    spectrum[0, 0] = 0
    values = np.fft.irfft2(spectrum, s=(size, size))
    return values / (values.std() + 1e-8)


def gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) linear ramp at a random angle, within [-0.2, 1.2]."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(0.1, 0.9) + rng.uniform(0, 0.8) * (x * np.cos(angle) + y * np.sin(angle))


def _lay_leaf(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Draw one ellipse, box or ring in place: hard or soft, opaque or faint, plain or textured."""
    size = canvas.shape[0]
    radius = np.exp(rng.uniform(np.log(3), np.log(0.6 * size)))
    edge = np.exp(rng.uniform(np.log(0.5), np.log(max(1.0, 0.6 * radius))))
    aspect = np.exp(rng.uniform(-0.8, 0.8))
    window, along, across = _window(rng, size, radius * max(aspect, 1 / aspect) + 3 * edge)
    along, across = along / aspect, across * aspect
    kind = rng.integers(4)
    if kind == 0:
        distance = np.maximum(np.abs(along), np.abs(across)) - radius
    else:
        distance = np.sqrt(along**2 + across**2) - radius
    if kind == 1:
        distance = np.abs(distance) - radius * rng.uniform(0.03, 0.3)
    cover = rng.uniform(0.1, 1) / (1 + np.exp(np.clip(distance / (0.5 * edge), -30, 30)))
    patch = canvas[window]
    tone = rng.uniform(0, 1)
    if rng.random() < 0.4:
        tone = tone + rng.uniform(0, 0.3) * noise(rng, max(cover.shape))[: cover.shape[0], : cover.shape[1]]
    if rng.random() < 0.3:  # a faint veil that adds to what lies under it
        patch += rng.uniform(-0.25, 0.25) * cover
    else:
        patch += cover * (tone - patch)


def _lay_line(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Draw one thin arc in place, 0.6 to 4 pixels wide."""
    size = canvas.shape[0]
    radius = size * np.exp(rng.uniform(-1.5, 1.5))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    py, px = rng.uniform(0, size, 2)  # the arc goes through this point
    distance = np.abs(np.hypot(y - py - radius * np.sin(angle), x - px - radius * np.cos(angle)) - radius)
    width = np.exp(rng.uniform(np.log(0.3), np.log(2.0)))
    canvas += rng.uniform(-0.3, 0.3) * np.clip(width + 0.5 - distance, 0, 1)


def _window(rng: np.random.Generator, size: int, reach: float):
    """A slice of the canvas around a random centre, and the turned coordinates in it."""
    cy, cx = rng.uniform(-0.1 * size, 1.1 * size, 2)
    top, left = max(0, int(cy - reach)), max(0, int(cx - reach))
    bottom, right = min(size, int(cy + reach) + 2), min(size, int(cx + reach) + 2)
    top, left = min(top, size - 1), min(left, size - 1)
    y, x = np.mgrid[top : max(bottom, top + 1), left : max(right, left + 1)].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    y, x = y - cy, x - cx
    window = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
    return window, x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _expose(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Random contrast and brightness, often low contrast."""
    canvas = np.clip(canvas, -0.2, 1.2)
    contrast = rng.uniform(0.25, 1.1)
    middle = rng.uniform(0.5 * contrast - 0.1, 1.1 - 0.5 * contrast)
    return middle + contrast * (canvas - 0.5)


def _tint(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """(size, size) -> (3, size, size): mostly plain grey, else three toned mixtures of it and its parts."""
    if rng.random() < GREY_SHARE:
        return np.repeat(canvas[None], 3, 0)
    low, high = rng.uniform(0, 1, (2, 3, 1, 1))
    colour = low + (high - low) * canvas[None]
    return np.clip(colour + rng.uniform(0, 0.5) * (canvas[None] - colour), 0, 1)
