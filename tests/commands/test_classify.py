"""`medtune classify` as a user meets it."""

from __future__ import annotations

import json

import pytest
import torch
from medtune.__main__ import main
from medtune.data.image_set import ImageSet
from medtune.evaluation.downstream.result import Downstream

QUICK = ["--network", "test_vit", "--size", "32", "--steps", "2", "--batch", "4", "--seeds", "1", "--fractions", "50",
         "--repeats", "100", "--unchecked-generator", "--no-pictures"]


def draw(folder, count, seed, patients=True, split=None):
    """Noisy images of two kinds, each image of its own patient, or synthetic."""
    generator, image_set = torch.Generator().manual_seed(seed), ImageSet(folder)
    for index in range(count):
        kind = ("Bright", "Dark")[index % 2]
        image = 0.4 + 0.2 * (kind == "Bright") + 0.15 * torch.randn((1, 32, 32), generator=generator)
        image_set.append(image.clamp(0, 1).expand(3, -1, -1), kind, (kind,), split=split,
                         patient=f"{folder.name}-{index}" if patients else None, seed=None if patients else index)
    return str(folder)


@pytest.fixture
def folders(tmp_path):
    return [draw(tmp_path / "real", 12, 0), draw(tmp_path / "drawn", 6, 1, patients=False), draw(tmp_path / "test", 8, 2)]


def words(real, drawn, test, out, *more):
    return ["classify", "--real", real, "--test", test, "--synthetic", drawn, "--out", str(out), *QUICK, *more]


def test_it_prints_and_keeps_the_result(folders, tmp_path, capsys):
    command = words(*folders, tmp_path / "out", "--protocols", "real-only,real+synthetic", "--ratios", "1")
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found == Downstream.read(tmp_path / "out" / "downstream.json").to_json()
    assert found["contenders"] == ["real-only", "real+synthetic 1:1"] and len(found["trials"]) == 2
    assert "NOT checked" in said.err and "2/2" in said.err
    assert main(command) == 0  # found again
    text = capsys.readouterr().out
    assert "real+synthetic 1:1" in text and "p (Holm)" in text and "50 %" in text


def test_leaks_fail_and_wrong_settings_are_wrong_usage(folders, tmp_path, capsys):
    real, drawn, _ = folders
    assert main(words(real, drawn, real, tmp_path / "out")) == 1
    assert "12 patients with 12 images of the test set" in capsys.readouterr().err
    assert main([word for word in words(*folders, tmp_path / "out") if word != "--unchecked-generator"]) == 1
    assert "which images the generator" in capsys.readouterr().err
    assert main(words(*folders, tmp_path / "out", "--fractions", "200")) == 2
    assert "'200' is outside of what is allowed" in capsys.readouterr().err
    assert main(words(*folders, tmp_path / "out", "--synthetic", drawn)) == 2
    assert "each needs a name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sets_have_names_and_the_generators_data_are_looked_at(folders, tmp_path, capsys):
    real, drawn, test = folders
    command = words(*folders, tmp_path / "out", "--protocols", "synthetic-only", "--json")
    command.remove("--unchecked-generator")
    command[command.index("--synthetic") + 1] = f"lora={drawn}"
    assert main([*command, "--synthetic", f"full={draw(tmp_path / 'more', 6, 3, patients=False)}", "--generator-data", real]) == 0
    assert json.loads(capsys.readouterr().out)["contenders"] == ["synthetic-only (lora)", "synthetic-only (full)"]
    assert main([*command, "--generator-data", test]) == 1
    assert "generator's and the test set share" in capsys.readouterr().err
