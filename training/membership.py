"""How well a base, with and without an adapter, takes the noise off each of some images: what tells trained images from others.

Each image meets the same noises at the same noise levels, one from the middle of each equal part of the schedule, under both models.
The loss is the objective's, over all of the image and without weights by noise level. Evaluation reads the file and says what follows
from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import config
from ..config import option
from ..data.identity import hash_records
from ..data.image import hash_image
from ..data.record import Record
from ..errors import DataError
from ..files import write_json
from .adapter import Adapter, apply_adapter
from .cache import blank_channels, cache_latents, cache_text
from .draws import generator
from .method import METHODS
from .objective import cumulative_alphas, denoising_loss, follow_schedule
from .sampler import evaluating

if TYPE_CHECKING:
    from .base import Base

TRAINED, HELD_OUT = "train", "held-out"


@dataclass(frozen=True)
class MembershipOptions:
    """How losses are measured."""

    draws: int = option(16, "Noises that each image meets, at as many levels.", low=1, high=1000)
    size: int = option(512, "Side of the images in pixels, a multiple of 64; as in the training.", low=64, high=2048, step=64)
    fit: str = option("crop", "How an image becomes a square; as in the training.", choices=("crop", "pad"))
    seed: int = option(0, "Seed of the noises.", low=0, high=2**53 - 1)
    batch: int = option(8, "Images at once; changes the time and the memory alone.", low=1, high=1024)
    other_data: bool = option(False, "Take training images that are not, or not exactly, those that the adapter says it was trained "
                              "on.", advanced=True)


@dataclass(frozen=True)
class ImageLoss:
    """An image by its hash, with its mean losses under base and adapter and under the base alone."""

    image: str
    file: str
    patient: str | None
    split: str
    loss: float
    base_loss: float


@dataclass(frozen=True)
class MembershipLosses:
    """The losses of training and of held-out images, and what was measured."""

    images: tuple[ImageLoss, ...]
    base: dict[str, Any]
    adapters: tuple[dict[str, Any], ...]
    options: dict[str, Any]
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self) | {"images": [asdict(image) for image in self.images], "adapters": list(self.adapters),
                               "notices": list(self.notices)}

    def write(self, path: str | Path) -> None:
        """Keep them as a JSON file."""
        write_json(path, self.to_json())


def membership_losses(base: Base, adapters: Sequence[Adapter], trained: Sequence[Record], held_out: Sequence[Record],
                      options: MembershipOptions | None = None, *, strength: float = 1.0, cache: Path | None = None,
                      on_progress: Callable[[int, int], None] | None = None) -> MembershipLosses:
    """Measure both models' losses of every image; the base is changed, and ends with the adapters applied.

    ``adapters`` are the files of one training. ``cache`` is a folder for latents and text states. ``on_progress(done, total)`` counts
    batches. Raises DataError where a set is empty, where an image is in both, and where an adapter says that it was trained on other
    images than ``trained``.
    """
    options = config.check(options or MembershipOptions())
    records = [*trained, *held_out]
    hashes = [hash_image(record.image) for record in records]
    _check_sets(hashes, len(trained))
    told = _check_data(adapters, trained, options.other_data)
    plain = [record.caption for record in records]
    total = 2 * len(range(0, len(records), options.batch))
    for adapter in adapters:
        follow_schedule(base, adapter.header)  # both models on the schedule of the training
    before = denoising_losses(base, records, plain, options, cache=cache, on_progress=_offset(on_progress, 0, total))
    for adapter in adapters:
        told += apply_adapter(base, adapter, strength)
    captions = [_taught(adapters, caption) for caption in plain]
    after = denoising_losses(base, records, captions, options, cache=cache,
                             on_progress=_offset(on_progress, total // 2, total))
    images = tuple(ImageLoss(digest, str(record.image), record.patient, TRAINED if place < len(trained) else HELD_OUT, loss, base_loss)
                   for place, (digest, record, loss, base_loss) in
                   enumerate(zip(hashes, records, after.mean(1).tolist(), before.mean(1).tolist(), strict=True)))
    about = {"ref": str(base.ref), "hash": base.hash, "kind": base.kind, "notice": base.notice}
    said = [*([base.notice] if base.notice else []), *told]
    return MembershipLosses(images, about, tuple({**adapter.info(), "strength": strength} for adapter in adapters),
                            config.to_json(options), tuple(said))


def trained_with(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """Size and fit of the images that adapters were trained on, as far as they say."""
    found: dict[str, Any] = {}
    for adapter in adapters:
        options = adapter.info().get("options")
        found |= {key: options[key] for key in ("size", "fit") if key in options} if isinstance(options, dict) else {}
    return found if found.get("fit") != "none" else {"size": found["size"]}


def denoising_losses(base: Base, records: Sequence[Record], captions: Sequence[str], options: MembershipOptions, *,
                     cache: Path | None = None, on_progress: Callable[[int, int], None] | None = None) -> Tensor:
    """The losses (N, draws) of images under the base as it is, with these captions, on its schedule."""
    latents = cache_latents(base, records, cache, size=options.size, fit=options.fit)
    states = cache_text(base, captions, cache)
    blank = blank_channels(base, latents.shape)
    schedule = base.scheduler_config
    alphas = cumulative_alphas(schedule, bool(schedule.get("rescale_betas_zero_snr"))).to(base.device)
    noises, timesteps = (part.to(base.device) for part in membership_noise(latents.shape, len(alphas), options))
    starts, found = range(0, len(records), options.batch), []
    with torch.no_grad(), evaluating(base.unet):
        for number, start in enumerate(starts):
            places = range(start, min(start + options.batch, len(records)))
            images = latents.batch(places, [False] * len(places)).to(base.device)
            texts = states.batch([captions[place] for place in places]).to(base.device)
            extra = None if blank is None else blank.to(base.device).expand(len(places), -1, -1, -1)
            found.append(torch.stack([
                denoising_loss(base.unet, images, texts, noise.expand_as(images), timestep.expand(len(places)), alphas=alphas,
                               prediction=base.prediction, extra_channels=extra)
                for noise, timestep in zip(noises, timesteps)], dim=1).cpu())
            if on_progress is not None:
                on_progress(number + 1, len(starts))
    return torch.cat(found)


def membership_noise(shape: Sequence[int], levels: int, options: MembershipOptions) -> tuple[Tensor, Tensor]:
    """The noises (draws, 4, h, w) and timesteps (draws,) that every image meets."""
    noises = torch.stack([torch.randn(tuple(shape), generator=generator(options.seed, "membership", number))
                          for number in range(options.draws)])
    return noises, ((torch.arange(options.draws) + 0.5) * levels / options.draws).long()


def _check_sets(hashes: Sequence[str], trained: int) -> None:
    if not 0 < trained < len(hashes):
        raise DataError(f"there are {trained} training and {len(hashes) - trained} held-out images; both are needed")
    both = set(hashes[:trained]) & set(hashes[trained:])
    if both:
        raise DataError(f"{len(both)} images are among both the {trained} training and the {len(hashes) - trained} held-out images; "
                        "leave them out of one")


def _check_data(adapters: Sequence[Adapter], trained: Sequence[Record], other_data: bool) -> list[str]:
    """What to say of adapters that name no data, or other data where that is allowed."""
    found, said = hash_records(trained), []
    for adapter in adapters:
        named = adapter.header.get("medtune.data_hash")
        if named == found:
            continue
        if named is None:
            said.append(f"{adapter.name} does not say what it was trained on: that it was these {len(trained)} images is taken on "
                        "trust")
            continue
        text = f"{adapter.name} was trained on other data ({named[:12]}) than these {len(trained)} images ({found[:12]})"
        if not other_data:
            raise DataError(f"{text}. Give the images, with captions and split, that it was trained on; or allow other_data, where a "
                            "difference in captions or order is known to be all")
        said.append(text)
    return said


def _taught(adapters: Sequence[Adapter], caption: str) -> str:
    """The caption as the text encoder read it in training."""
    for adapter in adapters:
        name, settings = adapter.header.get("medtune.method"), adapter.config()
        if name in METHODS and settings is not None:
            return METHODS[name](config.from_json(METHODS[name].Config, settings)).caption(caption)
    return caption


def _offset(on_progress: Callable[[int, int], None] | None, offset: int, total: int) -> Callable[[int, int], None] | None:
    return None if on_progress is None else lambda done, _: on_progress(offset + done, total)
