"""Step number -> what each pass through the networks is given: images, captions, noise and weights, on the processor.

All of it follows from the seed and the number of the step, whichever thread makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import inpainting, processes
from .draws import Draw, Draws, Order, derive_seed
from .encoding import Prepared
from .images import Images
from .objective import ObjectiveOptions, drop_captions
from .options import TrainOptions

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Batch:
    """What one pass is given: B images of the data set, and after them as many of the class, where there is one."""

    indices: list[int]
    captions: list[str]                         # the empty one where it is dropped
    timesteps: Tensor                           # (B,)
    noise: Tensor                               # (B, 4, h, w)
    latents: Tensor | None = None               # (B, 4, h, w)
    images: Tensor | None = None                # (B, 3, H, W), where the autoencoder is trained: there are no latents then
    posterior: Tensor | None = None             # (B, 4, h, w) unit noise, where the autoencoder is trained
    states: Tensor | None = None                # (B, 77, d), unless the text encoder is trained
    shown_noise: Tensor | None = None           # (B, 4, h, w), where the input is perturbed
    extra_channels: Tensor | None = None        # (B, 5, h, w), where the objective is inpainting
    region: Tensor | None = None                # (B, 1, h, w), where the loss is masked
    weights: Tensor | None = None               # (B,) of each image's error, where they differ

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for value in vars(self).values()))


class Batches:
    """Step number -> the batches that this process goes through, one an accumulation."""

    def __init__(self, prepared: Prepared, timesteps: int, options: TrainOptions, objective: ObjectiveOptions, *, batch: int,
                 accelerator: Accelerator):
        self.prepared, self.objective, self.batch, self.accelerator = prepared, objective, batch, accelerator
        self.trains_vae = isinstance(prepared.pictures, Images)
        own = len(prepared.records) - prepared.of_class
        self._draws = self._drawer(Order([record.repeats for record in prepared.records[:own]], options.seed), options.seed, options,
                                   timesteps)
        self._of_class = None
        if prepared.of_class:
            seed = derive_seed(options.seed, "class")
            self._of_class = self._drawer(Order([1] * prepared.of_class, seed, first=own), seed, options, timesteps)

    def _drawer(self, order: Order, seed: int, options: TrainOptions, timesteps: int) -> Draws:
        objective = self.objective
        return Draws(order, self.batch * options.accumulation, self.prepared.pictures.shape, timesteps, seed, flips=options.flips,
                     caption_dropout=options.caption_dropout, posterior=self.trains_vae or options.posterior == "sample",
                     noise_offset=objective.noise_offset, input_perturbation=objective.input_perturbation,
                     variants=inpainting.variants(objective))

    def __call__(self, step: int) -> list[Batch]:
        """The batches of a step, counted from 0."""
        draw, of_class = self._draws(step), self._of_class and self._of_class(step)
        batches = []
        for start in range(0, len(draw.indices), self.batch):
            some = processes.share(start, start + self.batch, self.accelerator)
            part = draw.part(some)
            batches.append(self._batch(part.joined(of_class.part(some)) if of_class else part, len(part.indices)))
        return batches

    def _batch(self, draw: Draw, own: int) -> Batch:
        """The batch of a draw, of which the first ``own`` images are the data set's."""
        prepared = self.prepared
        captions = drop_captions([prepared.records[index].caption for index in draw.indices], draw.dropped)
        return Batch(
            draw.indices, captions, draw.timesteps, draw.noise,
            latents=None if self.trains_vae else prepared.pictures.batch(draw.indices, draw.flipped, draw.posterior),
            images=prepared.pictures.batch(draw.indices, draw.flipped) if self.trains_vae else None,
            posterior=draw.posterior if self.trains_vae else None,
            states=None if prepared.text is None else prepared.text.batch(captions),
            shown_noise=draw.shown_noise,
            extra_channels=None if prepared.inputs is None else prepared.inputs.batch(draw.indices, draw.flipped, draw.variants),
            region=None if prepared.regions is None else prepared.regions.batch(draw.indices, draw.flipped),
            weights=self._weights(own, len(draw.indices)))

    def _weights(self, own: int, count: int) -> Tensor | None:
        return torch.tensor([1.0] * own + [self.objective.prior_weight] * (count - own)) if count > own else None
