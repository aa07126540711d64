"""Data-set files of sd-scripts as a source."""

from __future__ import annotations

import json

import pytest
from medtune.data.source import read_records, recognise
from medtune.errors import DataError
from PIL import Image


@pytest.fixture
def put(tmp_path):
    """A function (name, text or None for a picture) that writes a file."""

    def write(name, text=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("L", (8, 8), 100).save(path)
        else:
            path.write_text(text, encoding="utf-8")
        return path

    return write


WHOLE = """
[general]
caption_extension = '.txt'
num_repeats = 2
resolution = 512

[[datasets]]
batch_size = 4
keep_tokens = 1
caption_prefix = 'X-ray'

  [[datasets.subsets]]
  image_dir = 'lungs'
  num_repeats = 10
  caption_suffix = 'end'

  [[datasets.subsets]]
  image_dir = 'knees'
  class_tokens = 'a knee'
  caption_prefix = ''

[[datasets]]
resolution = [768, 768]

  [[datasets.subsets]]
  image_dir = 'more'
  metadata_file = 'more.json'
"""


def test_every_table(put, tmp_path):
    for name in ("lungs/a.png", "lungs/b.v1.png", "knees/a.png", "knees/b.png", "more/a.png", "more/deep/b.png"):
        put(name)
    for name, text in (("lungs/a.txt", "\ufeff clear \nsecond line\n"), ("lungs/b.v1.txt", "edema"), ("knees/a.txt", "knee one")):
        put(name, text)
    put("more.json", json.dumps({"a.png": {"caption": "fracture", "tags": "old, grey"}, "deep/b.png": {"tags": "new"}}))
    path = put("data.toml", WHOLE)
    assert recognise(path) == "kohya-toml"
    found = {str(record.image.relative_to(tmp_path)): (record.caption, record.repeats) for record in read_records(path)}
    assert found == {"lungs/a.png": ("X-ray clear end", 10), "lungs/b.v1.png": ("X-ray edema end", 10), "knees/a.png": ("knee one", 2),
                     "knees/b.png": ("a knee", 2), "more/a.png": ("fracture,old, grey", 2), "more/deep/b.png": ("new", 2)}


def test_the_present_folder_is_looked_in_as_sd_scripts_does(put, tmp_path, monkeypatch):
    put("images/a.png")
    path = put("elsewhere/data.toml", "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'images'\nclass_tokens = 'x'\n")
    with pytest.raises(DataError, match="there is no folder 'images', beside the file or here"):
        read_records(path)
    monkeypatch.chdir(tmp_path)
    assert [record.caption for record in read_records(path)] == ["x"]


def test_the_default_ending_is_that_of_sd_scripts(put):
    put("a/x.png")
    put("a/x.txt", "text")
    path = put("data.toml", "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\n")
    with pytest.raises(DataError, match=r"no x\.caption for it, and no class_tokens; x\.txt is there: set caption_extension"):
        read_records(path)
    assert read_records(path, missing="empty")[0].caption == ""
    put("a/x.caption", "caption")
    assert read_records(path)[0].caption == "caption"


def test_lines_of_json_as_metadata(put, tmp_path):
    image = put("far/a.png")
    put("list.jsonl", json.dumps({"image_path": str(image), "caption": "one"}) + "\n\n")
    path = put("data.toml", "[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'list.jsonl'\n")
    assert [(record.image, record.caption) for record in read_records(path)] == [(image, "one")]


ONE = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\nclass_tokens = 'x'\n"


@pytest.mark.parametrize(("text", "message"), [
    ("[general]\n", "has no .*datasets"),
    ("[[datasets]]\nresolution = 512\n", r"number 1 of .*data\.toml has no \[\[datasets\.subsets\]\]"),
    ("[[datasets]]\nsubsets = ['a']\n", "must be a table"),
    ("[[datasets]]\n[[datasets.subsets]]\nclass_tokens = 'x'\n", "has no image_dir"),
    (ONE + "num_repeat = 2\n", r"'num_repeat' \(did you mean 'num_repeats'\?\), which sd-scripts does not know"),
    (ONE + "num_repeats = 0\n", "num_repeats is 0; it must be at least 1"),
    (ONE + "num_repeats = 'two'\n", "num_repeats is 'two'; it must be a whole number"),
    (ONE + "num_repeats = true\n", "num_repeats is True"),
    (ONE + "caption_extension = '.png'\n", "caption_extension is '.png', that of images"),
    (ONE + "is_reg = true\n", "holds regularisation images"),
    (ONE + "flip_aug = true\nshuffle_caption = true\n", r"sets flip_aug \(here: the training option flips\), shuffle_caption, which"),
    (ONE + "[extra]\n", "has 'extra'; it has"),
    ("[general\n", "cannot read .* as TOML"),
    (ONE.replace("'a'", "'gone'"), "there is no folder 'gone'"),
    (ONE.replace("'a'", "'empty'"), "the folder has no images"),
    ("[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'gone.json'\n", "there is no metadata_file"),
    ("[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'bad.json'\n", "cannot read .*bad.json as JSON"),
    ("[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'list.json'\n", "is not an object of images"),
    ("[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'good.json'\n", "is no whole path, and there is no image_dir"),
])
def test_files_that_cannot_be_used(put, tmp_path, text, message):
    put("a/x.png")
    (tmp_path / "empty").mkdir()
    for name, content in (("bad.json", "{"), ("list.json", "[1]"), ("good.json", '{"x.png": {"caption": "y"}}')):
        put(name, content)
    with pytest.raises(DataError, match=message):
        read_records(put("data.toml", text), "kohya-toml")


def test_what_is_done_otherwise_can_be_let_be(put):
    put("a/x.png")
    path = put("data.toml", ONE + "shuffle_caption = true\nflip_aug = false\ncaption_dropout_rate = 0.0\n")
    assert len(read_records(path, "kohya-toml", changing="ignore")) == 1
    put("b/y.png")
    path = put("data.toml", ONE + "[[datasets.subsets]]\nimage_dir = 'b'\nclass_tokens = 'y'\nis_reg = true\n")
    assert len(read_records(path, "kohya-toml", regularisation="leave-out")) == 1
    assert len(read_records(path, "kohya-toml", regularisation="train")) == 2


def test_another_toml_is_not_taken_for_one(put):
    path = put("study.toml", "[study]\nname = 'x'\n")
    with pytest.raises(DataError, match="has no layout that is known"):
        read_records(path)
