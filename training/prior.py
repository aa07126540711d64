"""DreamBooth's prior preservation: images of the class, drawn once by the untuned base, on which the loss is minimised too.

Ruiz et al., CVPR 2023, "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..data.image_set import ImageSet
from ..data.record import Record
from ..errors import ConfigError
from ..files import cache_folder, hash_json
from .objective import ObjectiveOptions

if TYPE_CHECKING:
    from .base import Base

FORMAT = 1  # part of each address: raise it when the same request draws other images


def check_class(objective: ObjectiveOptions) -> None:
    """Raise ConfigError for a weight without a class prompt, and for a class prompt without a weight."""
    prompt = objective.class_prompt.strip()
    if objective.prior_weight and not prompt:
        raise ConfigError(f"prior_weight is {objective.prior_weight:g} and class_prompt is empty: prior preservation needs a prompt "
                          "for the class, such as 'chest X-ray'. Give one, or set prior_weight to 0")
    if prompt and not objective.prior_weight:
        raise ConfigError(f"class_prompt is {prompt!r} and prior_weight is 0, so that it would not be used. Set prior_weight, such as "
                          "to 1, or leave class_prompt empty")


def class_records(base: Base, objective: ObjectiveOptions, size: int,
                  on_progress: Callable[[int, int], None] | None = None) -> list[Record]:
    """The images of the class, each with the class prompt as its caption; none without prior preservation.

    They lie in the cache under the hash of the base, the prompt and how they are drawn: what is there is used, by all trainings,
    and what is missing is drawn by the base as it is, which must not have been changed yet.
    """
    from filelock import FileLock

    from .sample import Prompt, sample
    from .sampler import SampleOptions

    if not objective.prior_weight:
        return []
    prompt = objective.class_prompt.strip()
    options = SampleOptions(steps=objective.class_steps, guidance=objective.class_cfg, size=size, long_prompts="cut")
    address = hash_json([FORMAT, base.hash, base.prediction, prompt, options.sampler, options.steps, options.guidance, size])
    folder = cache_folder() / "prior" / address[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # another training may be drawing them
        held = ImageSet(folder).records
        if len(held) < objective.class_images:
            prompts = [Prompt(prompt)] * objective.class_images
            held = sample(base, prompts, folder, options,
                          on_image=None if on_progress is None else lambda done, total, record: on_progress(done, total)).records
    return [Record(record.image, prompt) for record in held[:objective.class_images]]
