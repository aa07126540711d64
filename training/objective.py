"""What training minimises: the error of the U-Net's prediction at one noise level per image.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (epsilon); Salimans and Ho 2022, "Progressive Distillation for Fast
Sampling of Diffusion Models" (v). Noise and timesteps are passed in: nothing here draws random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError

PREDICTIONS = ("epsilon", "v_prediction")


def cumulative_alphas(scheduler_config: Mapping[str, Any]) -> Tensor:
    """Share of the signal's variance left at each timestep (T,), from a diffusers scheduler's settings."""
    from diffusers import DDPMScheduler

    settings = {key: value for key, value in scheduler_config.items() if not key.startswith("_")}
    return DDPMScheduler.from_config(settings).alphas_cumprod


def _levels(timesteps: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of signal and noise (B, 1, 1, 1)."""
    share = alphas[timesteps].view(-1, 1, 1, 1)
    return share.sqrt(), (1 - share).sqrt()


def noisy(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """Latents (B, 4, h, w) with the noise of their timestep (B,) mixed in."""
    signal, spread = _levels(timesteps, alphas)
    return signal * latents + spread * noise


def target(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor, prediction: str) -> Tensor:
    """What the U-Net should answer: the noise, or v = signal * noise - spread * latents."""
    if prediction not in PREDICTIONS:
        raise ConfigError(f"the base predicts {prediction!r}; there are objectives for: {', '.join(PREDICTIONS)}")
    if prediction == "epsilon":
        return noise
    signal, spread = _levels(timesteps, alphas)
    return signal * noise - spread * latents


def denoising_loss(unet: Any, latents: Tensor, states: Tensor, noise: Tensor, timesteps: Tensor, *,
                   alphas: Tensor, prediction: str, extra_channels: Tensor | None = None) -> Tensor:
    """Mean squared error of each image (B,), in float32.

    ``states`` are text states (B, 77, d); ``extra_channels`` (B, 5, h, w) what an inpainting U-Net reads besides.
    """
    wanted = target(latents, noise, timesteps, alphas, prediction)
    inputs = noisy(latents, noise, timesteps, alphas)
    if extra_channels is not None:
        inputs = torch.cat([inputs, extra_channels], dim=1)
    predicted = unet(inputs, timesteps, encoder_hidden_states=states).sample
    return (predicted.float() - wanted.float()).square().flatten(1).mean(1)


def drop_captions(captions: Sequence[str], dropped: Sequence[bool]) -> list[str]:
    """The captions, with the empty one in place of each that is dropped."""
    return ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]
