"""Options, their limits, and the optimisers and schedules that they name."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from medtune import config
from medtune.data.record import Record
from medtune.errors import ConfigError, DataError
from medtune.training import state
from medtune.training.loop import check_options
from medtune.training.optimiser import EIGHT_BIT, build_optimizer, build_schedule, optimizer_names
from medtune.training.options import INCIDENTAL, TrainOptions

RECORDS = [Record(Path(f"{index}.png"), "a caption") for index in range(3)]
ONE_SHAPE = {"Muon"}  # takes matrices only


def test_defaults_are_within_their_bounds_and_explained():
    config.check(TrainOptions())
    assert config.from_json(TrainOptions, config.to_json(TrainOptions())) == TrainOptions()
    for name, _, _, facts in config.fields(TrainOptions):
        assert len(facts["help"]) > 10, name
    assert set(INCIDENTAL) < {name for name, *_ in config.fields(TrainOptions)}


@pytest.mark.parametrize(("values", "words"), [
    ({"lr": -1e-4}, ["lr", "-0.0001", "at least 0"]),
    ({"lr": math.nan}, ["lr", "nan", "finite"]),
    ({"steps": 0}, ["steps", "0", "at least 1"]),
    ({"batch": 4}, ["batch is 4", "only 3 images", "3 or less"]),
    ({"batch": 2, "size": 500}, ["500", "multiple of 64", "448"]),
    ({"batch": 2, "size": 32}, ["size", "32", "at least 64"]),
    ({"batch": 2, "warmup": 10, "steps": 5}, ["warmup is 10", "5 steps"]),
    ({"batch": 2, "optimizer": "AdmaW"}, ["'AdmaW'", "did you mean 'AdamW'", "SGD"]),
    ({"precision": "fp8"}, ["precision", "fp8", "fp32, bf16, fp16"]),
    ({"fit": "stretch"}, ["fit", "stretch", "crop, pad, none"]),
    ({"ema": 1.0}, ["ema", "at most"]),
    ({"seed": -1}, ["seed", "at least 0"]),
])
def test_a_bad_value_is_named_with_what_is_allowed(values, words):
    with pytest.raises(ConfigError) as caught:
        check_options(TrainOptions(**values), RECORDS)
    assert all(word in str(caught.value) for word in words), caught.value


def test_repeats_count_for_the_batch():
    check_options(TrainOptions(batch=6), [Record(Path("a.png"), "a", repeats=6)])


def test_no_records_are_refused():
    with pytest.raises(DataError, match="no records"):
        check_options(TrainOptions(), [])


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_of_torch_lowers_a_loss(name):
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = build_optimizer([{"params": [weight], "name": "w"}], TrainOptions(optimizer=name), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.square().sum() < 16


def test_an_unknown_optimizer_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"AdmaW.*did you mean 'AdamW'.*SGD"):
        build_optimizer([], TrainOptions(optimizer="AdmaW"), 1e-3)
    with pytest.raises(ConfigError, match=r"did you mean 'AdamW8bit'"):
        build_optimizer([], TrainOptions(optimizer="AdamW8bits"), 1e-3)
    for name in ("LBFGS", "SparseAdam", "Optimizer", "lr_scheduler"):
        with pytest.raises(ConfigError, match=r"torch.optim has"):
            build_optimizer([], TrainOptions(optimizer=name), 1e-3)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_an_optimizer_that_cannot_take_the_weights_is_a_setting_error():
    with pytest.raises(ConfigError, match="Muon refuses"):
        build_optimizer([{"params": [torch.nn.Parameter(torch.ones(4))]}], TrainOptions(optimizer="Muon"), 1e-3)


def test_weight_decay_and_the_rates_of_groups_reach_the_optimizer():
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "name": "a"},
              {"params": [torch.nn.Parameter(torch.ones(2))], "name": "b", "lr_scale": 0.1},
              {"params": [torch.nn.Parameter(torch.ones(2))], "name": "c", "lr": 5e-6}]
    optimizer = build_optimizer(groups, TrainOptions(weight_decay=0.3, warmup=2), lr=1e-2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-2, 1e-3, 5e-6])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3] * 3
    assert "lr_scale" not in optimizer.param_groups[1]
    assert [set(group) - {"lr", "name", "params"} for group in groups] == [set(), {"lr_scale"}, set()]  # the giver's are as they were
    rates = build_schedule(optimizer, TrainOptions(warmup=2))
    optimizer.step()
    rates.step()
    assert rates.get_last_lr() == pytest.approx([5e-3, 5e-4, 2.5e-6])


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_an_8_bit_optimizer_without_its_package_says_how_to_get_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=rf"{name}.*pip install bitsandbytes.*AdamW"):
        check_options(TrainOptions(optimizer=name, batch=2), RECORDS)


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_an_8_bit_optimizer_keeps_8_bits_and_resumes_to_the_same_bits(name, tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed", exc_type=ImportError)

    def begin():
        drawn = torch.Generator().manual_seed(1)
        weights = {key: torch.nn.Parameter(torch.randn(4096, generator=drawn)) for key in "ab"}  # 4096: the least that it packs
        optimizer = build_optimizer([{"params": list(weights.values()), "name": "w"}], TrainOptions(optimizer=name), lr=1e-2)
        return state.State(weights, optimizer, build_schedule(optimizer, TrainOptions()))

    def step(held):
        held.optimizer.zero_grad()
        sum(weight.square().sum() for weight in held.named.values()).backward()
        held.optimizer.step()
        held.schedule.step()

    whole = begin()
    before = sum(weight.square().sum().item() for weight in whole.named.values())
    for _ in range(2):
        step(whole)
    assert {value.dtype for value in whole.optimizer.state[whole.named["a"]].values() if getattr(value, "shape", ()) == (4096,)} == {
        torch.uint8}
    state.save(tmp_path / "state", whole)
    resumed = begin()
    state.load(tmp_path / "state", resumed)
    for held in (whole, resumed):
        for _ in range(2):
            step(held)
    assert sum(weight.square().sum().item() for weight in whole.named.values()) < before
    assert all(torch.equal(weight, resumed.named[key]) for key, weight in whole.named.items())


@pytest.mark.parametrize(("schedule", "factor"), [
    ("constant", lambda t: 1.0), ("linear", lambda t: 1 - t), ("cosine", lambda t: (1 + math.cos(math.pi * t)) / 2)])
@pytest.mark.parametrize("warmup", [0, 5])
def test_schedules_follow_their_formulas(schedule, factor, warmup):
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.ones(2))]}], TrainOptions(), lr=2.0)
    rates = build_schedule(optimizer, TrainOptions(schedule=schedule, warmup=warmup, steps=20))
    for step in range(20):
        expected = step / warmup if step < warmup else factor((step - warmup) / (20 - warmup))
        assert rates.get_last_lr()[0] == pytest.approx(2 * expected, abs=1e-9), step
        optimizer.step()
        rates.step()
