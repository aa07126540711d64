"""Images as the networks' own libraries take them, and the device that extractors of published weights run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...config import option
from ...errors import ConfigError


def levels(images: Tensor) -> np.ndarray:
    """Images (N, 3, H, W) in [0, 1] as levels (N, H, W, 3) uint8."""
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def transformed(images: Tensor, transform: Callable[[Any], Tensor]) -> Tensor:
    """What a library's own transform makes of each image, as a PIL picture in RGB: (N, 3, size, size)."""
    return torch.stack([transform(Image.fromarray(picture)) for picture in levels(images)])


def device_option() -> Any:
    """The field ``device`` of an extractor's config."""
    return option("", "cuda, cuda:1, mps or cpu; empty for the best there is.", advanced=True)


def device(name: str = "") -> torch.device:
    """The device of that name, or the best there is; ConfigError for one that is not there."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(name.strip() or best)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device is {name!r}, which is not there ({str(error)[:100]}); use cpu, or leave it empty") from error
    return found
