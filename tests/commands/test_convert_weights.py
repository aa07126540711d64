"""medtune convert-weights: tensors out of what torch saves, nothing run, nothing half written."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from medtune.__main__ import main
from medtune.errors import Missing, ModelError
from medtune.evaluation.networks.pickles import read_pickled
from medtune.evaluation.networks.weights import read_tensors
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn


class Small(nn.Module):
    """Layers with parameters, buffers, tied weights, a view and a list of plain things."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(OrderedDict(first=nn.Linear(3, 4), norm=nn.BatchNorm1d(4), last=nn.Linear(4, 3)))
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.layers.first.weight
        self.register_buffer("part", torch.arange(12.0).reshape(3, 4)[1:, ::2])
        self.register_buffer("weak", torch.ones(2, dtype=torch.float16))
        self.names = ["a", {"b": (1, 2)}]

    def forward(self, x):
        return self.layers(x) + self.tied(x)[:, :3]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Small().eval()


def save_module(network, path):
    torch.save(network, path)


def save_old(network, path):
    torch.save(network, path, _use_new_zipfile_serialization=False)


def save_state(network, path):
    torch.save(network.state_dict(), path)


def save_checkpoint(network, path):
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, "state_dict": network.state_dict()}, path)


def save_script(network, path):
    torch.jit.script(network).save(str(path))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("save", [save_module, save_old, save_state, save_checkpoint, save_script])
def test_every_tensor_arrives(save, network, tmp_path, capsys):
    save(network, tmp_path / "in.pt")
    assert main(["convert-weights", str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found, wanted = load_file(tmp_path / "out.safetensors"), network.state_dict()
    assert found.keys() == wanted.keys() and told["tensors"] == len(wanted) and told["foreign"] == ([] if save not in FOREIGN else [
        f"{Small.__module__}.Small"])
    for name, value in wanted.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata()["medtune.source"] == "in.pt" and len(file.metadata()["medtune.source_sha256"]) == 64
    assert read_tensors(tmp_path / "out.safetensors").keys() == wanted.keys()


FOREIGN = (save_module, save_old)  # the class of the tests' own network


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_the_file_is_run(zipped, tmp_path, capsys):
    harm = tmp_path / "harm"
    torch.save({"weight": torch.ones(3), "harm": Harm(harm), "also": pickle.loads}, tmp_path / "in.pt",
               _use_new_zipfile_serialization=zipped)
    assert main(["convert-weights", str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors")]) == 0
    text = capsys.readouterr().err
    assert not harm.exists() and f"{os.system.__module__}.system" in text and "none of it was followed" in text
    assert load_file(tmp_path / "out.safetensors").keys() == {"weight"}
    with pytest.raises(ModelError, match="pickle of more than tensors"):
        read_tensors(tmp_path / "in.pt")
    torch.load(tmp_path / "in.pt", weights_only=False)
    assert harm.exists()  # what torch itself would have done


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty"), (b"<!DOCTYPE html><html>404", "is a web page"), (b"version https://git-lfs.github.com/spec/v1", "LFS pointer"),
    (b"PK\x03\x04 and no more", "truncated"), (b"\x80\x02.", "truncated"), (b"hello", "holds no weights"),
    ((300).to_bytes(8, "little") + b'{"a": 1}', "truncated or damaged")])
def test_what_is_no_weights_is_said(content, message, tmp_path, capsys):
    (tmp_path / "in.pt").write_bytes(content)
    assert main(["convert-weights", str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out.safetensors").exists()
    with pytest.raises(ModelError, match=r"in\.pt"):
        read_tensors(tmp_path / "in.pt")


@pytest.mark.parametrize("save", [save_module, save_old, save_state])
def test_a_file_that_was_cut_short_is_refused_wherever_it_was_cut(save, network, tmp_path):
    save(network, tmp_path / "in.pt")
    whole = (tmp_path / "in.pt").read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        (tmp_path / "cut.pt").write_bytes(whole[:int(len(whole) * share)])
        with pytest.raises(ModelError, match="truncated"):
            read_pickled(tmp_path / "cut.pt")
        with pytest.raises(ModelError, match=r"cut\.pt"):
            read_tensors(tmp_path / "cut.pt")


def test_wrong_usage(network, tmp_path, capsys):
    save_state(network, tmp_path / "in.pt")
    out = tmp_path / "out.safetensors"
    assert main(["convert-weights", str(tmp_path / "in.pt"), str(tmp_path / "out.bin")]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err
    out.write_bytes(b"kept")
    assert main(["convert-weights", str(tmp_path / "in.pt"), str(out)]) == 2
    assert "is there already" in capsys.readouterr().err and out.read_bytes() == b"kept"
    assert main(["convert-weights", str(tmp_path / "in.pt"), str(out), "--force"]) == 0
    assert main(["convert-weights", str(out), str(tmp_path / "again.safetensors")]) == 1
    assert "needs no conversion" in capsys.readouterr().err
    with pytest.raises(Missing, match="there is no file"):
        read_pickled(tmp_path / "nowhere.pt")


def test_extractors_say_what_is_ready_and_what_to_put_where(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDTUNE_WEIGHTS", str(tmp_path))
    assert main(["extractors"]) == 0
    text = capsys.readouterr().out
    for name in ("inception", "xrv", "timm", "open-clip", "biomedclip", "dinov2", "rad-dino"):
        lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert len(lines) == 2 and lines[0].endswith("not ready") and lines[1].startswith(f"{name} is not ready: "), name
    assert f"into {tmp_path}" in text and "medtune convert-weights inception-2015-12-05.pt" in text
    assert main(["extractors", "--json"]) == 0
    states = {entry["extractor"]: entry["state"] for entry in json.loads(capsys.readouterr().out)}
    assert states["in-domain"] == "ready" and "into" in states["inception"]
