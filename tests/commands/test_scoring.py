"""Scoring from the command line: sets of images, and statistics of sets in shards."""

from __future__ import annotations

import json

import pytest
from medtune.__main__ import main

READ = ["--extractor", "intensity"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring")
    for name, seed in (("real", 0), ("fake", 1)):
        assert main(["phantom", str(folder / name), "--count", "24", "--size", "64", "--seed", str(seed)]) == 0
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))


def result(words, capsys):
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_metrics_and_options_by_name(folders, capsys):
    words = ["evaluate", "--real", str(folders / "real"), "--fake", str(folders / "fake"), *READ, "--metrics", "vendi, kid"]
    found = result([*words, "--metric-option", "vendi.order=2", "--metric-option", "groups=6", "--per-class", "--equal"], capsys)
    pooled = {one["metric"]: one for one in found["scores"] if one["label"] is None}
    assert list(pooled) == ["vendi", "kid"] and all(len(one["without_fake"]) == 6 for one in pooled.values())
    assert any(one["label"] not in (None, "mean over labels") for one in found["scores"])
    plain = result(words, capsys)
    assert plain["scores"][0]["value"] != pooled["vendi"]["value"] and len(plain["scores"]) == 2
    assert main([*words[:-1], "frechett"]) == 2 and "did you mean 'frechet'" in capsys.readouterr().err
    assert main([*words, "--labels", "intensity"]) == 2 and "tells no findings" in capsys.readouterr().err


def test_statistics_of_shards(folders, tmp_path, capsys):
    for index in (1, 2, 3):
        out = str(tmp_path / f"{index}.safetensors")
        words = ["statistics", "--data", str(folders / "real"), *READ, "--shard", f"{index}/3", "--out", out]
        assert result(words, capsys)["images"] == 8
    files = [str(tmp_path / f"{index}.safetensors") for index in (3, 1, 2)]
    whole, fake = str(tmp_path / "real.safetensors"), str(tmp_path / "fake.safetensors")
    assert result(["statistics", "--merge", *files, "--out", whole], capsys)["images"] == 24
    assert result(["statistics", "--data", str(folders / "fake"), *READ, "--out", fake], capsys)["images"] == 24
    of_files = result(["evaluate", "--real", whole, "--fake", fake], capsys)["scores"]
    of_images = result(["evaluate", "--real", str(folders / "real"), "--fake", str(folders / "fake"), *READ], capsys)["scores"]
    for one, two in zip(of_files, of_images):
        assert one["metric"] == two["metric"] and one["value"] == pytest.approx(two["value"], rel=1e-4)
    assert main(["statistics", "--merge", files[0], files[0], "--out", whole]) == 1
    assert "8 images are in both" in capsys.readouterr().err


@pytest.mark.parametrize("words, said", [
    (["statistics", "--out", "x.safetensors"], "either --data"),
    (["statistics", "--data", "x", "--shard", "two", "--out", "x.safetensors"], "2/8"),
    (["evaluate", "--real", "a.safetensors", "--fake", "b"], "the other must be one, too"),
])
def test_wrong_usage(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err
