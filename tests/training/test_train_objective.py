"""train() with every objective: what it computes, what comes of it, and that a killed run goes on bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from medtune.data.record import Record
from medtune.errors import ConfigError, DataError
from medtune.training import prior
from medtune.training.adapter import read_adapter
from medtune.training.base import load_base
from medtune.training.batches import Batches
from medtune.training.cache import cache_latents, cache_text
from medtune.training.draws import Draws, Order, derive_seed
from medtune.training.encoding import Prepared
from medtune.training.inflate import inflate
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.objective import ObjectiveOptions, cumulative_alphas
from medtune.training.options import TrainOptions
from safetensors.torch import load_file

QUICK = TrainOptions(steps=4, batch=2, size=64, lr=1e-3, checkpoint_every=2, caption_dropout=0.3, flips=True, seed=3, cache="disk")

# name -> objective, method with its settings, the base's prediction
PRIOR = ObjectiveOptions(prior_weight=0.5, class_prompt="a chest X-ray", class_images=3, class_steps=1)
OBJECTIVES = {
    "levels": (ObjectiveOptions(weighting="min-snr", noise_offset=0.1, input_perturbation=0.1), "bitfit", {}, None),
    "debiased-masked": (ObjectiveOptions(weighting="debiased", masked=True, outside_weight=0.1), "bitfit", {}, None),
    "zero-terminal": (ObjectiveOptions(zero_terminal_snr=True), "bitfit", {}, "v_prediction"),
    "prior": (PRIOR, "lora", {"dropout": 0.3}, None),
    "vae": (ObjectiveOptions(), "full", {"parts": "vae"}, None),
    "everything": (replace(PRIOR, masked=True), "full", {"parts": "unet+text-encoder+vae"}, None),
    "inpainting": (ObjectiveOptions(inpainting="random", inflate=True, mask_variants=2), "lora", {}, None),
    "lesion": (ObjectiveOptions(inpainting="lesion", inflate=True, mask_variants=2, masked=True), "bitfit", {}, None),
}

KILLER = """
import json, os, signal, sys
from pathlib import Path
import torch
import peft
from diffusers import AutoencoderTiny, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from transformers import CLIPTextConfig, CLIPTextModel
from medtune.data.record import Record
from medtune.data.record import Box
from medtune.training.base import load_base
from medtune.training.inflate import inflate
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.objective import ObjectiveOptions
from medtune.training.options import TrainOptions

job = json.load(sys.stdin)
torch.set_num_threads(job["threads"])

def kill(info):
    if (info.phase, info.step) == ("train", 3):
        os.kill(os.getpid(), signal.SIGKILL)

def work(objective, name, config, prediction, runs):
    records = [Record(Path(image), caption, mask=mask and Path(mask), boxes=tuple(Box(*box) for box in boxes))
               for image, caption, mask, boxes in job["records"]]
    objective["mask_shapes"] = tuple(objective["mask_shapes"])
    train(load_base(job["base"], prediction=prediction), METHODS[name](METHODS[name].Config(**config)), records,
          TrainOptions(**job["options"]), kill, objective=ObjectiveOptions(**objective), runs=runs, device="cpu")

for arguments in job["jobs"]:
    child = os.fork()  # nothing was computed yet in this process: its threads are not there to be lost
    if not child:
        work(*arguments)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def records(phantoms):
    """Four phantoms with findings, and so with masks and boxes."""
    return [Record(record.image, record.caption, mask=record.mask, boxes=record.boxes) for record in phantoms if record.mask][:4]


@pytest.fixture
def go(records, tmp_path):
    """Train quickly: an objective, a method's name and settings, changes to the options or to the call."""

    def call(objective=None, name="bitfit", settings=None, *, runs=None, base=None, prediction=None, on_step=None, **options):
        method = METHODS[name](METHODS[name].Config(**(settings or {})))
        return train(base or load_base("embedded", prediction=prediction), method, records, replace(QUICK, **options), on_step,
                     objective=objective, runs=runs or tmp_path / "runs", device="cpu")

    return call


def same(first, second):
    """Whether two results' files hold the same tensors, bit for bit."""
    if first.products.keys() != second.products.keys():
        return False
    pairs = [(load_file(first.products[kind]), load_file(second.products[kind])) for kind in first.products]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


@pytest.fixture(scope="module")
def killed(records, base_file, tmp_path_factory):
    """The folder of runs that were killed at step 3, by objective."""
    folder = tmp_path_factory.mktemp("killed")
    jobs = [[asdict(objective), name, config, prediction, str(folder / label)]
            for label, (objective, name, config, prediction) in OBJECTIVES.items()]
    job = {"jobs": jobs, "options": asdict(QUICK), "base": str(base_file), "threads": torch.get_num_threads(),
           "records": [[str(record.image), record.caption, str(record.mask), [list(asdict(box).values()) for box in record.boxes]]
                       for record in records]}
    done = subprocess.run([sys.executable, "-c", KILLER], input=json.dumps(job), capture_output=True, text=True, check=False,
                          env=dict(os.environ))
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(jobs), done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("label", OBJECTIVES)
def test_kill_9_and_resume_is_bit_identical(go, killed, label):
    objective, name, config, prediction = OBJECTIVES[label]
    steps, request = [], (objective, name, config)
    resumed = go(*request, runs=killed / label, prediction=prediction,
                 on_step=lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [3, 4]  # from the checkpoint of step 2
    whole = go(*request, prediction=prediction)
    assert same(resumed, whole) and resumed.losses == whole.losses


@pytest.mark.parametrize("changed", [{"weighting": "min-snr"}, {"noise_offset": 0.1}, {"input_perturbation": 0.1}, {"masked": True}])
def test_an_objective_is_part_of_the_run_and_changes_its_outcome(go, changed):
    plain, other = go(), go(ObjectiveOptions(**changed))
    assert other.run != plain.run and not other.reused and not same(plain, other)
    header = read_adapter(other.adapter).header
    assert json.loads(header["medtune.objective"]).items() >= changed.items()
    assert json.loads((other.run / "run.json").read_text())["objective"].items() >= changed.items()
    assert go(ObjectiveOptions()).reused  # the defaults are no objective


def test_the_header_tells_other_tools_what_they_know_of_it(go):
    objective = ObjectiveOptions(weighting="min-snr", snr_gamma=3.0, noise_offset=0.1)
    header = read_adapter(go(objective, steps=1).adapter).header
    assert header["ss_min_snr_gamma"] == "3.0" and header["ss_noise_offset"] == "0.1" and "ss_ip_noise_gamma" not in header


def test_losses_are_the_weighted_ones(go, records):
    """min-SNR and an offset in the noise, by hand for the first step."""
    objective = ObjectiveOptions(weighting="min-snr", noise_offset=0.2, input_perturbation=0.1)
    result = go(objective, steps=1)
    base = load_base("embedded")
    draw = Draws(Order([1] * 4, 3), 2, (4, 8, 8), 1000, 3, flips=True, caption_dropout=0.3, noise_offset=0.2,
                 input_perturbation=0.1)(0)
    latents = cache_latents(base, records, size=64, flips=True).batch(draw.indices, draw.flipped)
    text = cache_text(base, [record.caption for record in records])
    states = text.batch(["" if drop else records[index].caption for index, drop in zip(draw.indices, draw.dropped)])
    share = cumulative_alphas(base.scheduler_config)[draw.timesteps].view(-1, 1, 1, 1)
    with torch.no_grad():
        inputs = share.sqrt() * latents + (1 - share).sqrt() * draw.shown_noise
        answer = base.unet(inputs, draw.timesteps, encoder_hidden_states=states).sample
    errors = (answer - draw.noise).square().flatten(1).mean(1)
    snr = (share / (1 - share)).flatten()
    assert result.losses == pytest.approx([(errors * snr.clamp(max=5) / snr).mean().item()], rel=1e-5)


# -- prior preservation


def test_prior_preservation_adds_the_weighted_loss_on_the_class(go, records):
    """By hand: the loss of the step without it, and half of that on the images of the class."""
    base = load_base("embedded")
    class_records = prior.class_records(base, PRIOR, 64)
    seed = derive_seed(3, "class")
    draw = Draws(Order([1] * 3, seed), 2, (4, 8, 8), 1000, seed, flips=True, caption_dropout=0.3)(0)
    latents = cache_latents(base, class_records, size=64, flips=True).batch(draw.indices, draw.flipped)
    text = cache_text(base, ["a chest X-ray"])
    share = cumulative_alphas(base.scheduler_config)[draw.timesteps].view(-1, 1, 1, 1)
    with torch.no_grad():
        answer = base.unet(share.sqrt() * latents + (1 - share).sqrt() * draw.noise, draw.timesteps,
                           encoder_hidden_states=text.batch(["" if drop else "a chest X-ray" for drop in draw.dropped])).sample
    of_class = (answer - draw.noise).square().mean().item()
    plain, both = go(steps=1), go(PRIOR, steps=1)
    assert both.losses == pytest.approx([plain.losses[0] + 0.5 * of_class], rel=1e-5)


def test_the_class_is_told_as_it_is_drawn_and_its_prompt_is_refused_when_too_long(go, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))
    phases = []
    go(PRIOR, steps=1, on_step=lambda info: phases.append((info.phase, info.step, info.total)))
    assert phases[:3] == [("class", 1, 3), ("class", 2, 3), ("class", 3, 3)] and phases[3][0] == "cache"
    with pytest.raises(DataError, match="class prompts are longer than the 77 tokens"):
        go(replace(PRIOR, class_prompt="a lung " * 80), long_captions="refuse")
    with pytest.raises(ConfigError, match="class_prompt is empty"):
        go(replace(PRIOR, class_prompt=""))


# -- a trained autoencoder


def test_a_trained_autoencoder_reads_images_and_is_a_file_of_its_own(go, records):
    base = load_base("embedded")
    result = go(ObjectiveOptions(reconstruction_weight=2.0), "full", {"parts": "vae"}, base=base, steps=3, lr=1e-4, flips=False,
                caption_dropout=0.0, sample_every=3, sample_steps=1, gradient_checkpointing=True)
    assert list(result.products) == ["vae"] and base.vae.encoder.layers[0].weight.device.type == "cpu"
    fresh = load_base("embedded")
    moved = [name for name, weight in base.vae.named_parameters() if not torch.equal(weight, fresh.vae.get_parameter(name))]
    assert any(name.startswith("encoder") for name in moved) and any(name.startswith("decoder") for name in moved)
    assert all(torch.equal(weight, fresh.unet.get_parameter(name)) for name, weight in base.unet.named_parameters())


def test_its_loss_is_that_of_diffusion_and_reconstruction(go, records):
    from medtune.data.image import read_image

    losses = [go(ObjectiveOptions(reconstruction_weight=weight), "full", {"parts": "vae"}, steps=1, flips=False).losses[0]
              for weight in (0.0, 2.0)]
    frozen = go(steps=1, flips=False).losses[0]
    assert losses[0] == pytest.approx(frozen, rel=1e-4)  # the same latents, noise and captions
    base, indices = load_base("embedded"), Order([1] * 4, 3)(0, 2)
    images = torch.stack([read_image(records[index].image, 64) for index in indices])
    with torch.no_grad():
        again = base.decoded(base.encode_images(images))
    assert losses[1] - losses[0] == pytest.approx(2 * (again - (images * 2 - 1)).square().mean().item(), rel=1e-3)


def test_several_parts_learn_at_once_with_a_moving_average(go):
    base, fresh = load_base("embedded"), load_base("embedded")
    result = go(None, "full", {"parts": "unet+text-encoder+vae", "lr_text_encoder": 1e-3, "lr_vae": 1e-3}, base=base, ema=0.5,
                gradient_checkpointing=True, sample_every=4, sample_steps=1)
    assert list(result.products) == ["adapter", "vae"]
    for part in ("unet", "text_encoder", "vae"):
        network, former = getattr(base, part), getattr(fresh, part)
        assert any((weight - former.get_parameter(name)).abs().max() > 1e-4 for name, weight in network.named_parameters())
        assert "forward" not in vars(network) and next(network.parameters()).device.type == "cpu"


# -- inpainting


def test_an_inflated_base_becomes_an_inpainting_checkpoint(go):
    objective = ObjectiveOptions(inpainting="random", inflate=True, mask_variants=2)
    base = load_base("embedded")
    result = go(objective, "lora", {}, base=base, lr=1e-2, sample_every=4, sample_steps=1)
    assert list(result.products) == ["model"] and result.adapter.name == "model.safetensors"
    made = load_base(result.adapter)
    assert made.channels == 9 and made.kind == "embedded"
    weight, former = made.unet.conv_in.weight, load_base("embedded").unet.conv_in.weight
    torch.testing.assert_close(weight[:, :4], former, rtol=1e-3, atol=1e-3)
    assert weight[:, 4:].abs().max() > 1e-4
    inputs = torch.randn(1, 9, 8, 8), torch.tensor([300]), torch.randn(1, 77, 64)
    with torch.no_grad():
        torch.testing.assert_close(made.unet(*inputs).sample, base.unet(*inputs).sample, rtol=1e-3, atol=1e-4)
    assert go(objective, "lora", {}, lr=1e-2, sample_every=4, sample_steps=1).reused


def test_the_u_net_reads_masks_of_its_own(go):
    seen = []
    base = load_base("embedded")
    inflate(base)
    base.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    go(ObjectiveOptions(inpainting="random", whole_share=0.0), base=base, steps=3)
    masks = torch.cat([part[:, 4] for part in seen])
    assert len(masks) == 6 and all(0 < mask.mean() < 1 for mask in masks) and set(masks.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(("objective", "words"), [
    (ObjectiveOptions(inpainting="random"), "Switch inflate on"),
    (ObjectiveOptions(zero_terminal_snr=True), "base that predicts v"),
    (ObjectiveOptions(weighting="minsnr"), "did you mean 'min-snr'"),
    (ObjectiveOptions(snr_gamma=0.0), "snr_gamma is 0"),
    (ObjectiveOptions(outside_weight=1.5), "outside_weight is 1.5"),
])
def test_what_cannot_be_trained_is_refused_before_anything_is_done(go, objective, words):
    with pytest.raises(ConfigError, match=words):
        go(objective, on_step=lambda info: pytest.fail("too late"))


# -- batches


def test_processes_share_a_step_without_rest(base, records):
    from types import SimpleNamespace

    latents, text = cache_latents(base, records, size=64), cache_text(base, ["a chest X-ray", *(record.caption for record in records)])
    class_records = [Record(records[0].image, "a chest X-ray")]
    prepared = Prepared([*records, *class_records], 1, cache_latents(base, [*records, *class_records], size=64), text)
    options = replace(QUICK, batch=3, accumulation=2, flips=False)

    def batches(objective, count):
        return [Batches(prepared, 1000, options, objective, batch=3,
                        accelerator=SimpleNamespace(process_index=index, num_processes=count))(1) for index in range(count)]

    whole, shared = batches(PRIOR, 1)[0], batches(PRIOR, 2)
    assert [len(batch.indices) for batch in whole] == [6, 6] and whole[0].weights.tolist() == [1, 1, 1, 0.5, 0.5, 0.5]
    for number, batch in enumerate(whole):
        parts = [process[number] for process in shared]
        assert [len(part.indices) for part in parts] == [2, 4]
        for own in (True, False):
            chosen = batch.weights == (1 if own else 0.5)
            together = torch.cat([part.noise[part.weights == (1 if own else 0.5)] for part in parts])
            assert torch.equal(together, batch.noise[chosen])
        assert [part.indices.count(4) for part in parts] == [1, 2] and batch.indices.count(4) == 3
    assert latents.shape == prepared.pictures.shape
