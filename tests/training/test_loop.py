"""train(): what it computes, what it reports, what it refuses, and how it stops."""

from __future__ import annotations

import json
import math
import resource
import threading
from dataclasses import replace

import pytest
import torch
from medtune.data.image import read_image
from medtune.errors import ConfigError, DataError, MedTuneError, ModelError, TrainingStopped
from medtune.training import preview as preview_module
from medtune.training import trainer as trainer_module
from medtune.training.adapter import read_adapter
from medtune.training.base import load_base
from medtune.training.draws import Draws, Order
from medtune.training.loop import train
from medtune.training.methods.bitfit import BitFit
from medtune.training.methods.full import Full, FullConfig
from medtune.training.methods.lora import LoRA, LoRAConfig
from medtune.training.options import TrainOptions
from safetensors import safe_open
from safetensors.torch import load_file

QUICK = TrainOptions(steps=4, batch=2, size=64, checkpoint_every=2)


@pytest.fixture(scope="module")
def records(phantoms):
    return phantoms[:6]


@pytest.fixture(scope="module")
def undisturbed(records, tmp_path_factory):
    """What a run of QUICK gives, and its progress."""
    infos = []
    runs = tmp_path_factory.mktemp("whole")
    return train(load_base("embedded"), BitFit(), records, QUICK, infos.append, runs=runs, device="cpu"), infos


@pytest.fixture
def whole(undisturbed):
    """What a run of QUICK gives."""
    return undisturbed[0]


@pytest.fixture
def go(records, tmp_path):
    """Train quickly, with changes to the options or to the call."""

    def call(method=None, *, runs="runs", data=None, base=None, on_step=None, resume=True, **options):
        return train(base or load_base("embedded"), method or BitFit(), data or records, replace(QUICK, **options), on_step,
                     runs=tmp_path / runs, resume=resume, device="cpu")

    return call


def same(first, second):
    """Whether two results' adapters hold the same tensors, bit for bit."""
    a, b = load_file(first.adapter), load_file(second.adapter)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# -- what it computes


def test_steps_equal_those_of_a_plain_loop(go, records):
    """Against torch and diffusers by hand: noise, dropped captions, clipping, schedule, weight decay, order."""
    from diffusers import DDPMScheduler

    result = go(Full(), steps=3, seed=7, lr=1e-3, clip=0.05, schedule="cosine", caption_dropout=0.5, weight_decay=0.1)
    base, method = load_base("embedded"), Full()
    method.attach(base, torch.Generator())
    weights = list(base.unet.parameters())
    optimizer = torch.optim.AdamW(weights, weight_decay=0.1)
    scheduler = DDPMScheduler.from_config({key: value for key, value in base.scheduler_config.items() if key[0] != "_"})
    draws, losses, left_out = Draws(Order([1] * 6, 7), 2, (4, 8, 8), 1000, 7, caption_dropout=0.5), [], 0
    for step in range(3):
        draw = draws(step)
        with torch.no_grad():
            latents = torch.cat([base.encode_images(read_image(records[index].image, 64)[None]) for index in draw.indices])
            captions = ["" if drop else records[index].caption for index, drop in zip(draw.indices, draw.dropped)]
            states = torch.cat([base.encode_prompts([caption]) for caption in captions])
        left_out += sum(draw.dropped)
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / 3)) / 2
        noisy = scheduler.add_noise(latents, draw.noise, draw.timesteps)
        loss = (base.unet(noisy, draw.timesteps, encoder_hidden_states=states).sample - draw.noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(weights, 0.05) > 0.05
        optimizer.step()
        losses.append(loss.item())
    assert 0 < left_out < 6
    assert result.losses == pytest.approx(losses, rel=1e-4)
    tensors, expected = load_file(result.adapter), method.export(base)
    assert tensors.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(tensors[key], value, rtol=1e-2, atol=2e-5)


def test_accumulation_equals_the_larger_batch(go):
    whole = go(Full(), batch=4, steps=2, optimizer="SGD", lr=0.01, clip=0.0)
    parts = go(Full(), batch=2, accumulation=2, steps=2, optimizer="SGD", lr=0.01, clip=0.0)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    first, second = load_file(whole.adapter), load_file(parts.adapter)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-3, atol=1e-6)


def test_gradient_checkpointing_changes_memory_alone(go, whole):
    base = load_base("embedded")
    assert go(base=base, gradient_checkpointing=True).losses == pytest.approx(whole.losses, rel=1e-5)
    assert base.unet.is_gradient_checkpointing


def test_the_moving_average_is_what_draws_and_what_is_saved(go, monkeypatch):
    sample, drawing = preview_module.sample_latents, []
    monkeypatch.setattr(preview_module, "sample_latents", lambda base, *rest, **settings: drawing.append(BitFit().export(base)) or
                        sample(base, *rest, **settings))
    base = load_base("embedded")
    plain, averaged = go(lr=1e-2), go(lr=1e-2, ema=0.9, base=base, sample_every=4, sample_steps=1)
    assert plain.losses == averaged.losses and not same(plain, averaged)
    first, second = load_file(plain.adapter), load_file(averaged.adapter)
    size, averaged_size = (sum(value.norm().item() for value in tensors.values()) for tensors in (first, second))
    assert 0.3 * size < averaged_size < 0.99 * size
    tensors = BitFit().export(base)  # and what the base is left with
    assert all(torch.equal(tensors[key], second[key]) and torch.equal(drawing[0][key], second[key]) for key in second)


@pytest.mark.parametrize("disk", ["memory", "disk"])
def test_a_step_never_runs_the_encoders(go, disk):
    base, phases, calls = load_base("embedded"), [], []
    base.vae.encoder.register_forward_hook(lambda *_: calls.append(phases[-1] if phases else "cache"))
    base.text_encoder.register_forward_hook(lambda *_: calls.append("text"))
    go(base=base, cache=disk, on_step=lambda info: phases.append(info.phase))
    texts = len(set(calls) - {"cache", "text"})
    assert texts == 0 and "train" in phases
    assert "train" not in phases[:6] and phases[:6] == ["cache"] * 6


def test_cache_on_disk_or_in_memory_gives_the_same_adapter(go):
    first = go(flips=True, runs="a", cache="disk")
    assert same(first, go(flips=True, runs="b", cache="memory"))


def test_a_trained_text_encoder_is_run_in_each_step(go):
    both = Full(FullConfig(parts="unet+text-encoder", lr_text_encoder=1e-3))
    result = go(both, lr=1e-3, steps=2, gradient_checkpointing=True, sample_every=4, sample_steps=1)
    changes = {key: value for key, value in load_file(result.adapter).items() if key.startswith("text_encoders.")}
    assert max(value.abs().max() for value in changes.values()) > 1e-4
    assert result.losses[0] == pytest.approx(go(Full(), steps=1).losses[0], rel=1e-5)


def test_an_inpainting_base_gets_its_further_channels(go):
    base = load_base("embedded")
    narrow = base.unet.conv_in
    base.unet.conv_in = torch.nn.Conv2d(9, narrow.out_channels, 3, padding=1).requires_grad_(False)
    base.unet.conv_in.bias.data.copy_(narrow.bias)
    base.channels, seen = 9, []
    base.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    go(base=base, steps=2, sample_every=2, sample_steps=1)
    assert {part.shape[1] for part in seen} == {9} and len(seen) >= 3
    assert all((part[:, 4] == 1).all() for part in seen)


# -- precision and the process


def test_precisions_take_turns_in_one_process(go, whole):
    bf16, fp32 = go(precision="bf16"), go()
    assert bf16.losses != fp32.losses
    assert bf16.losses == pytest.approx(fp32.losses, rel=0.05)
    assert same(fp32, whole)


def test_bf16_on_a_processor_without_it_is_said(go, monkeypatch):
    monkeypatch.setattr("medtune.training.machine._fast_bf16", lambda: False)
    assert any("bf16 is slower" in notice for notice in go(precision="bf16", steps=1).notices)


def test_fp16_on_the_processor_is_refused(go):
    with pytest.raises(ConfigError, match=r"fp16.*GPU.*fp32 or bf16"):
        go(precision="fp16")


def test_accelerates_singletons_and_the_random_state_are_as_before(go):
    from accelerate.state import AcceleratorState, PartialState

    PartialState._shared_state["marker"] = 1
    try:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        go(LoRA(LoRAConfig(dropout=0.5)), steps=1, sample_every=1, sample_steps=1)
        assert torch.equal(torch.rand(3), expected)
        assert PartialState._shared_state == {"marker": 1} and AcceleratorState._shared_state == {}
    finally:
        PartialState._shared_state.clear()


def test_the_base_is_left_usable(go):
    base = load_base("embedded")
    go(base=base, precision="bf16", steps=1)
    assert not {"forward", "_original_forward", "_is_accelerate_prepared"} & vars(base.unet).keys()
    assert base.unet(torch.zeros(1, 4, 8, 8), 0, encoder_hidden_states=torch.zeros(1, 77, base.unet.config.cross_attention_dim)
                     ).sample.dtype == torch.float32


def test_a_second_training_in_the_process_is_refused(go):
    def start_another(info):
        go(seed=1)

    with pytest.raises(MedTuneError, match="another training is running in this process"):
        go(on_step=start_another)
    go(steps=1)


def test_it_runs_in_a_plain_thread_and_under_no_grad(go, whole):
    results = []

    def work():
        with torch.no_grad():
            results.append(go())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert same(results[0], whole)


def test_inference_mode_is_refused_with_the_remedy(go):
    base = load_base("embedded")
    with torch.inference_mode():
        with pytest.raises(MedTuneError, match=r"inference_mode\(False\)"):
            go(base=base)
        frozen = load_base("embedded")
    with pytest.raises(ModelError, match=r"loaded in torch.inference_mode"):
        go(base=frozen)


def test_a_trained_base_and_a_half_precision_base_are_refused(go):
    base = load_base("embedded")
    go(base=base, steps=1)
    with pytest.raises(ModelError, match="trained already"):
        go(base=base, seed=1)
    with pytest.raises(ModelError, match="float32"):
        go(base=load_base("embedded", dtype=torch.float16))


# -- what it reports and writes


def test_progress_counts_the_steps_and_what_is_left(undisturbed):
    result, infos = undisturbed
    assert [info.phase for info in infos] == ["cache"] * 6 + ["train", "train", "save", "train", "train", "save"]
    steps = [info for info in infos if info.phase == "train"]
    assert [info.step for info in steps] == [1, 2, 3, 4] and {info.total for info in steps} == {4}
    assert [info.loss for info in steps] == result.losses
    assert all(info.steps_per_second > 0 and info.grad_norm > 0 and info.lr == BitFit.facts.lr for info in steps)
    assert steps[0].remaining_s > 0 and steps[-1].remaining_s == 0
    assert min(result.losses) <= steps[-1].smoothed <= max(result.losses)


def test_the_run_folder_says_what_was_done(go, records):
    result = go(LoRA(LoRAConfig(rank=4)), lr=2e-3, sample_every=3, sample_steps=1, sample_prompts="one\n\n two \n")
    assert result.adapter.parent == result.run and result.run.name.startswith("lora-") and result.finished and not result.reused
    info = json.loads((result.run / "run.json").read_text())
    assert info["finished"] and info["config"]["rank"] == 4 and info["options"]["lr"] == info["lr"] == 2e-3
    assert info["images"] == len(records) and info["trained"] > 1000 and info["seconds"] > 0
    lines = [json.loads(line) for line in (result.run / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and [line["loss"] for line in lines] == result.losses
    assert sorted(path.name for path in (result.run / "samples").iterdir()) == [
        "step-000003-0.png", "step-000003-1.png", "step-000004-0.png", "step-000004-1.png"]
    assert not (result.run / "checkpoint.safetensors").exists()
    header = read_adapter(result.adapter).header
    assert header["medtune.method"] == "lora" and json.loads(header["medtune.config"])["rank"] == 4
    assert header["medtune.base_hash"] == info["base"] and header["medtune.data_hash"] == info["data"]
    assert json.loads(header["medtune.options"])["lr"] == 2e-3
    assert header["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert header["ss_steps"] == "4" and header["ss_learning_rate"] == "0.002"


def test_pictures_change_nothing_and_come_from_the_same_noise(go):
    pictured = go(LoRA(LoRAConfig(dropout=0.5)), sample_every=1, sample_steps=1, lr=1e-7, ema=0.5)
    assert same(pictured, go(LoRA(LoRAConfig(dropout=0.5)), lr=1e-7, ema=0.5))
    pictures = [read_image(pictured.run / "samples" / f"step-00000{step}-0.png", 64) for step in (1, 4)]
    torch.testing.assert_close(*pictures, rtol=0, atol=0.02)
    assert pictures[0].std() > 0.01


def test_tensorboard_gets_the_figures(go):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = go(tensorboard=True, steps=2)
    events = EventAccumulator(str(result.run / "tensorboard"))
    events.Reload()
    assert [round(event.value, 5) for event in events.Scalars("loss")] == [round(loss, 5) for loss in result.losses]


def test_a_finished_run_is_found_again(go, monkeypatch):
    first = go(steps=2)
    monkeypatch.setattr(trainer_module.Trainer, "run_to_the_end", lambda self: pytest.fail("it was trained again"))
    again = go(steps=2, checkpoint_every=3, cache="disk")
    assert again.reused and again.adapter == first.adapter and again.losses == first.losses and again.notices == first.notices


def test_starting_anew_trains_again(go):
    first = go(steps=2)
    before = load_file(first.adapter)
    stamp = first.adapter.stat().st_mtime_ns
    again = go(steps=2, resume=False)
    assert not again.reused and again.adapter.stat().st_mtime_ns > stamp
    assert all(torch.equal(before[key], value) for key, value in load_file(again.adapter).items())


# -- what it refuses


def test_the_batch_must_fit_the_data(go, records):
    with pytest.raises(ConfigError, match=r"batch is 7.*only 6 images"):
        go(batch=7)
    assert len(go(batch=1, data=records[:1], steps=2).losses) == 2


def test_a_negative_learning_rate_is_refused(go):
    with pytest.raises(ConfigError, match=r"lr is -0.001.*at least 0"):
        go(lr=-1e-3)


def test_long_captions_are_said_or_refused(go, records):
    long = [replace(record, caption="nodule in the left upper lung field " * 20) if index < 2 else record
            for index, record in enumerate(records)]
    with pytest.raises(DataError, match=r"2 captions are longer than the 77 tokens.*'nodule in the left.*Shorten"):
        go(data=long, long_captions="refuse")
    said = [notice for notice in go(data=long, steps=1).notices if "were cut" in notice]
    assert len(said) == 1 and said[0].startswith("2 captions") and "tokens" in said[0]
    assert not [notice for notice in go(steps=1).notices if "were cut" in notice]


def test_a_rank_larger_than_a_layer_is_refused_before_anything_is_encoded(go):
    with pytest.raises(ConfigError, match="rank is 1000"):
        go(LoRA(LoRAConfig(rank=1000)), on_step=lambda info: pytest.fail("too late"))


# -- how it stops


def spoil(monkeypatch, at, value=math.nan, image=1):
    """Make the loss of one image of the batch not finite in the given step (counted from 1)."""
    whole, calls = trainer_module.denoising_loss, [0]

    def loss(*arguments, **settings):
        calls[0] += 1
        error = whole(*arguments, **settings)
        return error * torch.tensor([value if index == image else 1.0 for index in range(len(error))]) if calls[0] == at else error

    monkeypatch.setattr(trainer_module, "denoising_loss", loss)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_image_and_advice(go, records, monkeypatch, whole, value):
    with monkeypatch.context() as patch:
        spoil(patch, 4, value)
        with pytest.raises(TrainingStopped, match=r"not finite at step 4.*Lower the learning rate.*last good state") as caught:
            go()
    spoiled = Order([1] * 6, 0)(6, 2)[1]
    named = [record.image.name for record in records if str(record.image) in str(caught.value)]
    assert named == [records[spoiled].image.name]
    steps = []
    resumed = go(on_step=lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [4]  # the state after step 3 had been kept
    assert same(resumed, whole)


def test_weights_that_are_not_finite_never_replace_a_checkpoint(go, whole):
    base = load_base("embedded")

    def spoil_weights(info):
        if info.phase == "train" and info.step == 3:
            next(iter(BitFit().named(base).values())).data[0] = math.nan
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(base=base, on_step=spoil_weights)
    steps = []
    resumed = go(on_step=lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [3, 4] and same(resumed, whole)


def limited(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))


@pytest.mark.parametrize("steps", [5, 4])
def test_a_full_disk_keeps_the_last_checkpoint(go, tmp_path, whole, steps):
    """From step 3 on no file may grow beyond 20 kB, as on a full disk: what fails is the checkpoint or the adapter of step 4."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    try:
        with pytest.raises(MedTuneError, match=r"cannot write.*(checkpoint|adapter)\.safetensors.*pace"):
            go(steps=steps, on_step=lambda info: limited(20_000) if (info.phase, info.step) == ("train", 3) else None)
    finally:
        limited(unlimited)
    (folder,) = (tmp_path / "runs").iterdir()
    with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["medtune.state"])["step"] == 2
    assert not (folder / "adapter.safetensors").exists() and not list(folder.glob(".*tmp*"))
    if steps == QUICK.steps:
        assert same(go(), whole)
