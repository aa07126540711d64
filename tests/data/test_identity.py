"""What counts as the same data."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from medtune.data.identity import hash_records
from medtune.data.image import save_image
from medtune.data.record import Box, Record
from medtune.errors import DataError


@pytest.fixture
def records(tmp_path):
    for name, value in (("a", 0.1), ("b", 0.2), ("m", 1.0)):
        save_image(torch.full((3, 8, 8), value), tmp_path / f"{name}.png")
    boxes = (Box(0, 0, 2, 2, "A"),)
    return [Record(tmp_path / "a.png", "one", ("A",), "p", "train", tmp_path / "m.png", boxes), Record(tmp_path / "b.png", "two")]


def test_the_place_does_not_matter(records, tmp_path):
    (tmp_path / "else").mkdir()
    before = hash_records(records)
    moved = [dataclasses.replace(record, image=record.image.rename(tmp_path / "else" / record.image.name)) for record in records]
    assert hash_records(moved) == before


@pytest.mark.parametrize("change", [{"caption": "other"}, {"labels": ("B",)}, {"mask": None}, {"boxes": ()}, {"repeats": 2}])
@pytest.mark.parametrize("read", [True, False])
def test_what_training_sees_matters(records, change, read):
    assert hash_records([dataclasses.replace(records[0], **change), records[1]], read) != hash_records(records, read)


def test_bytes_and_order_matter_and_patients_do_not(records):
    before, quick = hash_records(records), hash_records(records, read=False)
    assert hash_records(records[::-1]) != before and hash_records(records[:1]) != before
    assert hash_records([dataclasses.replace(record, patient="q", split="test") for record in records]) == before
    save_image(torch.full((3, 8, 8), 0.9), records[1].image)
    assert hash_records(records) != before and hash_records(records, read=False) != quick


def test_images_that_are_gone_are_counted(records):
    records[1].image.unlink()
    with pytest.raises(DataError, match=r"1 of 2 images.*b\.png"):
        hash_records(records)
