"""Random masks for inpainting: boxes, strokes of a brush, blobs.

After Suvorov et al., WACV 2022, "Resolution-robust Large Mask Inpainting with Fourier Convolutions": large masks of several shapes.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from .objective import ObjectiveOptions


def random_mask(shape: tuple[int, int], objective: ObjectiveOptions, source: Generator) -> Tensor:
    """A mask (1, H, W) of one of the chosen shapes, or all of the image."""
    if between(0, 1, source) < objective.whole_share:
        return torch.ones(1, *shape)
    kind = objective.mask_shapes[whole(0, len(objective.mask_shapes) - 1, source)]
    return {"box": _boxes, "stroke": _strokes, "blob": _blobs}[kind](shape, source)[None]


def between(low: float, high: float, source: Generator) -> float:
    """A number from low to high."""
    return low + (high - low) * torch.rand((), generator=source).item()


def whole(low: int, high: int, source: Generator) -> int:
    """A whole number from low to high, both of which can occur."""
    return int(torch.randint(low, high + 1, (), generator=source))


def _boxes(shape: tuple[int, int], source: Generator) -> Tensor:
    """One to three rectangles, each side a sixth to two thirds of the image's."""
    mask = torch.zeros(shape)
    for _ in range(whole(1, 3, source)):
        sides = [max(1, round(side * between(1 / 6, 2 / 3, source))) for side in shape]
        top, left = (whole(0, full - side, source) for full, side in zip(shape, sides))
        mask[top:top + sides[0], left:left + sides[1]] = 1
    return mask


def _strokes(shape: tuple[int, int], source: Generator) -> Tensor:
    """One to three broken lines with round joints, as by a brush of a twentieth to an eighth of the image's side."""
    import numpy as np
    from PIL import Image, ImageDraw

    picture = Image.new("L", (shape[1], shape[0]))
    pen = ImageDraw.Draw(picture)
    for _ in range(whole(1, 3, source)):
        radius = max(1.0, min(shape) * between(1 / 40, 1 / 16, source))
        points = [(between(0, shape[1], source), between(0, shape[0], source)) for _ in range(whole(3, 6, source))]
        pen.line(points, fill=1, width=round(2 * radius))
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return torch.from_numpy(np.array(picture, np.float32))


def _blobs(shape: tuple[int, int], source: Generator) -> Tensor:
    """What lies above a level of smooth noise: a twentieth to a half of the image, in one piece or several."""
    cells = whole(3, 7, source)
    coarse = torch.randn((1, 1, cells, cells), generator=source)
    smooth = functional.interpolate(coarse, shape, mode="bicubic", align_corners=False)[0, 0]
    covered = max(1, round(smooth.numel() * between(1 / 20, 1 / 2, source)))
    return (smooth >= smooth.flatten().topk(covered).values[-1]).float()
