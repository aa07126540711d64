"""The losses, against diffusers' own noise arithmetic and closed forms."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from medtune.errors import ConfigError
from medtune.training.objective import cumulative_alphas, denoising_loss, drop_captions, noisy, target

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
            "_class_name": "PNDMScheduler", "prediction_type": "epsilon"}


@pytest.fixture
def parts():
    """latents, noise, timesteps, alphas and diffusers' scheduler of the same schedule."""
    from diffusers import DDPMScheduler

    source = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 5, 4, 8, 8, generator=source)
    timesteps = torch.tensor([0, 1, 250, 998, 999])
    settings = {key: value for key, value in SCHEDULE.items() if key != "_class_name"}
    return latents, noise, timesteps, cumulative_alphas(SCHEDULE), DDPMScheduler(**settings)


def test_alphas_are_those_of_stable_diffusion():
    alphas = cumulative_alphas(SCHEDULE)
    assert alphas.shape == (1000,)
    assert alphas[0].item() == pytest.approx(1 - 0.00085, rel=1e-5)
    assert alphas[-1].item() == pytest.approx(0.00466, rel=1e-2)


def test_noisy_latents_equal_diffusers(parts):
    latents, noise, timesteps, alphas, scheduler = parts
    torch.testing.assert_close(noisy(latents, noise, timesteps, alphas), scheduler.add_noise(latents, noise, timesteps))


def test_targets_equal_diffusers(parts):
    latents, noise, timesteps, alphas, scheduler = parts
    assert target(latents, noise, timesteps, alphas, "epsilon") is noise
    velocity = target(latents, noise, timesteps, alphas, "v_prediction")
    torch.testing.assert_close(velocity, scheduler.get_velocity(latents, noise, timesteps))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_loss_of_each_image_is_its_mean_squared_error(parts, prediction):
    latents, noise, timesteps, alphas, _ = parts
    wanted = target(latents, noise, timesteps, alphas, prediction)
    offsets = torch.arange(5.0).view(-1, 1, 1, 1)
    seen = {}

    def unet(inputs, steps, encoder_hidden_states):
        seen.update(inputs=inputs, steps=steps, states=encoder_hidden_states)
        return SimpleNamespace(sample=wanted + offsets)

    loss = denoising_loss(unet, latents, "states", noise, timesteps, alphas=alphas, prediction=prediction)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1, 4, 9, 16]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen["inputs"], noisy(latents, noise, timesteps, alphas))
    assert seen["steps"] is timesteps and seen["states"] == "states"


def test_half_precision_output_is_compared_in_float32(parts):
    latents, noise, timesteps, alphas, _ = parts
    loss = denoising_loss(lambda *args, **kw: SimpleNamespace(sample=torch.zeros_like(noise, dtype=torch.bfloat16)),
                          latents, None, noise, timesteps, alphas=alphas, prediction="epsilon")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, noise.square().flatten(1).mean(1))


def test_extra_channels_follow_the_latents(parts):
    latents, noise, timesteps, alphas, _ = parts
    extra = torch.full((5, 5, 8, 8), 7.0)

    def unet(inputs, *args, **kw):
        assert inputs.shape == (5, 9, 8, 8)
        assert (inputs[:, 4:] == 7).all()
        return SimpleNamespace(sample=noise)

    assert denoising_loss(unet, latents, None, noise, timesteps, alphas=alphas, prediction="epsilon",
                          extra_channels=extra).eq(0).all()


def test_unknown_prediction_is_refused(parts):
    latents, noise, timesteps, alphas, _ = parts
    with pytest.raises(ConfigError, match=r"'sample'.*epsilon, v_prediction"):
        target(latents, noise, timesteps, alphas, "sample")


def test_dropped_captions_are_empty():
    assert drop_captions(["a", "b", "c"], [False, True, False]) == ["a", "", "c"]
