"""A checkpoint of a small model, with every optimiser of torch: saved, loaded, and gone on with bit for bit."""

from __future__ import annotations

import json
import resource
from types import SimpleNamespace

import pytest
import torch
from medtune.errors import MedTuneError, ModelError
from medtune.training import state
from medtune.training.ema import MovingAverage
from medtune.training.optimiser import build_optimizer, build_schedule, optimizer_names
from medtune.training.options import TrainOptions
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def make(optimizer="AdamW", seed=0):
    """The state of a model of two matrices, in two groups."""
    source = torch.Generator().manual_seed(seed)
    named = {name: torch.nn.Parameter(torch.randn(3, 4, generator=source)) for name in ("a", "b.c")}
    options = TrainOptions(optimizer=optimizer, schedule="cosine", warmup=2, steps=10)
    groups = [{"params": [weight], "name": name, "lr_scale": 0.5} for name, weight in named.items()]
    made = build_optimizer(groups, options, 1e-2)
    return state.State(named, made, build_schedule(made, options), average=MovingAverage(named, 0.9))


def go_on(held, to):
    while held.step < to:
        held.optimizer.zero_grad()
        sum((weight - held.step).square().sum() for weight in held.named.values()).backward()
        held.optimizer.step()
        held.schedule.step()
        held.step += 1
        held.average.update(held.step)
    return held


@pytest.mark.parametrize("name", optimizer_names())
def test_what_is_loaded_goes_on_as_if_it_had_never_stopped(tmp_path, name):
    held = go_on(make(name), 3)
    held.seconds = 1.5
    state.save(tmp_path / "checkpoint", held)
    loaded = make(name, seed=1)
    assert state.load(tmp_path / "checkpoint", loaded) == "cpu"
    assert loaded.step == 3 and loaded.seconds == 1.5
    go_on(held, 6), go_on(loaded, 6)
    for key, weight in held.named.items():
        assert torch.equal(loaded.named[key], weight)
        assert torch.equal(loaded.average.shadow[key], held.average.shadow[key])
    assert loaded.schedule.get_last_lr() == held.schedule.get_last_lr()


def test_the_gradient_scaler_is_kept(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    held, other = make(), make()
    held.scaler, other.scaler = scaler, torch.amp.GradScaler("cpu")
    state.save(tmp_path / "checkpoint", held)
    state.load(tmp_path / "checkpoint", other)
    assert other.scaler.state_dict()["scale"] == 64


def facts(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["medtune.state"])


def with_facts(path, **changes):
    save_file(load_file(path), path, metadata={"medtune.state": json.dumps({**facts(path), **changes})})


def other_weights(path):
    tensors, kept = load_file(path), facts(path)
    tensors["weight/other"] = tensors.pop("weight/a")
    save_file(tensors, path, metadata={"medtune.state": json.dumps(kept)})


DAMAGE = {"cut": lambda path: path.write_bytes(path.read_bytes()[:-8]), "empty": lambda path: path.write_bytes(b""),
          "foreign": lambda path: save_file({"a": torch.zeros(1)}, path), "weights": other_weights,
          "format": lambda path: with_facts(path, format=0)}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_cannot_be_used_is_said(tmp_path, damage):
    path = tmp_path / "checkpoint.safetensors"
    state.save(path, go_on(make(), 2))
    DAMAGE[damage](path)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors cannot be used.*Delete it to start this run anew"):
        state.load(path, make())


def test_a_full_disk_keeps_the_former_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    held = go_on(make(), 2)
    state.save(path, held)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(MedTuneError, match=r"(?s)cannot write.*checkpoint\.safetensors.*intact"):
            state.save(path, go_on(held, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert facts(path)["step"] == 2 and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_only_what_json_holds_is_kept_of_a_schedule():
    plain = state._plain({"a": 1, "b": [0.5, None], "c": SimpleNamespace()})
    assert plain == {"a": 1, "b": [0.5, None]}
