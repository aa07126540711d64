"""Sampling: the solvers, the seeds, and image sets that go on after an interruption."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from medtune.data.image_set import ImageSet
from medtune.errors import ConfigError, DataError, ModelError
from medtune.training.sample import Prompt, sample
from medtune.training.sampler import SAMPLERS, SampleOptions, draw_noise, evaluating, sample_latents

OPTIONS = SampleOptions(steps=2, size=64, guidance=2.0, batch=2)
PROMPTS = [Prompt("a nodule", ("Nodule",), 11), Prompt("normal", ("No Finding",), 12), Prompt("an effusion", (), 13)]


class SmallBase:
    """A base with a small random U-Net, prompts encoded by their hash, and the latent itself as the picture."""

    ref, kind, prediction, notice, hash = "small", "sd1", "epsilon", None, "0" * 64

    def __init__(self, channels=4):
        from diffusers import UNet2DConditionModel

        torch.manual_seed(0)
        self.channels = channels
        self.scheduler_config = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
                                 "beta_schedule": "scaled_linear", "steps_offset": 1, "_class_name": "PNDMScheduler"}
        self.unet = UNet2DConditionModel(
            in_channels=channels, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
            cross_attention_dim=8, attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")).eval()

    def encode_prompts(self, texts):
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        return torch.stack([torch.randn((77, 8), generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def tokens(self, texts):
        return None, [len(text.split()) + 2 for text in texts]

    def encode_images(self, images):
        return torch.nn.functional.avg_pool2d(images, 8)[:, [0, 1, 2, 0]]

    def decode_latents(self, latents):
        return torch.nn.functional.interpolate(latents[:, :3] / 4 + 0.5, scale_factor=8)


class ExactUNet(torch.nn.Module):
    """Knows the clean latent: predicts just the noise that is in its input."""

    def __init__(self, clean, alphas, prediction):
        super().__init__()
        self.clean, self.alphas, self.prediction = clean, alphas, prediction
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.spreads = []

    def forward(self, latents, step, encoder_hidden_states):
        alpha = self.alphas[int(step)]
        self.spreads.append(latents.std().item())
        noise = (latents - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * self.clean
        return SimpleNamespace(sample=noise if self.prediction == "epsilon" else velocity)


def pixels(image_set: ImageSet) -> dict[str, bytes]:
    return {record.image.name: record.image.read_bytes() for record in image_set.records}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_with_an_exact_model_every_solver_finds_the_clean_latent(sampler, prediction):
    base = SmallBase()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    clean = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    alphas = torch.cumprod(1 - betas, 0).float()
    base.unet, base.prediction = ExactUNet(clean, alphas, prediction), prediction
    options = SampleOptions(sampler=sampler, steps=10, guidance=1.0, size=64)
    latents = sample_latents(base, torch.zeros(2, 77, 8), None, draw_noise([1, 2], 64), options)
    assert all(0.85 < spread < 1.15 for spread in base.unet.spreads)  # what the model reads has unit variance at every step
    assert (latents - clean).abs().max() < 0.15  # DDIM ends at the first timestep, where 3 % of the noise are left


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_batch_size_changes_nothing(tmp_path, sampler):
    base = SmallBase()
    values = {}
    for batch in (1, 3):
        images = []
        options = SampleOptions(sampler=sampler, steps=3, size=64, batch=batch)
        base.decode_latents = lambda latents, images=images: images.append(latents) or SmallBase.decode_latents(base, latents)
        sample(base, PROMPTS, tmp_path / str(batch), options)
        values[batch] = torch.cat(images)
    assert torch.allclose(values[1], values[3], rtol=1e-4, atol=1e-4)


def test_noise_depends_on_the_seed_alone():
    noise = draw_noise([3, 4], 64)
    assert torch.equal(draw_noise([4], 64)[0], noise[1])
    assert torch.equal(noise[0], torch.randn((1, 4, 8, 8), generator=torch.manual_seed(3))[0])  # as ComfyUI draws it
    assert not torch.equal(noise[0], noise[1])


def test_guidance_and_negative_prompt_have_their_effect():
    base = SmallBase()
    wanted, unwanted, noise = base.encode_prompts(["a"]), base.encode_prompts(["b"]), draw_noise([0], 64)

    def latents(guidance, negative, states=wanted, steps=2):
        return sample_latents(base, states, negative, noise, SampleOptions(steps=steps, size=64, guidance=guidance))

    assert torch.equal(latents(1.0, unwanted), latents(3.0, None))
    assert torch.allclose(latents(3.0, wanted), latents(1.0, None), atol=1e-4)  # prompt against itself: nothing to weigh
    with_prompt, without = latents(1.0, None, steps=1), latents(1.0, None, unwanted, steps=1)
    assert torch.allclose(latents(3.0, unwanted, steps=1), without + 3 * (with_prompt - without), atol=3e-5)  # one step is linear
    assert (with_prompt - without).abs().max() > 2e-4


def test_everything_is_written_down(tmp_path):
    seen = []
    adapter = {"file": "a.safetensors", "hash": "f" * 64, "method": "lora"}
    image_set = sample(SmallBase(), PROMPTS, tmp_path, OPTIONS, adapter=adapter, on_image=lambda *call: seen.append(call))
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [(record.caption, record.labels, record.seed) for record in image_set.records] == [
        ("a nodule", ("Nodule",), 11), ("normal", ("No Finding",), 12), ("an effusion", (), 13)]
    extra = image_set.extra("00000.png")
    assert {key: extra[key] for key in ("sampler", "steps", "guidance", "negative", "size")} == {
        "sampler": "ddim", "steps": 2, "guidance": 2.0, "negative": "", "size": 64}
    info = image_set.read_info()
    assert info["adapter"] == adapter and info["base"]["hash"] == "0" * 64 and info["options"]["steps"] == 2


def test_an_interruption_leaves_whole_files_and_sampling_goes_on(tmp_path):
    def stop(done, total, record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(SmallBase(), PROMPTS, tmp_path / "cut", OPTIONS, on_image=stop)
    assert len(ImageSet(tmp_path / "cut").records) == 1
    drawn = []
    resumed = sample(SmallBase(), PROMPTS, tmp_path / "cut", OPTIONS, on_image=lambda done, *_: drawn.append(done))
    assert drawn == [2, 3]
    whole = sample(SmallBase(), PROMPTS, tmp_path / "whole", OPTIONS)
    assert resumed.records[0].seed == 11 and pixels(resumed).keys() == pixels(whole).keys()
    assert sample(SmallBase(), PROMPTS, tmp_path / "cut", OPTIONS, on_image=stop).records == resumed.records  # nothing left to draw


def test_more_prompts_extend_a_folder(tmp_path):
    before = pixels(sample(SmallBase(), PROMPTS[:1], tmp_path, OPTIONS))
    after = pixels(sample(SmallBase(), PROMPTS, tmp_path, OPTIONS))
    assert len(after) == 3 and before.items() <= after.items()


@pytest.mark.parametrize("change", [
    {"options": SampleOptions(steps=3, size=64, guidance=2.0)},
    {"options": SampleOptions(steps=2, size=64, guidance=2.0, sampler="euler")},
    {"prompts": [Prompt("a nodule", (), 99), *PROMPTS[1:]]},
    {"prompts": [Prompt("another text", (), 11), *PROMPTS[1:]]},
    {"prompts": PROMPTS[:1]},
    {"adapter": {"hash": "1" * 64}},
    {"hash": "1" * 64},
])
def test_a_folder_of_other_settings_is_refused(tmp_path, change):
    sample(SmallBase(), PROMPTS, tmp_path, OPTIONS, adapter={"hash": "f" * 64})
    before = pixels(ImageSet(tmp_path))
    base = SmallBase()
    base.hash = change.get("hash", base.hash)
    with pytest.raises(DataError, match="another folder"):
        sample(base, change.get("prompts", PROMPTS), tmp_path, change.get("options", OPTIONS),
               adapter=change.get("adapter", {"hash": "f" * 64}))
    assert pixels(ImageSet(tmp_path)) == before


def test_a_moved_adapter_and_another_batch_size_are_no_other_settings(tmp_path):
    sample(SmallBase(), PROMPTS[:1], tmp_path, OPTIONS, adapter={"hash": "f" * 64, "file": "here"})
    options = SampleOptions(steps=2, size=64, guidance=2.0, batch=1, seed=5)
    assert len(sample(SmallBase(), PROMPTS, tmp_path, options, adapter={"hash": "f" * 64, "file": "there"}).records) == 3


def test_images_that_are_not_ours_are_left_alone(tmp_path):
    ImageSet(tmp_path).append(torch.zeros(3, 64, 64), "mine")
    with pytest.raises(DataError, match="not drawn here"):
        sample(SmallBase(), PROMPTS, tmp_path, OPTIONS)


def test_seeds_count_up_where_prompts_have_none(tmp_path):
    prompts = [Prompt("a"), Prompt("a", seed=3), Prompt("a")]
    image_set = sample(SmallBase(), prompts, tmp_path, SampleOptions(steps=1, size=64, seed=40))
    assert [record.seed for record in image_set.records] == [40, 3, 42]


@pytest.mark.parametrize("options, words", [
    (SampleOptions(size=100), "multiple of 64"), (SampleOptions(steps=0), "steps"), (SampleOptions(sampler="pndm"), "ddim"),
    (SampleOptions(guidance=0.5), "guidance"), (SampleOptions(batch=0), "batch")])
def test_bad_settings_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        sample(SmallBase(), PROMPTS, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_long_prompts_are_said(tmp_path):
    long = [Prompt("word " * 90, seed=1)]
    with pytest.raises(DataError, match="77 tokens"):
        sample(SmallBase(), long, tmp_path, OPTIONS)
    image_set = sample(SmallBase(), long, tmp_path, SampleOptions(steps=1, size=64, long_prompts="cut"))
    assert "92 tokens" in image_set.read_info()["notices"][0]


def test_no_prompts_and_broken_weights_are_refused(tmp_path):
    with pytest.raises(DataError, match="no prompts"):
        sample(SmallBase(), [], tmp_path, OPTIONS)
    base = SmallBase()
    base.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        sample(base, PROMPTS, tmp_path, OPTIONS)
    assert not ImageSet(tmp_path).records


def test_an_inpainting_base_paints_everything(tmp_path):
    base, inputs = SmallBase(channels=9), []
    base.unet.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    sample(base, PROMPTS[:1], tmp_path, OPTIONS)
    assert inputs[0].shape[1] == 9 and (inputs[0][:, 4] == 1).all() and (inputs[0][:, 5:] == 0.5).all()


def test_training_mode_is_given_back():
    unet = SmallBase().unet.train()
    unet.conv_in.eval()
    with evaluating(unet):
        assert not any(part.training for part in unet.modules())
    assert unet.training and not unet.conv_in.training and unet.mid_block.training


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_sample import OPTIONS, PROMPTS, SmallBase
from medtune.data import image_set
from medtune.training.sample import sample
append, calls = image_set.ImageSet.append, []
def killed(self, *args, **kw):
    record = append(self, *args, **kw)
    calls.append(record)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return record
image_set.ImageSet.append = killed
sample(SmallBase(), PROMPTS, sys.argv[2], OPTIONS)
"""


def test_kill_during_sampling_leaves_nothing_corrupt(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(sys.modules["medtune"].__path__[0]).parent)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "cut")], env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with open(tmp_path / "cut" / "metadata.jsonl", "a") as file:
        file.write('{"file_name": "00002.p')  # as a kill in the middle of a write leaves it
    resumed = sample(SmallBase(), PROMPTS, tmp_path / "cut", OPTIONS)
    whole = sample(SmallBase(), PROMPTS, tmp_path / "whole", OPTIONS)
    assert pixels(resumed) == pixels(whole)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


def test_with_the_embedded_base(base, tmp_path):
    records = sample(base, PROMPTS[:2], tmp_path, SampleOptions(steps=2, size=128, sampler="dpmpp_2m")).records
    assert len(records) == 2 and records[0].image.read_bytes() != records[1].image.read_bytes()
