"""What published studies trained, by name: ``pixels-under-pressure/lora`` stands for a method and its settings.

One file of ``presets`` a study. A preset holds what its study says and nothing else; all else is left at MedTune's defaults, and its
``notes`` say what that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import from_json
from ..errors import ConfigError
from ..registry import Registry
from .method import METHODS, Method
from .objective import ObjectiveOptions
from .options import TrainOptions
from .sampler import SampleOptions

if TYPE_CHECKING:
    from .base import Base

KINDS = {"sd1": "Stable Diffusion 1.x", "sd1-inpainting": "Stable Diffusion 1.x for inpainting", "sd2": "Stable Diffusion 2.x",
         "sd2-inpainting": "Stable Diffusion 2.x for inpainting", "embedded": "the embedded base"}


@dataclass(frozen=True)
class Preset:
    """One configuration of a study.

    ``source`` is the study with its year, ``bases`` the kinds (keys of KINDS) that it trained, where none means any, ``prediction``
    what its base predicts where the kind leaves that open. ``config`` are values of the method's config, ``options`` of TrainOptions,
    ``objective`` of ObjectiveOptions, ``sampling`` of SampleOptions; ``caption`` is the template of its captions, empty where they
    come with the data.
    """

    name: str
    title: str
    source: str
    method: str
    bases: tuple[str, ...]
    notes: str
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    caption: str = ""
    prediction: str = ""

    def make_method(self, **changes: Any) -> Method:
        """The method with the preset's settings, and others in their place where they are given."""
        entry = METHODS[self.method]
        return entry(from_json(entry.Config, {**self.config, **changes}))

    def train_options(self, **changes: Any) -> TrainOptions:
        """The training options."""
        return from_json(TrainOptions, {**self.options, **changes})

    def objective_options(self, **changes: Any) -> ObjectiveOptions:
        """What is minimised."""
        return from_json(ObjectiveOptions, {**self.objective, **changes})

    def sample_options(self, **changes: Any) -> SampleOptions:
        """The sampling options."""
        return from_json(SampleOptions, {**self.sampling, **changes})


PLAIN = Preset("", "No preset", "", "lora", (), "MedTune's defaults.")
PRESETS: Registry[Preset] = Registry("preset", __package__ + ".presets")


def publish(*presets: Preset) -> None:
    """File presets under their names."""
    for preset in presets:
        PRESETS.register(preset.name)(preset)


def use(preset: Preset, base: Base, any_base: bool = False) -> list[str]:
    """What there is to say of a preset on a base.

    Raises ConfigError where the study trained another kind of base, unless ``any_base`` says that this is meant. The embedded base
    is for trying, and stands in for any.
    """
    kind = base.kind if base.channels == 4 else f"{base.kind}-inpainting"
    wanted = " or ".join(KINDS[name] for name in preset.bases)
    if not preset.bases:
        return []
    if kind == "embedded":
        return [f"preset {preset.name} is for {wanted}, whose learning rates and steps need not suit the embedded base"]
    if kind not in preset.bases:
        if any_base:
            return [f"preset {preset.name} is for {wanted}, and was taken for {KINDS[kind]}: no settings of the study's"]
        raise ConfigError(f"preset {preset.name!r} is for {wanted}, and {base.ref} is {KINDS[kind]}. Choose a base of that kind or "
                          "another preset (medtune methods --presets), or set any_base to take its settings all the same.")
    if preset.prediction and base.prediction != preset.prediction:
        return [f"preset {preset.name} is for a base that predicts {preset.prediction}, and {base.ref} predicts {base.prediction}"]
    return []
