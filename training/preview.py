"""Pictures on the way: the same prompts and seeds every few steps, drawn by the weights as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.image import save_image
from ..data.record import Record
from .draws import generator
from .ema import MovingAverage
from .options import TrainOptions
from .sampler import SampleOptions, sample_latents

if TYPE_CHECKING:
    from .base import Base

AT_ONCE = 4
FROM_DATA = 4  # captions that stand in for prompts, where there are none


def choose_prompts(options: TrainOptions, records: Sequence[Record]) -> list[str]:
    """The prompts of the options, or the data set's first different captions; none when no pictures are wanted."""
    if not options.sample_every:
        return []
    given = [line.strip() for line in options.sample_prompts.splitlines() if line.strip()]
    return given or list(dict.fromkeys(record.caption for record in records))[:FROM_DATA]


class Previews:
    """Draws the pictures ``step-000050-0.png`` and on, one a prompt.

    ``encode`` gives the text states of prompts, ``shape`` is that of the latents; where there are ``average`` weights, they draw.
    """

    def __init__(self, base: Base, prompts: Sequence[str], encode: Callable[[Sequence[str]], Tensor], options: TrainOptions,
                 folder: Path, *, shape: Sequence[int], average: MovingAverage | None = None, extra: Tensor | None = None):
        self.base, self.prompts, self.encode, self.folder, self.average, self.extra = base, prompts, encode, folder, average, extra
        self.options = SampleOptions(steps=options.sample_steps, guidance=options.sample_cfg, size=options.size)
        self.noise = torch.stack([torch.randn(tuple(shape), generator=generator(options.seed, "preview", index))
                                  for index in range(len(prompts))]) if prompts else None

    @torch.no_grad()
    def draw(self, step: int) -> list[tuple[Path, Tensor]]:
        """The written files with their images (3, H, W); an image that is not finite is left out."""
        images = []
        with self.average.adopted() if self.average is not None else contextlib.nullcontext():
            for start in range(0, len(self.prompts), AT_ONCE):
                images += self._images(slice(start, start + AT_ONCE))
        drawn = []
        for index, image in enumerate(images):
            if torch.isfinite(image).all():
                path = self.folder / f"step-{step:06d}-{index}.png"
                save_image(image, path)
                drawn.append((path, image))
        return drawn

    def _images(self, some: slice) -> Tensor:
        prompts, noise = self.prompts[some], self.noise[some]
        states, without = self.encode(prompts), self.encode([""] * len(prompts))
        extra = None if self.extra is None else self.extra.expand(len(prompts), -1, -1, -1)
        latents = sample_latents(self.base, states, without, noise, self.options, extra=extra)
        home = self.base.vae.device
        self.base.vae.to(self.base.device)
        images = self.base.decode_latents(latents).float().cpu()
        self.base.vae.to(home)  # room for the next steps' activations, unless it is trained
        return images
