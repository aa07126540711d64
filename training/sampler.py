"""The solvers: noise and text states -> latents, by diffusers' DDIM, DPM++ 2M or Euler with classifier-free guidance."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import config
from ..config import option
from ..errors import ConfigError

if TYPE_CHECKING:
    from .base import Base

SCALE = 8  # pixels of the image to one of the latent, in every autoencoder of this family
SAMPLERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "euler": ("EulerDiscreteScheduler", {}),
}


@dataclass(frozen=True)
class SampleOptions:
    """How images are drawn."""

    sampler: str = option("ddim", "The solver that turns noise into an image.", choices=tuple(SAMPLERS))
    steps: int = option(50, "Steps of the solver.", low=1, high=1000)
    guidance: float = option(7.5, "Weight of the prompt against the negative prompt; 1 switches guidance off.",
                             low=1, high=50, step=0.5)
    negative: str = option("", "What the image should not show.")
    seed: int = option(0, "Seed of the first image; the next ones count up from it, where prompts have no seeds of their own.",
                       low=0, high=2**63 - 1)
    size: int = option(512, "Side of the images in pixels, a multiple of 64.", low=64, high=2048, step=64)
    batch: int = option(4, "Images drawn at once; changes the time and the memory alone.", low=1, high=256)
    long_prompts: str = option("refuse", "What happens to a prompt of more than 77 tokens.", choices=("refuse", "cut"),
                              advanced=True)


def sample_latents(base: Base, states: Tensor, negative_states: Tensor | None, noise: Tensor, options: SampleOptions,
                   *, extra: Tensor | None = None, on_step: Callable[[int, int], None] | None = None) -> Tensor:
    """Latents (N, 4, h, w) in the U-Net's scale from unit noise of that shape.

    ``states`` and ``negative_states`` are (N, 77, d); without the latter, or at guidance 1, there is no guidance. ``extra`` are
    the further channels (N, 5, h, w) that an inpainting U-Net reads. The U-Net runs with its adapters, in evaluation mode.
    """
    unet, scheduler = base.unet, make_scheduler(base, options)
    weight = next(unet.parameters())
    guided = options.guidance != 1 and negative_states is not None
    states = (torch.cat([negative_states, states]) if guided else states).to(weight)
    latents = noise.to(weight.device, torch.float32) * scheduler.init_noise_sigma
    with torch.no_grad(), evaluating(unet):
        for index, step in enumerate(scheduler.timesteps):
            inputs = scheduler.scale_model_input(latents, step)
            inputs = inputs if extra is None else torch.cat([inputs, extra.to(inputs)], dim=1)  # (N, 9, h, w)
            inputs = torch.cat([inputs, inputs]) if guided else inputs
            output = unet(inputs.to(weight.dtype), step.to(weight.device), encoder_hidden_states=states).sample.float()
            if guided:
                without, with_prompt = output.chunk(2)
                output = without + options.guidance * (with_prompt - without)
            latents = scheduler.step(output, step, latents).prev_sample
            if on_step is not None:
                on_step(index + 1, len(scheduler.timesteps))
    return latents


def make_scheduler(base: Base, options: SampleOptions) -> Any:
    """diffusers' scheduler of the chosen sampler, with the base's noise schedule and kind of prediction, set to the steps."""
    import diffusers

    name, settings = SAMPLERS[options.sampler]
    shared = {key: value for key, value in base.scheduler_config.items() if not key.startswith("_")}
    scheduler = getattr(diffusers, name).from_config({**shared, **settings, "prediction_type": base.prediction})
    scheduler.set_timesteps(options.steps)
    return scheduler


def draw_noise(seeds: Sequence[int], size: int) -> Tensor:
    """Unit noise (N, 4, size / 8, size / 8), each image's from a generator of its own."""
    side = size // SCALE
    return torch.stack([torch.randn((4, side, side), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) within the block; afterwards each part is as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def check_options(options: SampleOptions) -> SampleOptions:
    """The options themselves, when they can be used; otherwise ConfigError."""
    config.check(options)
    if options.size % 64:
        raise ConfigError(f"SampleOptions.size is {options.size}; it must be a multiple of 64, "
                          f"such as {round(options.size / 64) * 64}")
    return options
