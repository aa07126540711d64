"""What a step draws: which images, which of them mirrored or without caption, timesteps and noise.

All of it follows from the seed and the number of the step, so that a resumed run goes on exactly where it stopped and nothing
random needs to be stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def derive_seed(seed: int, *words: object) -> int:
    """A seed of its own for each purpose and step."""
    text = "/".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *words: object) -> torch.Generator:
    """A CPU generator for one purpose, the same on every machine and device."""
    return torch.Generator().manual_seed(derive_seed(seed, *words))


class Order:
    """An endless sequence of image indices: epoch after epoch, each a new seeded shuffle in which image i stands
    ``repeats[i]`` times. Indices count from ``first``."""

    def __init__(self, repeats: Sequence[int], seed: int, first: int = 0):
        self.entries = first + torch.repeat_interleave(torch.arange(len(repeats)), torch.tensor(list(repeats)))
        self.seed = seed
        self._epoch, self._shuffled = -1, self.entries

    def __len__(self) -> int:
        """Entries of one epoch."""
        return len(self.entries)

    def _shuffle(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            shuffle = torch.randperm(len(self.entries), generator=generator(self.seed, "order", epoch))
            self._epoch, self._shuffled = epoch, self.entries[shuffle]
        return self._shuffled

    def __call__(self, start: int, count: int) -> list[int]:
        """The indices at places ``start`` to ``start + count`` of the sequence."""
        indices: list[int] = []
        while len(indices) < count:
            epoch, place = divmod(start + len(indices), len(self))
            indices += self._shuffle(epoch)[place:place + count - len(indices)].tolist()
        return indices


@dataclass(frozen=True)
class Draw:
    """The randomness of one update, over all its batches (G images)."""

    indices: list[int]
    flipped: list[bool]
    dropped: list[bool]
    timesteps: Tensor                   # (G,)
    noise: Tensor                       # (G, 4, h, w), with its offset
    posterior: Tensor | None = None     # (G, 4, h, w), where latents are sampled
    shown_noise: Tensor | None = None   # (G, 4, h, w), where the input is perturbed
    variants: list[int] | None = None   # which of its masks an image is shown with

    def part(self, some: slice) -> Draw:
        """The draw of some of the images."""
        return Draw(*(None if value is None else value[some] for value in vars(self).values()))

    def joined(self, other: Draw) -> Draw:
        """This draw's images, and the other's after them."""
        return Draw(*(_joined(one, two) for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))


def _joined(one: Any, two: Any) -> Any:
    return torch.cat([one, two]) if isinstance(one, Tensor) else None if one is None else one + two


class Draws:
    """Step number -> Draw. What an option draws comes from a generator of its own, so that it leaves all other draws as they are."""

    def __init__(self, order: Order, count: int, shape: Sequence[int], timesteps: int, seed: int, *, flips: bool = False,
                 caption_dropout: float = 0.0, posterior: bool = False, noise_offset: float = 0.0, input_perturbation: float = 0.0,
                 variants: int = 0):
        self.order, self.count, self.shape, self.timesteps, self.seed = order, count, tuple(shape), timesteps, seed
        self.flips, self.caption_dropout, self.posterior = flips, caption_dropout, posterior
        self.noise_offset, self.input_perturbation, self.variants = noise_offset, input_perturbation, variants

    def __call__(self, step: int) -> Draw:
        """The randomness of a step, counted from 0."""
        source, count = generator(self.seed, "step", step), self.count
        timesteps = torch.randint(self.timesteps, (count,), generator=source)
        noise = torch.randn((count, *self.shape), generator=source)
        dropped = torch.rand(count, generator=source) < self.caption_dropout
        flipped = (torch.rand(count, generator=source) < 0.5) & self.flips
        posterior = torch.randn((count, *self.shape), generator=source) if self.posterior else None
        if self.noise_offset:
            level = torch.randn((count, self.shape[0], 1, 1), generator=generator(self.seed, "offset", step))
            noise = noise + self.noise_offset * level
        shown = None
        if self.input_perturbation:
            further = torch.randn((count, *self.shape), generator=generator(self.seed, "perturbation", step))
            shown = noise + self.input_perturbation * further
        variants = None
        if self.variants:
            variants = torch.randint(self.variants, (count,), generator=generator(self.seed, "variant", step)).tolist()
        return Draw(self.order(step * count, count), flipped.tolist(), dropped.tolist(), timesteps, noise, posterior, shown, variants)
