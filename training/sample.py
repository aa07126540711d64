"""Base and prompts -> an image set.

Each image has a seed of its own and draws its noise from its own generator (the noise that ComfyUI's KSampler draws for that
seed), so that the batch size changes nothing but the time. Sampling into a folder that holds part of the images goes on there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import config
from ..data.image_set import ImageSet
from ..data.record import Record
from ..errors import DataError, ModelError, listing
from .sampler import SCALE, SampleOptions, check_options, draw_noise, sample_latents

if TYPE_CHECKING:
    from .base import Base


@dataclass(frozen=True)
class Prompt:
    """What one image is to show; without a seed, the sampling options' seed plus the image's place counts."""

    text: str
    labels: tuple[str, ...] = ()
    seed: int | None = None
    patient: str | None = None


def sample(base: Base, prompts: Sequence[Prompt], out: str | Path, options: SampleOptions | None = None,
           adapter: dict[str, Any] | None = None, *, on_image: Callable[[int, int, Record], None] | None = None,
           on_step: Callable[[int, int], None] | None = None) -> ImageSet:
    """Draw one image a prompt into the image set at ``out``; images that are there already are kept.

    ``adapter`` says what was applied to the base and is written down with the rest (``medtune.json``). ``on_image(done, total,
    record)`` follows each written image, ``on_step(done, total)`` each step of a batch; an exception out of either leaves whole
    files and goes on outward. Raises DataError when the folder holds images of other settings, ConfigError for a bad setting.
    """
    options = check_options(options or SampleOptions())
    prompts = _with_seeds(prompts, options.seed)
    notices = _check_lengths(base, [prompt.text for prompt in prompts] + [options.negative], options.long_prompts)
    image_set = _open(Path(out), prompts, _info(base, options, adapter, notices))
    written = {record.image.name for record in image_set.records}
    missing = [index for index in range(len(prompts)) if _file_name(index) not in written]
    states = _States(base)
    done = len(prompts) - len(missing)
    for start in range(0, len(missing), options.batch):
        indices = missing[start:start + options.batch]
        images = _draw(base, [prompts[index] for index in indices], states, options, on_step)
        for index, image in zip(indices, images):
            record = _append(image_set, image, prompts[index], _file_name(index), options)
            done += 1
            if on_image is not None:
                on_image(done, len(prompts), record)
    return image_set


class _States:
    """Text states, each prompt encoded once."""

    def __init__(self, base: Base):
        self.base, self.known = base, {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for text in new:  # one by one: a text's states must not depend on its neighbours
            self.known[text] = self.base.encode_prompts([text])[0]
        return torch.stack([self.known[text] for text in texts])  # (N, 77, d)


def _draw(base: Base, prompts: list[Prompt], states: _States, options: SampleOptions,
          on_step: Callable[[int, int], None] | None) -> Tensor:
    noise = draw_noise([prompt.seed for prompt in prompts], options.size)
    with torch.no_grad():
        wanted, unwanted = states([prompt.text for prompt in prompts]), states([options.negative] * len(prompts))
        latents = sample_latents(base, wanted, unwanted, noise, options,
                                 extra=_blank(base, noise), on_step=on_step)
        images = base.decode_latents(latents).float().cpu()  # (N, 3, size, size)
    if not torch.isfinite(images).all():
        raise ModelError(f"images with NaN or infinite values came out for {listing(prompt.text for prompt in prompts)}: "
                         "the adapter or the base is broken, or its numbers overflow in half precision (try float32)")
    return images.clamp(0, 1)


def _blank(base: Base, noise: Tensor) -> Tensor | None:
    """For an inpainting U-Net the channels that mean "paint everything": a mask of ones and the latents of mid-grey."""
    if base.channels == 4:
        return None
    grey = base.encode_images(torch.full((1, 3, noise.shape[2] * SCALE, noise.shape[3] * SCALE), 0.5)).cpu()
    return torch.cat([torch.ones_like(noise[:, :1]), grey.expand_as(noise)], dim=1)


def _with_seeds(prompts: Sequence[Prompt], first: int) -> list[Prompt]:
    if not prompts:
        raise DataError("no prompts to sample; give at least one, or a table of labels with counts above 0")
    return [prompt if prompt.seed is not None else Prompt(prompt.text, prompt.labels, first + index, prompt.patient)
            for index, prompt in enumerate(prompts)]


def _check_lengths(base: Base, texts: list[str], rule: str) -> list[str]:
    """What to say of prompts that are longer than the text encoder reads; DataError when they are refused."""
    texts = list(dict.fromkeys(texts))
    _, lengths = base.tokens(texts)
    long = [f"{text!r} ({length} tokens)" for text, length in zip(texts, lengths) if length > 77]
    if long and rule == "refuse":
        raise DataError(f"{len(long)} prompts are longer than the 77 tokens that the text encoder reads: {listing(long, 3)}. "
                        "Shorten them, or set long_prompts to cut.")
    return [f"{len(long)} prompts were cut to 77 tokens: {listing(long, 3)}"] if long else []


def _info(base: Base, options: SampleOptions, adapter: dict[str, Any] | None, notices: list[str]) -> dict[str, Any]:
    settings = {key: value for key, value in config.to_json(options).items() if key not in ("batch", "seed")}
    weights = {"ref": str(base.ref), "hash": base.hash, "kind": base.kind, "prediction": base.prediction, "notice": base.notice}
    return {"made_by": "medtune sample", "base": weights, "adapter": adapter, "options": settings, "notices": notices}


def _open(out: Path, prompts: list[Prompt], info: dict[str, Any]) -> ImageSet:
    """The image set to write to, after the check that what it holds was made by the same settings and prompts."""
    image_set = ImageSet(out)
    held = image_set.read_info()
    if held:
        differing = [key for key in ("base", "adapter", "options") if _comparable(held, key) != _comparable(info, key)]
        if differing:
            raise DataError(f"{out} holds images that were drawn with another {' and '.join(differing)}; "
                            "choose another folder, or delete it")
    elif image_set.records:
        raise DataError(f"{out} holds {len(image_set.records)} images that were not drawn here; choose another folder")
    expected = {_file_name(index): (prompt.text, prompt.seed) for index, prompt in enumerate(prompts)}
    other = [name for record in image_set.records
             if expected.get(name := record.image.name) != (record.caption, record.seed)]
    if other:
        raise DataError(f"{out} holds {len(other)} images of other prompts or seeds: {listing(other)}; "
                        "choose another folder, or delete it")
    if not held:
        image_set.write_info(info)
    return image_set


def _comparable(info: dict[str, Any], key: str) -> Any:
    """What decides the pixels: of base and adapter their weights, not the path to them."""
    value = json.loads(json.dumps(info.get(key)))
    if key in ("base", "adapter") and value and value.get("hash"):
        return value["hash"], value.get("strength", 1.0)
    return value


def _append(image_set: ImageSet, image: Tensor, prompt: Prompt, file_name: str, options: SampleOptions) -> Record:
    drawn = {key: value for key, value in config.to_json(options).items() if key not in ("batch", "seed", "long_prompts")}
    return image_set.append(image, prompt.text, labels=prompt.labels, patient=prompt.patient, seed=prompt.seed,
                            file_name=file_name, **drawn)


def _file_name(index: int) -> str:
    return f"{index:05d}.png"
