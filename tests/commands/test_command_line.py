"""The command line as a user meets it: help, exit status, where results and progress go."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from medtune.__main__ import main
from medtune.commands import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_parses(verb, capsys):
    from medtune.__main__ import _parser

    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    example = text.split("example:")[1].strip().splitlines()[0].split()
    assert example[:2] == ["medtune", verb]
    _parser(example[1:]).parse_args(example[1:])


def test_wrong_usage_is_2(capsys):
    for words in (["trane"], ["train"], ["train", "--data", "x", "--steps", "many"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
    assert main(["train", "--data", "x", "--method", "lorra"]) == 2
    assert "did you mean 'lora'" in capsys.readouterr().err
    assert main(["train", "--data", "x", "--method", "lora", "--set", "rank=0"]) == 2
    assert "rank is 0" in capsys.readouterr().err


def test_a_failure_is_1_and_names_the_culprit(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path / "nowhere"), "--method", "lora"]) == 1
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


def test_lists_are_json_on_request(capsys):
    for verb, name in (("methods", "lora"), ("metrics", "frechet"), ("extractors", "in-domain")):
        assert main([verb, "--json"]) == 0
        entries = {next(iter(entry.values())): entry for entry in json.loads(capsys.readouterr().out)}
        assert name in entries and isinstance(entries[name]["options"], list)
        assert main([verb]) == 0
        assert name in capsys.readouterr().out


def test_results_on_stdout_progress_on_stderr(tmp_path, capsys):
    folder = tmp_path / "phantoms"
    assert main(["phantom", str(folder), "--count", "3", "--size", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(folder), "images": 3}


def fake_torchaudio(folder):
    """What pip leaves of a torchaudio that was built for another torch, and that refuses to be imported with this one."""
    (folder / "torchaudio").mkdir(parents=True)
    (folder / "torchaudio" / "__init__.py").write_text("raise OSError('libtorchaudio.so: undefined symbol: _ZN3c10')\n")
    info = folder / "torchaudio-2.11.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\nRequires-Dist: torch==2.11.0\n")


def test_the_doctor_names_a_torchaudio_that_does_not_match(tmp_path):
    fake_torchaudio(tmp_path)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run([sys.executable, "-m", "medtune", "doctor", "--json"], capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": path})
    assert run.returncode == 1, run.stderr
    (finding,) = [one for one in json.loads(run.stdout) if one["topic"] == "torchaudio"]
    assert finding["state"] == "bad" and "built for torch 2.11.0" in finding["text"] and "undefined symbol" in finding["text"]
    assert "pip uninstall torchaudio" in finding["remedy"] and "torchaudio==2.11.0" in finding["remedy"]


def test_the_doctor_speaks_where_torchaudio_is_absent(monkeypatch):
    from medtune.commands import doctor

    monkeypatch.setattr(doctor, "installed", lambda name: None)
    states = {one.topic: one for one in doctor.examine()}
    assert states["torch"].state == "bad" and states["torch"].remedy == "pip install torch"
    assert states["ray"].state == "note"
