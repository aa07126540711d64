"""The losses, against diffusers' own noise arithmetic and closed forms."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from medtune.errors import ConfigError
from medtune.training.objective import (
    WEIGHTINGS,
    ObjectiveOptions,
    check_schedule,
    cumulative_alphas,
    denoising_loss,
    drop_captions,
    follow_schedule,
    noisy,
    reconstruction_loss,
    sampling_schedule,
    snr_weights,
    target,
)

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


# -- weights by noise level


def snr(alphas):
    return alphas.double() / (1 - alphas.double())


@pytest.mark.parametrize(("weighting", "prediction", "formula"), [
    ("min-snr", "epsilon", lambda snr: min(snr, 3.0) / snr),
    ("min-snr", "v_prediction", lambda snr: min(snr, 3.0) / (snr + 1)),
    ("debiased", "epsilon", lambda snr: snr**-0.5),
    ("debiased", "v_prediction", lambda snr: snr**0.5 / (snr + 1)),
    ("none", "epsilon", lambda snr: 1.0),
    ("none", "v_prediction", lambda snr: 1.0),
])
def test_weights_follow_their_papers(weighting, prediction, formula):
    alphas = cumulative_alphas(SCHEDULE)
    weights = snr_weights(alphas, prediction, ObjectiveOptions(weighting=weighting, snr_gamma=3.0))
    assert weights.shape == (1000,)
    expected = torch.tensor([formula(value) for value in snr(alphas).tolist()])
    torch.testing.assert_close(weights, expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighting", [weighting for weighting in WEIGHTINGS if weighting != "none"])
def test_epsilon_and_v_of_one_image_have_one_weighted_loss(parts, weighting):
    """A U-Net that believes in one image may say so as noise or as v: a weighting must not tell the two apart."""
    latents, noise, timesteps, alphas, _ = parts
    believed = latents + torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    signal, spread = (level.view(-1, 1, 1, 1) for level in (alphas[timesteps].sqrt(), (1 - alphas[timesteps]).sqrt()))
    mixed = noisy(latents, noise, timesteps, alphas)
    answers = {"epsilon": (mixed - signal * believed) / spread, "v_prediction": (signal * mixed - believed) / spread}
    losses = {}
    for prediction, answer in answers.items():
        loss = denoising_loss(lambda *args, said=answer, **kw: SimpleNamespace(sample=said), latents, None, noise, timesteps,
                              alphas=alphas, prediction=prediction)
        losses[prediction] = loss * snr_weights(alphas, prediction, ObjectiveOptions(weighting=weighting))[timesteps]
    torch.testing.assert_close(losses["epsilon"], losses["v_prediction"], rtol=1e-3, atol=1e-6)
    assert losses["epsilon"].min() > 0


def test_min_snr_leaves_the_noisy_steps_as_they_are():
    weights = snr_weights(cumulative_alphas(SCHEDULE), "epsilon", ObjectiveOptions(weighting="min-snr"))
    assert weights[-1] == 1 and weights[0] < 0.01 and (weights.diff() >= 0).all()


# -- the schedule that ends in pure noise


def test_zero_terminal_schedule_equals_diffusers():
    from diffusers import DDPMScheduler

    settings = {key: value for key, value in SCHEDULE.items() if key != "_class_name"}
    ours = cumulative_alphas(SCHEDULE, zero_terminal_snr=True)
    torch.testing.assert_close(ours, DDPMScheduler(**settings, rescale_betas_zero_snr=True).alphas_cumprod, rtol=1e-3, atol=1e-5)
    assert ours[-1] == 0
    torch.testing.assert_close(ours[0], cumulative_alphas(SCHEDULE)[0])


def test_images_are_drawn_on_the_schedule_of_training():
    from diffusers import DDIMScheduler

    settings = sampling_schedule(SCHEDULE, True)
    drawn = DDIMScheduler.from_config(settings)
    drawn.set_timesteps(10)
    assert drawn.timesteps[0] == 999
    torch.testing.assert_close(drawn.alphas_cumprod, cumulative_alphas(settings, True), rtol=1e-3, atol=1e-5)
    assert sampling_schedule(SCHEDULE, False) == SCHEDULE


def test_a_file_that_was_trained_on_pure_noise_is_drawn_from_it():
    base = SimpleNamespace(scheduler_config=dict(SCHEDULE), prediction="v_prediction")
    follow_schedule(base, {"ss_zero_terminal_snr": "False"})
    assert base.scheduler_config == SCHEDULE
    follow_schedule(base, {"ss_zero_terminal_snr": "True"})
    assert base.scheduler_config == sampling_schedule(SCHEDULE, True)
    base = SimpleNamespace(scheduler_config=dict(SCHEDULE), prediction="epsilon")
    follow_schedule(base, {"ss_zero_terminal_snr": "True"})
    assert base.scheduler_config == SCHEDULE


def test_pure_noise_teaches_v_the_image_and_has_a_finite_weight(parts):
    latents, noise, timesteps, _, _ = parts
    alphas = cumulative_alphas(SCHEDULE, zero_terminal_snr=True)
    torch.testing.assert_close(target(latents, noise, timesteps, alphas, "v_prediction")[-1], -latents[-1])
    torch.testing.assert_close(noisy(latents, noise, timesteps, alphas)[-1], noise[-1])
    for weighting in WEIGHTINGS:
        assert snr_weights(alphas, "v_prediction", ObjectiveOptions(weighting=weighting)).isfinite().all()


def test_zero_terminal_snr_with_epsilon_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"zero_terminal_snr is on.*epsilon.*pure noise.*or use a base that predicts v"):
        check_schedule(ObjectiveOptions(zero_terminal_snr=True), "epsilon")
    check_schedule(ObjectiveOptions(zero_terminal_snr=True), "v_prediction")
    check_schedule(ObjectiveOptions(), "epsilon")


# -- masked loss, perturbed input, reconstruction


def test_a_masked_loss_is_the_mean_over_the_weights_and_nothing_outside(parts):
    latents, noise, timesteps, alphas, _ = parts
    answer = torch.zeros_like(noise, requires_grad=True)
    region = torch.zeros(5, 1, 8, 8)
    region[:, :, 2:5, 1:7] = 1
    loss = denoising_loss(lambda *args, **kw: SimpleNamespace(sample=answer), latents, None, noise, timesteps, alphas=alphas,
                          prediction="epsilon", region=region)
    torch.testing.assert_close(loss, noise[:, :, 2:5, 1:7].square().flatten(1).mean(1))
    loss.sum().backward()
    inside = region.bool().expand_as(answer)
    assert (answer.grad[~inside] == 0).all() and (answer.grad[inside] != 0).all()


def test_a_region_of_ones_changes_nothing(parts):
    latents, noise, timesteps, alphas, _ = parts
    losses = [denoising_loss(lambda *args, **kw: SimpleNamespace(sample=noise * 0.3), latents, None, noise, timesteps, alphas=alphas,
                             prediction="v_prediction", region=region) for region in (None, torch.ones(5, 1, 8, 8))]
    torch.testing.assert_close(*losses)


def test_weights_outside_count_as_they_are_set(parts):
    latents, noise, timesteps, alphas, _ = parts
    region = torch.full((5, 1, 8, 8), 0.25)
    region[:, :, :, :4] = 1
    loss = denoising_loss(lambda *args, **kw: SimpleNamespace(sample=torch.zeros_like(noise)), latents, None, noise, timesteps,
                          alphas=alphas, prediction="epsilon", region=region)
    inside, outside = (part.square().flatten(1).mean(1) for part in (noise[..., :4], noise[..., 4:]))
    torch.testing.assert_close(loss, (inside + 0.25 * outside) / 1.25)


def test_a_perturbed_input_is_shown_and_not_asked_for(parts):
    latents, noise, timesteps, alphas, _ = parts
    seen = {}

    def unet(inputs, *args, **kw):
        seen["inputs"] = inputs
        return SimpleNamespace(sample=noise)

    shown = noise + 0.1 * torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    loss = denoising_loss(unet, latents, None, noise, timesteps, alphas=alphas, prediction="epsilon", shown_noise=shown)
    assert loss.eq(0).all()
    torch.testing.assert_close(seen["inputs"], noisy(latents, shown, timesteps, alphas))


def test_reconstruction_is_measured_in_the_autoencoders_own_range():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    base = SimpleNamespace(decoded=lambda latents: latents)
    assert reconstruction_loss(base, images * 2 - 1, images).eq(0).all()
    torch.testing.assert_close(reconstruction_loss(base, images * 2 - 0.5, images), torch.full((2,), 0.25))
