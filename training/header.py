"""The text header of an adapter file.

It follows the SAI model spec 1.0.0 (https://github.com/Stability-AI/ModelSpec) and the `ss_*` entries of kohya's sd-scripts, which
other tools show; `medtune.*` holds what is needed to make the file again.
"""

from __future__ import annotations

import base64
import datetime
import importlib.metadata
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config as options_of
from ..files import hash_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from .base import Base
    from .method import Method

FORMAT = "1"

_ARCHITECTURES = {("sd1", "epsilon"): "stable-diffusion-v1", ("sd1", "v_prediction"): "stable-diffusion-v1",
                  ("sd2", "epsilon"): "stable-diffusion-v2-512", ("sd2", "v_prediction"): "stable-diffusion-v2-768-v",
                  ("embedded", "epsilon"): "medtune-embedded", ("embedded", "v_prediction"): "medtune-embedded"}


def make_header(base: Base, method: Method, *, title: str, steps: int, lr: float, images: int, data_hash: str, size: int = 512,
                options: Mapping[str, Any] | None = None, objective: Mapping[str, Any] | None = None,
                thumbnail: Image | None = None) -> dict[str, str]:
    """The header of an adapter.

    `options` and `objective` are the training's as JSON values, `images` the number of training images, `size` their side in pixels.
    """
    options, objective = dict(options or {}), dict(objective or {})
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    header = _modelspec(base, title, now, size)
    header["modelspec.description"] = f"{method.facts.title}; training images: {images}, steps: {steps}; by MedTune"
    if thumbnail is not None:
        header["modelspec.thumbnail"] = thumbnail_url(thumbnail)
    header |= _kohya_base(base) | _kohya_options(method, options) | _kohya_objective(objective) | {
        "ss_output_name": title,
        "ss_learning_rate": str(lr),
        "ss_num_train_images": str(images),
        "ss_steps": str(steps),
        "ss_max_train_steps": str(options.get("steps", steps)),
        "ss_resolution": f"({size}, {size})",
        "ss_session_id": str(int(hash_json([data_hash, base.hash])[:8], 16)),
        "ss_training_finished_at": str(now.timestamp()),
    }
    return header | _medtune(base, method, data_hash, options, objective)


def _modelspec(base: Base, title: str, now: datetime.datetime, size: int) -> dict[str, str]:
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture(base)}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.date": now.isoformat().replace("+00:00", "Z"),
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.prediction_type": "v" if base.prediction == "v_prediction" else "epsilon",
    }


def architecture(base: Base) -> str:
    """The model spec's name of a base's architecture."""
    return _ARCHITECTURES[base.kind, base.prediction] + ("-inpainting" if base.channels == 9 else "")


def _kohya_base(base: Base) -> dict[str, str]:
    return {
        "ss_base_model_version": "sd_v2" if base.kind == "sd2" else "sd_v1",
        "ss_v2": str(base.kind == "sd2"),
        "ss_sd_model_name": Path(base.ref).name,
        "ss_sd_model_hash": base.hash[:8],
        "ss_new_sd_model_hash": base.hash,
    }


def _kohya_options(method: Method, options: Mapping[str, Any]) -> dict[str, str]:
    settings = options_of.to_json(method.config)
    return {
        "ss_network_dim": str(settings.get("rank", "Dynamic")),
        "ss_network_alpha": str(settings.get("alpha", "Dynamic")),
        "ss_batch_size_per_device": str(options.get("batch", 1)),
        "ss_gradient_accumulation_steps": str(options.get("accumulation", 1)),
        "ss_optimizer": str(options.get("optimizer", "AdamW")),
        "ss_lr_scheduler": str(options.get("schedule", "constant")),
        "ss_mixed_precision": str(options.get("precision", "fp32")),
        "ss_seed": str(options.get("seed", 0)),
    }


def _kohya_objective(objective: Mapping[str, Any]) -> dict[str, str]:
    """The objective in the words of sd-scripts; what is not used is not named."""
    weighting = objective.get("weighting")
    entries = {
        "ss_min_snr_gamma": objective.get("snr_gamma") if weighting == "min-snr" else None,
        "ss_debiased_estimation": weighting == "debiased" or None,
        "ss_noise_offset": objective.get("noise_offset") or None,
        "ss_ip_noise_gamma": objective.get("input_perturbation") or None,
        "ss_zero_terminal_snr": objective.get("zero_terminal_snr") or None,
        "ss_prior_loss_weight": objective.get("prior_weight") or None,
    }
    return {key: str(value) for key, value in entries.items() if value is not None}


def _medtune(base: Base, method: Method, data_hash: str, options: Mapping[str, Any], objective: Mapping[str, Any]) -> dict[str, str]:
    entries = {
        "medtune.format": FORMAT,
        "medtune.version": package_version(),
        "medtune.method": method.name,
        "medtune.config": json.dumps(options_of.to_json(method.config), sort_keys=True),
        "medtune.base": Path(base.ref).name,
        "medtune.base_hash": base.hash,
        "medtune.data_hash": data_hash,
        "medtune.options": json.dumps(options, sort_keys=True),
        "medtune.objective": json.dumps(objective, sort_keys=True),
    }
    return entries | ({"medtune.notice": base.notice} if base.notice else {})


def package_version() -> str:
    """The version of this package, from its pyproject.toml where it runs as a folder, else from its installation."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    if project.is_file() and (found := re.search(r'^version\s*=\s*"([^"]+)"', project.read_text(encoding="utf-8"), re.MULTILINE)):
        return found[1]
    try:
        return importlib.metadata.version("medtune")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def thumbnail_url(image: Image, size: int = 256) -> str:
    """A picture as the JPEG data URL that the model spec asks for."""
    small, buffer = image.convert("RGB"), io.BytesIO()
    small.thumbnail((size, size))
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
