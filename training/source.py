"""Where a base's weights come from: a single LDM file, a diffusers folder, or tensors that walk through a graph.

Each is read part by part, on demand and memory-mapped where it is a file: original weights need not be kept beside trained ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Missing, ModelError, listing
from ..files import cache_folder, hash_file, hash_json, write_json
from . import layout as shapes_of
from .file_kind import read_header
from .keys import UNET_PREFIX, text_name
from .layout import LATENT_SCALE, TEXT_PREFIX, VAE_PREFIX, Layout, find_layout

PARTS = ("unet", "text_encoder", "vae")
PREDICTIONS = ("epsilon", "v_prediction")

V_SIGN = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
"""Stable Diffusion 2: the spread of this bias is above 0.09 in v-prediction models. ComfyUI decides by it, and files seldom say."""


@dataclass(frozen=True)
class Source:
    """A base before it is built. `read(part)` gives one part's tensors in diffusers' names, empty where the source has none.

    `scale` and `shift` take an autoencoder's raw latents to the U-Net's: (latent + shift) * scale.
    """

    ref: str
    hash: str
    layout: Layout
    prediction: str
    read: Callable[[str], dict[str, Tensor]]
    scale: float = LATENT_SCALE
    shift: float = 0.0
    without: frozenset[str] = frozenset()

    def has(self, part: str) -> bool:
        """Whether the part was given; a part of a file always is, or is missing and an error."""
        return part not in self.without


def open_file(path: str | Path, prediction: str | None = None) -> Source:
    """A single-file checkpoint in LDM layout. Raises Missing or ModelError that says what the file is."""
    path = Path(path)
    header = read_header(path)
    layout = find_layout(header.shapes, str(path))
    scale, shift = latent_scale(_read(path, VAE_PREFIX + "vae_s"), layout)

    def read(part: str) -> dict[str, Tensor]:
        return _convert(_read(path, _PREFIXES[part]), part, layout, str(path))

    guess = _read(path, UNET_PREFIX + V_SIGN) if layout.kind == "sd2" else {}
    said = header.metadata.get("modelspec.prediction_type")
    return Source(str(path), cached_hash(path), layout, find_prediction(layout, guess, said, prediction), read, scale, shift)


_PREFIXES = {"unet": UNET_PREFIX, "text_encoder": "cond_stage_model.", "vae": VAE_PREFIX}


def _read(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a file whose names begin so, memory-mapped."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118  (not a dict)


def _convert(tensors: Mapping[str, Tensor], part: str, layout: Layout, name: str) -> dict[str, Tensor]:
    convert = {"unet": shapes_of.convert_unet, "text_encoder": shapes_of.convert_text, "vae": shapes_of.convert_vae}[part]
    return convert(tensors, layout, name)


def find_prediction(layout: Layout, tensors: Mapping[str, Tensor], said: str | None, chosen: str | None) -> str:
    """What the U-Net predicts: as chosen, else as the file says, else by ComfyUI's rule for Stable Diffusion 2.

    `said` is `modelspec.prediction_type` or a scheduler's `prediction_type`.
    """
    if chosen is not None:
        if chosen not in PREDICTIONS:
            raise ModelError(f"the prediction type is {chosen!r}; it must be one of: {', '.join(PREDICTIONS)}")
        return chosen
    if said:
        known = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
        if said not in known:
            raise ModelError(f"the file says that it predicts {said!r}, and only epsilon and v can be tuned. If the file is wrong, "
                             f"give the prediction type yourself: {', '.join(PREDICTIONS)}.")
        return known[said]
    sign = tensors.get(UNET_PREFIX + V_SIGN)
    four = layout.unet["in_channels"] == 4  # Stable Diffusion 2 inpainting predicts noise
    return "v_prediction" if layout.kind == "sd2" and four and sign is not None and _spread(sign) > 0.09 else "epsilon"


def _spread(values: Tensor) -> float:
    return values.float().std(unbiased=False).item()


def latent_scale(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[float, float]:
    """(scale, shift) of a Source, from the scalars that a TAESD-layout autoencoder carries."""
    if not layout.tiny_vae:
        return LATENT_SCALE, 0.0
    value = {name.rpartition(".")[2]: float(tensor) for name, tensor in tensors.items() if tensor.numel() == 1}
    own = value.get("vae_scale", LATENT_SCALE)
    return LATENT_SCALE / own, value.get("vae_shift", 0.0) * own


def open_tensors(unet: Mapping[str, Tensor], text: Mapping[str, Tensor] | None, vae: Mapping[str, Tensor] | None, name: str,
                 prediction: str | None = None) -> Source:
    """Plain weights out of a running graph. The tensors are kept as they are given: hand over copies.

    `unet` in LDM names without a prefix, `text` as `text_model....`, `vae` in LDM or TAESD names.
    """
    tensors = {UNET_PREFIX + key: value for key, value in unet.items()}
    tensors |= {TEXT_PREFIX + text_name(key): value for key, value in (text or {}).items()}
    tensors |= {VAE_PREFIX + key: value for key, value in (vae or {}).items()}
    layout = find_layout({key: tuple(value.shape) for key, value in tensors.items()}, name)
    layout = _with_vae(layout, vae or {})
    scale, shift = latent_scale(tensors, layout)

    def read(part: str) -> dict[str, Tensor]:
        return _convert({key: value for key, value in tensors.items() if key.startswith(_PREFIXES[part])}, part, layout, name)

    without = frozenset(part for part, given in (("text_encoder", text), ("vae", vae)) if given is None)
    found = find_prediction(layout, tensors, None, prediction)
    return Source(name, hash_tensors(tensors), layout, found, read, scale, shift, without)


def open_checkpoint(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> Source:
    """A whole checkpoint in LDM layout that is in memory. The tensors are kept as they are given."""
    layout = find_layout({key: tuple(value.shape) for key, value in tensors.items()}, name)
    scale, shift = latent_scale({key: value for key, value in tensors.items() if key.startswith(VAE_PREFIX + "vae_s")}, layout)

    def read(part: str) -> dict[str, Tensor]:
        return _convert({key: value for key, value in tensors.items() if key.startswith(_PREFIXES[part])}, part, layout, name)

    prediction = find_prediction(layout, tensors, metadata.get("modelspec.prediction_type"), None)
    return Source(name, hash_tensors(tensors), layout, prediction, read, scale, shift)


def _with_vae(layout: Layout, vae: Mapping[str, Tensor]) -> Layout:
    """The layout with the autoencoder that was given, which in a graph need not be the checkpoint's own."""
    from dataclasses import replace

    if not vae:
        return layout
    like = "embedded" if any(key.startswith("taesd_") for key in vae) else "sd1"
    return replace(layout, vae=shapes_of.LAYOUTS[like].vae)


def open_folder(folder: str | Path, prediction: str | None = None) -> Source:
    """A folder as diffusers saves pipelines. Raises Missing or ModelError naming the file at fault."""
    folder = Path(folder)
    _check_index(folder)
    configs = {part: _json(folder / part / "config.json") for part in PARTS}
    layout = _folder_layout(folder, configs)
    files = {part: _weight_files(folder / part) for part in PARTS}
    for part in PARTS:
        for file in files[part]:
            read_header(file)

    def read(part: str) -> dict[str, Tensor]:
        tensors = {name: value for file in files[part] for name, value in _read(file, "").items()}
        if part == "text_encoder":
            tensors = {text_name(name): value for name, value in tensors.items() if not name.endswith(shapes_of.IGNORED_TEXT)}
        return tensors

    digest = hash_json({part: [cached_hash(file) for file in files[part]] for part in PARTS})
    said = layout.scheduler.get("prediction_type")
    scale = configs["vae"].get("scaling_factor", LATENT_SCALE)
    return Source(str(folder), digest, layout, find_prediction(layout, {}, said, prediction), read, scale)


_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionInpaintPipelineLegacy",
              "StableDiffusionImg2ImgPipeline")


def _check_index(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        raise Missing(f"{folder} has no model_index.json: it is not a diffusers pipeline. Give the folder that holds unet/, vae/ and "
                      "text_encoder/, or a .safetensors file.")
    kind = _json(folder / "model_index.json").get("_class_name", "")
    if kind not in _PIPELINES:
        raise ModelError(f"{folder} is a {kind or 'nameless'} pipeline, not a base. {shapes_of.SUPPORTED}")


def _folder_layout(folder: Path, configs: dict[str, dict]) -> Layout:
    unet = configs["unet"]
    try:
        found = shapes_of.match_layout(unet["in_channels"], unet["block_out_channels"][0], unet["cross_attention_dim"], str(folder))
    except KeyError as error:
        raise ModelError(f"{folder / 'unet' / 'config.json'} does not say {error}. Take the whole, original folder.") from error
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    plain = {part: {key: value for key, value in config.items() if not key.startswith("_")} for part, config in configs.items()}
    return Layout(found.kind, plain["unet"], plain["text_encoder"], plain["vae"],
                  {key: value for key, value in scheduler.items() if not key.startswith("_")})


def _weight_files(folder: Path) -> list[Path]:
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in ("", ".fp16"):
            if (file := folder / f"{stem}{variant}.safetensors").is_file():
                return [file]
            if (index := folder / f"{stem}.safetensors.index{variant}.json").is_file():
                return sorted({folder / Path(name).name for name in _json(index).get("weight_map", {}).values()})
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    held = f"; it holds {listing(pickles)}, a pickle, which is never read here" if pickles else ""
    raise Missing(f"{folder} has no .safetensors weights{held}. Take the safetensors files of the same model.")


def _json(path: Path) -> dict:
    if not path.is_file():
        raise Missing(f"{path} is missing. Take the whole, original folder.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}). Take the whole, original folder.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object. Take the whole, original folder.")
    return value


def cached_hash(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache folder by its path, size and time of change."""
    state = path.stat()
    key = hash_json([str(path.resolve()), state.st_size, state.st_mtime_ns])
    note = cache_folder() / "hashes" / f"{key}.json"
    try:
        return json.loads(note.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        digest = hash_file(path)
        write_json(note, {"file": str(path), "sha256": digest})
        return digest


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()
