"""`medtune privacy`: table, JSON and files; membership inference of an adapter; wrong usage and bad data."""

from __future__ import annotations

import json

import pytest
from medtune.__main__ import main
from medtune.data.image_set import ImageSet
from medtune.data.source import read_records
from medtune.data.split import select


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """24 small phantoms in two splits, and eight generated images of which two are copies."""
    import shutil

    from medtune.data.phantom import phantom, write_phantoms

    folder = tmp_path_factory.mktemp("folders")
    write_phantoms(folder / "data", 24, seed=5, size=64, held_out=0.4)
    train = select(read_records(folder / "data"), "train")
    generated = ImageSet(folder / "fake")
    for seed in range(6):
        generated.append(phantom(900 + seed, size=64).image, "x", seed=seed)
    for index in range(2):
        record = generated.append(phantom(0, size=64).image, "x", seed=6 + index)
        shutil.copy(train[index].image, record.image)
    return folder


@pytest.fixture
def privacy(folders, tmp_path):
    """Exit status with these words; the result is in ``tmp_path``."""
    data, fake = str(folders / "data"), str(folders / "fake")
    return lambda *words: main(["privacy", "--train", data, "--train-split", "train", "--held-out-split", "test", "--fake", fake,
                                "--out", str(tmp_path), "--repeats", "100", "--device", "cpu", *words])


def test_table_and_json(privacy, tmp_path, capsys):
    assert privacy() == 0
    page = capsys.readouterr().out
    assert "Copies of training images" in page and "0.25" in page and "000006.png" in page
    kept = json.loads((tmp_path / "privacy.json").read_text())
    assert [pair["same_file"] for pair in kept["alike"][:3]] == [True, True, False]
    assert not (tmp_path / "losses.json").exists()
    assert privacy("--json", "--pairs", "1") == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["alike"]) == 1 and said["n"] == kept["n"]


def test_membership_of_an_adapter(privacy, folders, tmp_path, capsys):
    from medtune.training.base import load_base
    from medtune.training.loop import train
    from medtune.training.method import METHODS
    from medtune.training.options import TrainOptions

    options = TrainOptions(steps=1, batch=1, size=64)
    records = select(read_records(folders / "data"), "train")
    adapter = train(load_base("embedded"), METHODS["bitfit"](), records, options, runs=tmp_path / "runs").adapter
    assert privacy("--adapter", str(adapter), "--draws", "2", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    figure = next(figure for figure in said["figures"] if figure["name"] == "membership_auc")
    assert 0 <= figure["value"] <= 1 and said["membership"]["options"]["size"] == 64 and said["membership"]["options"]["draws"] == 2
    losses = tmp_path / "losses.json"
    assert privacy("--losses", str(losses), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert next(figure for figure in again["figures"] if figure["name"] == "membership_auc") == figure
    assert privacy("--adapter", str(adapter), "--train-split", "test", "--held-out-split", "train") == 1
    assert "trained on other data" in capsys.readouterr().err


def test_what_cannot_be_is_refused(privacy, capsys):
    assert privacy("--held-out-split", "train") == 1
    assert "the training and the held-out set share" in capsys.readouterr().err
    assert privacy("--extractor", "thumbnails") == 2
    assert "did you mean 'thumbnail'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        privacy("--adapter", "a.safetensors", "--losses", "b.json")
