"""The folder that every hop writes and reads."""

from __future__ import annotations

import json

import pytest
import torch
from medtune.data.image import read_image, read_mask
from medtune.data.image_set import LINES, ImageSet
from medtune.data.record import Box
from medtune.errors import DataError

GREY = torch.full((3, 8, 8), 0.5)


def test_what_is_appended_is_read_back(tmp_path):
    images = ImageSet(tmp_path / "set")
    mask = torch.zeros(1, 8, 8)
    mask[0, 2:4] = 1
    made = images.append(GREY, "a “chest”", ("Nodule", "Edema"), patient="p1", split="test", mask=mask,
                         boxes=[Box(0, 2, 8, 2, "Nodule")], seed=2**40, steps=50, sampler="ddim")
    again = ImageSet(tmp_path / "set")
    assert again.records == images.records == [made]
    assert made.labels == ("Edema", "Nodule") and made.boxes == (Box(0, 2, 8, 2, "Nodule"),) and made.seed == 2**40
    assert torch.equal(read_mask(made.mask, 8), mask) and (read_image(made.image, 8) - GREY).abs().max() < 0.003
    assert again.extra(made.image.name) == {"steps": 50, "sampler": "ddim"}
    row = json.loads((tmp_path / "set" / LINES).read_text(encoding="utf-8"))
    assert row["file_name"] == "000000.png" and row["text"] == "a “chest”" and row["mask"] == "masks/000000.png"


@pytest.mark.parametrize("torn", [b'{"file_name": "1.png", "text": "' + b"x" * 400, b'{"file_name": "1.png", "text": "\xe2\x80', b"{"])
def test_a_line_torn_by_a_kill_is_dropped_and_made_again(tmp_path, torn):
    first = ImageSet(tmp_path).append(GREY, "one")
    with open(tmp_path / LINES, "ab") as file:
        file.write(torn)
    images = ImageSet(tmp_path)
    assert images.records == [first]
    images.append(GREY, "two")
    assert [record.caption for record in ImageSet(tmp_path).records] == ["one", "two"]
    written = (tmp_path / LINES).read_bytes()
    assert written.count(b"\n") == 2 and written.endswith(b"\n")


def test_a_last_line_without_an_end_is_kept_when_it_is_whole(tmp_path):
    (tmp_path / LINES).write_text('{"file_name": "a.png", "text": "by hand"}', encoding="utf-8")
    images = ImageSet(tmp_path)
    images.append(GREY, "two", file_name="b.png")
    assert [record.caption for record in ImageSet(tmp_path).records] == ["by hand", "two"]


def test_a_line_that_is_broken_in_the_middle_is_named(tmp_path):
    (tmp_path / LINES).write_bytes(b'{"file_name": "a.png", "text": "x"}\n{oops\n["list"]\n{"file_name": "b.png", "text": "x"}\n')
    with pytest.raises(DataError, match=r"2 of 4 lines.*2, 3"):
        ImageSet(tmp_path)


@pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "x/../../a.png", "", 7])
def test_names_that_climb_out_are_refused(tmp_path, name):
    (tmp_path / LINES).write_text(json.dumps({"file_name": name, "text": "x"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"climbs|not a file name"):
        ImageSet(tmp_path)


def test_no_line_without_its_image_and_no_line_for_what_cannot_be_kept(tmp_path):
    images = ImageSet(tmp_path)
    for image, extra in ((torch.full((3, 8, 8), float("nan")), {}), (GREY, {"score": float("nan")}), (GREY, {"thing": object()})):
        with pytest.raises(DataError):
            images.append(image, "x", **extra)
    assert not images.records and not (tmp_path / LINES).exists()
    with pytest.raises(DataError, match="climbs"):
        images.append(GREY, "x", file_name="../escaped.png")
    assert not (tmp_path.parent / "escaped.png").exists()


def test_one_name_is_given_once(tmp_path):
    images = ImageSet(tmp_path)
    images.append(GREY, "x", file_name="a.png")
    with pytest.raises(DataError, match=r"already holds a\.png"):
        images.append(GREY, "y", file_name="a.png")


def test_what_made_a_set_is_kept_and_other_settings_are_refused(tmp_path):
    images = ImageSet(tmp_path)
    assert images.read_info() == {}
    images.claim({"seed": 1, "steps": 50})
    images.claim({"steps": 50, "seed": 1})
    with pytest.raises(DataError, match="steps was 50, now 20"):
        images.claim({"seed": 1, "steps": 20})
    assert ImageSet(tmp_path).read_info() == {"seed": 1, "steps": 50}
    (tmp_path / "medtune.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not JSON"):
        images.read_info()


@pytest.mark.parametrize("change", [{"labels": "Edema"}, {"seed": "one"}, {"boxes": [{"x": 1}]}, {"text": 4}, {"repeats": 0},
                                    {"boxes": [{"x": 0, "y": 0, "width": 0, "height": 4}]}, {"patient": [1]}])
def test_values_of_the_wrong_kind_are_named(tmp_path, change):
    (tmp_path / LINES).write_text(json.dumps({"file_name": "a.png", "text": "x", **change}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.png"):
        ImageSet(tmp_path)
