"""The images that a trained autoencoder reads in each step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from medtune.data.image import read_image
from medtune.errors import DataError
from medtune.training.images import find_images


def test_images_are_as_read_or_mirrored(phantoms):
    images = find_images(phantoms[:3], size=128)
    assert len(images) == 3 and images.shape == (4, 16, 16)
    batch = images.batch([2, 0], [False, True])
    assert torch.equal(batch[0], read_image(phantoms[2].image, 128))
    assert torch.equal(batch[1], read_image(phantoms[0].image, 128).flip(-1))


def test_every_image_that_cannot_be_read_is_named(phantoms, tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(phantoms[0].image.read_bytes()[:500])
    with pytest.raises(DataError, match=r"2 of 3 images.*torn\.png.*gone\.png"):
        find_images([phantoms[0], replace(phantoms[0], image=torn), replace(phantoms[0], image=tmp_path / "gone.png")], size=64)


def test_sizes_that_are_no_batch_or_no_whole_latents(phantoms, tmp_path):
    from PIL import Image

    odd = tmp_path / "odd.png"
    Image.new("L", (60, 64)).save(odd)
    with pytest.raises(DataError, match=r"2 sizes cannot be one batch.*512 x 512.*60 x 64"):
        find_images([phantoms[0], replace(phantoms[0], image=odd)], fit="none")
    with pytest.raises(DataError, match=r"60 x 64, whose sides are no multiples of 8"):
        find_images([replace(phantoms[0], image=odd)], fit="none")
