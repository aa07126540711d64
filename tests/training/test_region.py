"""Masked loss: masks as weights in the latents' resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.record import Record
from medtune.errors import DataError
from medtune.training.objective import ObjectiveOptions
from medtune.training.region import check_masks, find_regions
from PIL import Image

SHAPE = (4, 8, 8)


def record(folder, box=None, size=64, name="a"):
    """A record whose mask has ones in (left, top, right, bottom)."""
    mask = None
    if box is not None:
        left, top, right, bottom = box
        values = np.zeros((size, size), np.uint8)
        values[top:bottom, left:right] = 255
        mask = folder / f"{name}-mask.png"
        Image.fromarray(values).save(mask)
    return Record(Path(f"{name}.png"), "a", mask=mask)


def test_a_place_weighs_as_much_as_the_mask_covers_of_it(tmp_path):
    regions = find_regions([record(tmp_path, (8, 0, 28, 16))], SHAPE, 0.0, size=64)
    weights = regions.batch([0], [False])
    assert weights.shape == (1, 1, 8, 8)
    assert weights[0, 0, 0].tolist() == [0, 1, 1, 0.5, 0, 0, 0, 0] and (weights[0, 0, 2:] == 0).all()
    assert regions.batch([0], [True])[0, 0, 0].tolist() == [0, 0, 0, 0, 0.5, 1, 1, 0]


def test_the_outside_has_its_weight_and_no_mask_counts_whole(tmp_path):
    regions = find_regions([record(tmp_path, (0, 0, 12, 64)), record(tmp_path)], SHAPE, 0.2, size=64)
    weights = regions.batch([0, 1], [False, True])
    torch.testing.assert_close(weights[0, 0, 3], torch.tensor([1, 0.6, *[0.2] * 6]))
    assert (weights[1] == 1).all()


def test_masks_are_scaled_with_their_images(tmp_path):
    regions = find_regions([record(tmp_path, (0, 0, 64, 128), size=128)], SHAPE, 0.0, size=64)
    assert (regions.batch([0], [False])[0, 0, :, :4] == 1).all()


def test_every_mask_that_cannot_be_used_is_named(tmp_path):
    empty, small = record(tmp_path, (0, 0, 0, 0), name="empty"), record(tmp_path, (0, 0, 8, 8), size=32, name="small")
    torn = record(tmp_path, (0, 0, 8, 8), name="torn")
    torn.mask.write_bytes(torn.mask.read_bytes()[:50])
    with pytest.raises(DataError, match=r"3 of 4 masks.*empty-mask.*marks nothing.*small-mask.*32 x 32.*64 x 64.*torn-mask"):
        find_regions([record(tmp_path, (0, 0, 8, 8)), empty, small, torn], SHAPE, 0.0, fit="none")
    find_regions([empty], SHAPE, 0.1, size=64)  # the outside counts then


def test_no_masks_at_all_are_refused_and_some_are_said(tmp_path):
    on, without = ObjectiveOptions(masked=True), record(tmp_path)
    with pytest.raises(DataError, match=r"none of the 2 records has a mask.*switch masked off"):
        check_masks(on, [without, without])
    assert check_masks(on, [record(tmp_path, (0, 0, 8, 8)), without]) == ["1 of 2 records have no mask and count whole"]
    assert check_masks(ObjectiveOptions(), [without]) == []
