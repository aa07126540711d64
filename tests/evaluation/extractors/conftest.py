"""What the tests of extractors share: pictures on disk, and weights that are random and all matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def draw(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """8-bit levels with structure at several scales."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(shape[1::-1], Image.Resampling.BICUBIC)
    fine = rng.integers(-25, 26, (*shape[:2], 1))
    return np.clip(np.asarray(rough, int) + fine, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of three colour pictures of 512 x 512."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        Image.fromarray(draw((512, 512), index)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory) -> Path:
    """A folder of two grey pictures of 512 x 512."""
    folder = tmp_path_factory.mktemp("radiographs")
    for index in range(2):
        Image.fromarray(draw((512, 512), index)[..., 0]).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def randomise():
    """A function (module, seed) that fills every tensor of a module so that activations keep their size, and gives the module back."""

    def fill(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if not value.is_floating_point():
                    continue
                if name.endswith("var"):
                    value.uniform_(0.5, 1.5, generator=generator)
                elif value.ndim < 2:
                    scale = name.endswith("weight") or value.ndim == 0
                    value.uniform_(0.8 if scale else -0.1, 1.2 if scale else 0.1, generator=generator)
                else:
                    value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        return module.eval()

    return fill


@pytest.fixture(scope="session")
def read():
    """A function (folder, size) -> its images (N, 3, size, size), as an evaluation reads them."""
    from medtune.data.image import read_image

    return lambda folder, size=512: torch.stack([read_image(path, size) for path in sorted(folder.glob("*.png"))])
