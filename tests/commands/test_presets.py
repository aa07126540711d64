"""Presets on the command line: listing, and what wins over them."""

from __future__ import annotations

import json

import pytest
import torch
from medtune.__main__ import _parser, main
from medtune.commands.inputs import read_data
from medtune.commands.sample import prompts
from medtune.commands.train import requested
from medtune.config import read_flags
from medtune.data.image import save_image
from medtune.data.phantom import write_phantoms
from medtune.training.method import METHODS
from medtune.training.preset import PRESETS
from medtune.training.sample import SampleOptions

LORA = "pixels-under-pressure/lora"


def arguments(*words: str):
    return _parser(list(words)).parse_args(list(words))


def train_arguments(*words: str):
    return arguments("train", "--data", "x", *words)


def test_presets_are_listed(capsys):
    assert main(["methods", "--presets"]) == 0
    text = capsys.readouterr().out
    assert all(f"{name} " in text for name in PRESETS) and "Stable Diffusion 2.x" in text
    assert main(["methods", "--presets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["preset"] for one in listed] == list(PRESETS)
    assert main(["methods", "--presets", LORA]) == 0
    text = capsys.readouterr().out
    assert "config: rank=8 alpha=16.0" in text and "lr=0.0001" in text and "notes: " in text and "TehraniNasab" in text
    assert main(["methods", "--presets", LORA, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"] == {"rank": 8, "alpha": 16.0}


def test_an_unknown_preset_is_wrong_usage(capsys):
    for words in (["methods", "--presets", "pixels"], ["train", "--data", "x", "--preset", "pixels"]):
        assert main(words) == 2
        assert "unknown preset 'pixels'" in capsys.readouterr().err


def test_methods_are_counted_on_a_base(capsys):
    assert main(["methods", "--base", "embedded", "--json"]) == 0
    listed = {one["method"]: one["trained values"] for one in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(METHODS) and listed["bitfit"] < listed["full"] < 20_000_000
    assert main(["methods", "--base", "embedded"]) == 0
    assert f"{listed['full']:,}" in capsys.readouterr().out
    assert main(["methods"]) == 0
    assert METHODS["lora"].facts.cost in capsys.readouterr().out
    assert main(["methods", "--base", "sd3"]) == 1
    assert "no base 'sd3'; give sd1" in capsys.readouterr().err


def test_flags_win_over_the_preset():
    preset, method, options = requested(train_arguments("--preset", LORA))
    assert (preset.name, method.name, method.config.rank, options.lr, options.batch) == (LORA, "lora", 8, 1e-4, 4)
    _, method, options = requested(train_arguments("--preset", LORA, "--set", "rank=4", "--lr", "3e-4", "--batch", "1"))
    assert (method.config.rank, method.config.alpha, options.lr, options.batch) == (4, 16.0, 3e-4, 1)
    _, _, options = requested(train_arguments("--preset", LORA, "--posterior", "mode", "--accumulation", "1"))
    assert (options.posterior, options.accumulation) == ("mode", 1)  # our defaults, given all the same
    _, method, _ = requested(train_arguments("--preset", "pixels-under-pressure/unet+vae"))
    assert (method.name, method.config.parts) == ("full", "unet+vae")
    _, method, options = requested(train_arguments("--preset", LORA, "--method", "bitfit"))
    assert (method.name, options.lr) == ("bitfit", 1e-4)


def test_without_a_preset_nothing_changes():
    _, method, options = requested(train_arguments())
    assert method.name == "lora" and options.lr == 0 and options.posterior == "mode"


def test_sampling_by_a_preset():
    given = arguments("sample", "--out", "x", "--preset", "chest-distillation/frozen", "--prompt", "effusion", "--guidance", "2")
    options = read_flags(SampleOptions, given, PRESETS[given.preset].sampling)
    assert (options.steps, options.guidance) == (75, 2.0)


def test_prompts_of_closed_lists_and_of_tables(tmp_path):
    drawn = prompts(arguments("sample", "--out", "x", "--balanced", "isic", "--count", "2"), seed=5)
    assert len(drawn) == 16 and drawn[0].text == "a dermoscopic image with melanoma (MEL)" and drawn[-1].seed == 20
    (tmp_path / "t.csv").write_text("labels,count\nFracture,1\n")
    table = ("sample", "--out", "x", "--table", str(tmp_path / "t.csv"))
    assert prompts(arguments(*table), 0)[0].text == "Chest X-ray showing Fracture"
    assert prompts(arguments(*table, "--preset", LORA), 0)[0].text == "Normal chest X-ray with no significant findings"
    assert prompts(arguments(*table, "--preset", LORA, "--template", "labels"), 0)[0].text == "Fracture"


@pytest.fixture
def tables(tmp_path):
    """A CheXpert table with a finding beyond the study's eight, and a folder a class."""
    for name in ("cx/a.png", "classes/nevus/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        save_image(torch.zeros(1, 16, 16), tmp_path / name)
    (tmp_path / "cx" / "train.csv").write_text("Path,Edema,Fracture\na.png,,1.0\n")
    return tmp_path


def test_captions_by_the_preset_only_where_they_are_of_its_kind(tables):
    def caption(folder: str, *words: str) -> str:
        path = tables / folder
        return read_data(arguments("train", "--data", str(path), *words), path, PRESETS[LORA].caption)[0].caption

    assert caption("cx") == "Normal chest X-ray with no significant findings"
    assert caption("cx", "--source", "chexpert", "--source-option", "caption=chest-xray") == "Chest X-ray showing Fracture"
    assert caption("classes") == "nevus"


def test_training_by_a_preset_on_the_embedded_base(tmp_path, capsys, base_file):
    write_phantoms(tmp_path / "data", 3, size=64)
    assert main(["train", "--data", str(tmp_path / "data"), "--preset", LORA, "--steps", "1", "--batch", "1", "--accumulation", "1",
                 "--size", "64", "--device", "cpu", "--runs", str(tmp_path / "runs"), "--json"]) == 0
    done = capsys.readouterr()
    assert f"note: preset {LORA} is for Stable Diffusion 1.x" in done.err
    told = json.loads(next((tmp_path / "runs").glob("lora-*/run.json")).read_text())
    assert told["config"]["rank"] == 8 and told["options"]["lr"] == 1e-4 and told["options"]["posterior"] == "sample"
    assert json.loads(done.out)["adapter"].endswith("adapter.safetensors")
