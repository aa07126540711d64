"""`medtune train`: the objective's flags reach the training."""

from __future__ import annotations

import json

import pytest
from medtune.__main__ import main
from medtune.training.adapter import read_adapter


@pytest.fixture
def train(phantom_folder, tmp_path):
    """Exit status of a quick training with these words."""
    return lambda *words: main(["train", "--data", str(phantom_folder), "--method", "bitfit", "--steps", "1", "--batch", "1", "--size",
                                "64", "--runs", str(tmp_path), "--device", "cpu", "--json", *words])


def test_flags_of_the_objective_are_in_the_file(train, capsys):
    assert train("--weighting", "min-snr", "--noise-offset", "0.05", "--masked") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["products"] == {"adapter": said["adapter"]} and len(said["losses"]) == 1
    objective = json.loads(read_adapter(said["adapter"]).header["medtune.objective"])
    assert (objective["weighting"], objective["noise_offset"], objective["masked"]) == ("min-snr", 0.05, True)


def test_inflating_makes_a_whole_checkpoint(train, capsys):
    assert train("--inpainting", "random", "--mask-shapes", "box,blob", "--mask-variants", "1", "--inflate") == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["products"]) == ["model"]
    assert json.loads(read_adapter(said["adapter"]).header["medtune.objective"])["mask_shapes"] == ["box", "blob"]


@pytest.mark.parametrize(("words", "said"), [
    (["--inpainting", "random"], "Switch inflate on"), (["--prior-weight", "1"], "class_prompt is empty"),
    (["--zero-terminal-snr"], "base that predicts v"), (["--mask-shapes", "box,ring"], "mask_shapes is 'ring'"),
    (["--weighting", "min_snr"], "did you mean 'min-snr'")])
def test_what_cannot_be_is_wrong_usage(train, capsys, words, said):
    assert train(*words) == 2
    assert said in capsys.readouterr().err
