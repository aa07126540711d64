"""What training minimises: the error of the U-Net's prediction at one noise level per image.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (epsilon); Salimans and Ho 2022, "Progressive Distillation for Fast
Sampling of Diffusion Models" (v). Weights by noise level: Hang et al., ICCV 2023, "Efficient Diffusion Training via Min-SNR Weighting
Strategy"; Yu et al. 2023, "Debias the Training of Diffusion Models". The schedule that ends in pure noise: Lin et al., WACV 2024,
"Common Diffusion Noise Schedules and Sample Steps are Flawed". Noise and timesteps are passed in: nothing here draws random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import option
from ..errors import ConfigError

if TYPE_CHECKING:
    from .base import Base

PREDICTIONS = ("epsilon", "v_prediction")
WEIGHTINGS = ("none", "min-snr", "debiased")
INPAINTING = ("off", "random", "given", "lesion")
MASK_SHAPES = ("box", "stroke", "blob")


@dataclass(frozen=True)
class ObjectiveOptions:
    """What to minimise. Each field is a widget of the objective's node, a flag of ``medtune train`` and a line of the header."""

    weighting: str = option("none", "How the error counts by noise level: alike, min-SNR (less where little noise is left: faster), "
                            "or debiased (more where much noise is: the whole before the details).", choices=WEIGHTINGS)
    snr_gamma: float = option(5.0, "min-SNR's gamma: signal-to-noise ratios above it count as if they were it.", above=0, high=1000,
                              step=0.5, advanced=True)
    noise_offset: float = option(0.0, "Deviation of a constant that is added to each channel's noise, so that very dark and very "
                                 "bright images can be learnt; 0 adds none, 0.05 to 0.1 is usual.", low=0, high=1, step=0.01)
    input_perturbation: float = option(0.0, "Deviation of further noise that the U-Net sees and is not asked for, against the errors "
                                       "that add up in sampling; 0 adds none, 0.1 is the paper's.", low=0, high=1, step=0.01,
                                       advanced=True)
    zero_terminal_snr: bool = option(False, "Rescale the noise schedule so that its last step is pure noise. For bases that predict "
                                     "v.", advanced=True)
    masked: bool = option(False, "Weight the error by each record's mask; records without one count whole.")
    outside_weight: float = option(0.0, "Weight of what lies outside of the mask, where the inside has 1.", low=0, high=1, step=0.05)
    prior_weight: float = option(0.0, "DreamBooth's prior preservation: weight of the loss on images of the class that the untuned "
                                 "base draws; 0 switches it off, 1 is the paper's.", low=0, high=100, step=0.1)
    class_prompt: str = option("", "What the images of the class show, such as: chest X-ray.")
    class_images: int = option(200, "How many images of the class are drawn, once for all trainings of a base.", low=1, high=100_000)
    class_steps: int = option(50, "Sampling steps of an image of the class.", low=1, high=1000, advanced=True)
    class_cfg: float = option(7.5, "Guidance scale of the images of the class; 1 switches guidance off.", low=1, high=50, step=0.5,
                              advanced=True)
    reconstruction_weight: float = option(1.0, "Weight of the reconstruction's error, where the autoencoder is trained.", low=0,
                                          high=1000, step=0.1, advanced=True)
    inpainting: str = option("off", "What an inpainting U-Net learns to fill: random masks, each record's own mask, or its lesion "
                             "(the mask or the boxes) with a random margin. Off: all of the image.", choices=INPAINTING)
    mask_shapes: tuple[str, ...] = option(MASK_SHAPES, "Shapes of random masks: box, stroke, blob.", choices=MASK_SHAPES,
                                          advanced=True)
    mask_variants: int = option(4, "Different masks made of each image, where they are random.", low=1, high=10_000, advanced=True)
    whole_share: float = option(0.1, "Share of random masks that cover all of the image.", low=0, high=1, step=0.05, advanced=True)
    inflate: bool = option(False, "Widen a base of 4 input channels to an inpainting one of 9. The result is a whole checkpoint.")


def cumulative_alphas(scheduler_config: Mapping[str, Any], zero_terminal_snr: bool = False) -> Tensor:
    """Share of the signal's variance left at each timestep (T,), from a diffusers scheduler's settings.

    With ``zero_terminal_snr`` the square roots are shifted and scaled so that the last is 0 and the first as it was.
    """
    from diffusers import DDPMScheduler

    settings = {key: value for key, value in scheduler_config.items() if not key.startswith("_")} | {"rescale_betas_zero_snr": False}
    alphas = DDPMScheduler.from_config(settings).alphas_cumprod
    if not zero_terminal_snr:
        return alphas
    roots = alphas.double().sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])).square().float()


def sampling_schedule(scheduler_config: Mapping[str, Any], zero_terminal_snr: bool) -> dict[str, Any]:
    """A scheduler's settings for images after training: with ``zero_terminal_snr`` rescaled, and drawn from the last step on."""
    return {**scheduler_config, **({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if zero_terminal_snr else {})}


def follow_schedule(base: Base, header: Mapping[str, str]) -> None:
    """Draw a base's images on the schedule that a file was trained on, as its header says in the words of sd-scripts."""
    if header.get("ss_zero_terminal_snr") == "True" and base.prediction == "v_prediction":
        base.scheduler_config = sampling_schedule(base.scheduler_config, True)


def snr_weights(alphas: Tensor, prediction: str, options: ObjectiveOptions) -> Tensor:
    """The weight of the squared error at each timestep (T,).

    A weighting is a weight on the error of the image: min(SNR, gamma), or sqrt(SNR) when debiased. The error of epsilon is the
    image's times SNR and that of v the image's times SNR + 1, so that either is divided by: both predictions minimise the same.
    """
    if options.weighting == "none":
        return torch.ones_like(alphas)
    snr = alphas / (1 - alphas)
    of_image = snr.clamp(max=options.snr_gamma) if options.weighting == "min-snr" else snr.sqrt()
    return of_image / (snr if prediction == "epsilon" else snr + 1)


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


def denoising_loss(unet: Any, latents: Tensor, states: Tensor, noise: Tensor, timesteps: Tensor, *, alphas: Tensor, prediction: str,
                   extra_channels: Tensor | None = None, shown_noise: Tensor | None = None, region: Tensor | None = None) -> Tensor:
    """Mean squared error of each image (B,), in float32.

    ``states`` are text states (B, 77, d); ``extra_channels`` (B, 5, h, w) what an inpainting U-Net reads besides; ``shown_noise``
    (B, 4, h, w) is mixed in where it is not the noise to predict (Ning et al. 2023, "Input Perturbation Reduces Exposure Bias in
    Diffusion Models"); ``region`` (B, 1, h, w) weights the places, and the mean is over its weights.
    """
    wanted = target(latents, noise, timesteps, alphas, prediction)
    inputs = noisy(latents, noise if shown_noise is None else shown_noise, timesteps, alphas)
    if extra_channels is not None:
        inputs = torch.cat([inputs, extra_channels], dim=1)
    predicted = unet(inputs, timesteps, encoder_hidden_states=states).sample
    errors = (predicted.float() - wanted.float()).square()
    if region is None:
        return errors.flatten(1).mean(1)
    return (errors * region).flatten(1).sum(1) / (region.flatten(1).sum(1) * errors.shape[1])


def check_schedule(objective: ObjectiveOptions, prediction: str) -> None:
    """Raise ConfigError for a schedule that ends in pure noise where noise is predicted."""
    if objective.zero_terminal_snr and prediction == "epsilon":
        raise ConfigError("zero_terminal_snr is on and the base predicts epsilon: at the last step its input is pure noise, which it "
                          "would only have to copy, and no image follows from that. Switch it off, or use a base that predicts v")


def reconstruction_loss(base: Base, latents: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of each image (B,) that the autoencoder makes of latents, in its own range of -1 to 1."""
    return (base.decoded(latents) - (images.to(latents.device) * 2 - 1)).square().flatten(1).mean(1)


def drop_captions(captions: Sequence[str], dropped: Sequence[bool]) -> list[str]:
    """The captions, with the empty one in place of each that is dropped."""
    return ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]
