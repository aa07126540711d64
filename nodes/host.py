"""ComfyUI as the nodes see it: folders, progress, interruption, memory, tensors, weights. The only file that imports ComfyUI."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_management as memory
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io, ui
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..errors import ConfigError, Missing, ModelError, listing, near
from ..evaluation.networks.weights import weights_folder
from ..files import whole
from ..training.embedded import FILE
from . import embedded

__all__ = ["io", "ui"]

RECORDS = io.Custom("MEDTUNE_RECORDS")
METHOD = io.Custom("MEDTUNE_METHOD")
TRAIN_OPTIONS = io.Custom("MEDTUNE_TRAIN_OPTIONS")
OBJECTIVE = io.Custom("MEDTUNE_OBJECTIVE")
SAMPLE_OPTIONS = io.Custom("MEDTUNE_SAMPLE_OPTIONS")
ADAPTER = io.Custom("MEDTUNE_ADAPTER")
EXTRACTOR = io.Custom("MEDTUNE_EXTRACTOR")
FEATURES = io.Custom("MEDTUNE_FEATURES")
RECORDS_OR_FEATURES = io.Custom("MEDTUNE_RECORDS,MEDTUNE_FEATURES")
METRIC_SET = io.Custom("MEDTUNE_METRICS")
SCORES = io.Custom("MEDTUNE_SCORES")
LORA_MODEL = io.Custom("LORA_MODEL")
LOSS_MAP = io.Custom("LOSS_MAP")


class _FileName(str):
    """A socket type that also fits a stock loader's list of files, whose entries did not include this one at the start."""

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, list) and other != "*" and str.__ne__(self, other)

    __hash__ = str.__hash__


class FileNameOutput(io.String.Output):
    """A file's name, to link into a STRING or into the file widget of a stock loader."""

    @property
    def io_type(self) -> str:
        return _FileName("COMBO,STRING")


def extension(nodes: list[type]) -> ComfyExtension:
    """The pack as ComfyUI takes it."""

    class MedTune(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return nodes

    return MedTune()


def register_base() -> None:
    """Let the stock checkpoint loader list and load the embedded base."""
    embedded.register(comfy.supported_models, comfy.supported_models_base, comfy.sd1_clip)
    if FILE.exists():
        folder_paths.add_model_folder_path("checkpoints", str(FILE.parent))


def supported(kind: Any, **facts: Any) -> dict[str, Any]:
    """Those of the arguments that this ComfyUI's version of the class takes; None values are left out."""
    known = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in facts.items() if name in known and value is not None}


# Folders: what a workflow names stays within ComfyUI's own.


def roots() -> dict[str, Path]:
    """The folders that a workflow may name paths in, by the first part of such a path."""
    folders = {"input": folder_paths.get_input_directory(), "datasets": _datasets()[0],
               "output": folder_paths.get_output_directory(), "models": folder_paths.models_dir}
    return {name: Path(os.path.realpath(folder)) for name, folder in folders.items()}


def _datasets() -> list[str]:
    """ComfyUI's folders for data sets, those of extra_model_paths.yaml among them; versions without have `datasets` beside `input`."""
    known = folder_paths.folder_names_and_paths.get("datasets", ([], set()))[0]
    return list(known) or [os.path.join(folder_paths.base_path, "datasets")]


def resolve(text: str) -> Path:
    """The path that a workflow's text means: `input/x`, `datasets/x`, `output/x`, `models/x`, or an absolute one inside them.

    Raises ConfigError for anything outside, whatever links and `..` it goes through.
    """
    named = roots()
    parts = Path(text.strip()).parts
    begins = ", ".join(f"{name}/" for name in named)
    if not parts:
        raise ConfigError(f"the path is empty; give one that begins with {begins}")
    starts = _datasets() if parts[0] == "datasets" else [named[parts[0]]] if parts[0] in named else ["/"]
    paths = [Path(os.path.realpath(Path(start, *parts[1:] if parts[0] in named else parts))) for start in starts]
    path = next((path for path in paths if path.exists()), paths[0])
    allowed = [*named.values(), *(Path(os.path.realpath(folder)) for folder in _datasets())]
    rooted = parts[0] in named or Path(text.strip()).is_absolute()
    if not rooted or not any(path == root or root in path.parents for root in allowed):
        raise ConfigError(f"the path {text!r} is not inside ComfyUI's folders; it must begin with {begins}. Put the data there, or "
                          "name its folder as `datasets` in extra_model_paths.yaml.")
    return path


def weights(text: str) -> str:
    """The path of weights that a workflow's text means: below `models/medtune`, or as `resolve` has it; ConfigError for any other."""
    folder = Path(os.path.realpath(weights_folder()))
    path = Path(os.path.realpath(folder / text.strip()))
    return str(path if folder in path.parents and path.exists() else resolve(text))


def register_weights() -> None:
    """Let the weights of extractors lie in `models/medtune`, unless the user has said where they lie."""
    os.environ.setdefault("MEDTUNE_WEIGHTS", os.path.join(folder_paths.models_dir, "medtune"))


def shown(path: Path) -> str:
    """The path as a workflow names it."""
    for name, root in roots().items():
        if path == root or root in path.parents:
            return "/".join((name, *path.relative_to(root).parts))
    return str(path)


def data_folders(depth: int = 3) -> list[str]:
    """Folders below `datasets`, `input` and `output/medtune` to choose from."""
    found: list[str] = []
    for name, root in roots().items():
        start = root / "medtune" if name == "output" else root
        if name == "models" or not start.is_dir():
            continue
        for folder, below, _ in os.walk(start):
            level = len(Path(folder).relative_to(start).parts)
            below[:] = sorted(part for part in below if not part.startswith(".")) if level < depth else []
            found += [shown(Path(folder))] if level else []
    return found


def product_folder(*parts: str) -> Path:
    """A folder below `output/medtune`; names that would lead out of it are refused."""
    for part in parts:
        check_name(part)
    return roots()["output"].joinpath("medtune", *parts)


def check_name(name: str) -> None:
    """Raise ConfigError unless the name can be a file's on every system, and no path."""
    if not name.strip() or name.startswith(".") or len(name) > 100 or set(name) & set('/\\:*?"<>|\0\n'):
        raise ConfigError(f"the name {name[:100]!r} cannot be a file's; use letters, digits, - and _, 100 at most")


def checkpoints() -> list[str]:
    """Base models that the stock checkpoint loader lists."""
    return folder_paths.get_filename_list("checkpoints")


def checkpoint_path(name: str) -> Path:
    """The file of a checkpoint in the stock loader's list."""
    path = folder_paths.get_full_path("checkpoints", name)
    if path is None:
        raise Missing(f"there is no checkpoint {name!r}{near(name, checkpoints())}; models/checkpoints holds: "
                      f"{listing(checkpoints()) or 'nothing'}")
    return Path(path)


def file_base(name: str, device: torch.device) -> Any:
    """The library's base from a checkpoint's name in the stock loader's list."""
    from ..training.base import load_base

    path = checkpoint_path(name)
    return load_base("embedded" if FILE.exists() and os.path.samefile(path, FILE) else path, device=device)


def publish(kind: str, source: Path, name: str) -> Path:
    """Copy a product of a training to where the stock loader of its kind lists it, or, of an embedding, where prompts find it."""
    listed = {"adapter": "loras", "vae": "vae", "model": "checkpoints"}
    folder = roots()["output"] / listed[kind] if kind in listed else Path(folder_paths.get_folder_paths("embeddings")[0])
    target = folder / f"{name}.safetensors"
    with whole(target) as beside:
        shutil.copyfile(source, beside)
    return target


def adapters() -> list[str]:
    """Files that the stock LoRA loaders list."""
    return folder_paths.get_filename_list("loras")


def adapter_path(name: str) -> Path:
    """The file behind a name in the stock LoRA loaders."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise Missing(f"there is no adapter {name!r}{near(name, adapters())}; models/loras and output/loras hold: "
                      f"{listing(adapters()) or 'nothing'}")
    return Path(path)


def picture_link(path: Path) -> dict[str, str]:
    """What the browser needs to fetch an image of the output folder by `/view`."""
    relative = path.resolve().relative_to(roots()["output"])
    return {"filename": relative.name, "subfolder": relative.parent.as_posix(), "type": "output"}


# Progress, interruption, memory.


def check_interrupted() -> None:
    """Raise ComfyUI's interruption when the user asked for it."""
    memory.throw_exception_if_processing_interrupted()


class Progress:
    """A node's progress bar, preview picture and line of text."""

    def __init__(self, node: type, total: int = 1):
        self.node_id = node.hidden.unique_id
        self.bar = comfy.utils.ProgressBar(max(total, 1), node_id=self.node_id)
        self.said = 0.0

    def __call__(self, done: int, total: int, text: str = "", picture: Image.Image | Path | None = None) -> None:
        """Show how far it is; raises ComfyUI's interruption, so call it once a step."""
        check_interrupted()
        if isinstance(picture, Path):
            picture = Image.open(picture).convert("RGB")
        self.bar.update_absolute(done, max(total, 1), ("JPEG", picture, 256) if picture else None)
        if text and (time.monotonic() - self.said > 0.25 or done >= total):
            self.say(text)

    def say(self, text: str) -> None:
        """Show a line of text in the node."""
        self.said = time.monotonic()
        server = getattr(PromptServer, "instance", None)
        if server is not None and self.node_id is not None:
            server.send_progress_text(text, self.node_id)


@contextlib.contextmanager
def computing() -> Iterator[torch.device]:
    """The device, with ComfyUI's own models out of its memory, and tensors that autograd can work with.

    ComfyUI runs nodes in inference mode, whose tensors cannot be trained: whatever came in from outside must be cloned here.
    """
    memory.unload_all_models()
    memory.soft_empty_cache()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield memory.get_torch_device()
    finally:
        memory.soft_empty_cache()


# Tensors and models.


def to_library(images: Tensor) -> Tensor:
    """ComfyUI's images (N, H, W, 1 to 4) as the library's (N, 3, H, W), float32 in [0, 1], on the CPU."""
    colours = images[..., :3] if images.shape[-1] >= 3 else images[..., :1].expand(*images.shape[:-1], 3)
    with torch.inference_mode(False):
        return colours.detach().to("cpu", torch.float32, copy=True).permute(0, 3, 1, 2).clamp(0, 1).contiguous()


def to_comfy(images: Tensor) -> Tensor:
    """The library's images (N, 3, H, W) as ComfyUI's (N, H, W, 3)."""
    return images.permute(0, 2, 3, 1).contiguous()


KINDS = {768: "sd1", 1024: "sd2", 64: "embedded"}
"""The base's kind by the width of its text states."""


def describe(model: Any) -> tuple[str, str]:
    """(kind, prediction) of a MODEL; ModelError for a family that the library cannot train."""
    config = model.model.model_config
    kind = KINDS.get(config.unet_config.get("context_dim"))
    if kind is None or not isinstance(config, (comfy.supported_models.SD15, comfy.supported_models.SD20)):
        raise ModelError(f"the model is a {type(config).__name__}; Stable Diffusion 1.x and 2.x (and the embedded base) can be "
                         "trained")
    return kind, "v_prediction" if "V_PREDICTION" in str(model.model.model_type) else "epsilon"


def graph_base(model: Any, clip: Any, vae: Any, device: torch.device) -> Any:
    """The library's base from a MODEL, CLIP and VAE that come through a graph."""
    from ..training.base import base_from_tensors

    kind, prediction = describe(model)
    return base_from_tensors(unet_weights(model), text_weights(clip), vae_weights(vae), kind, device=device, prediction=prediction)


def to_unet_scale(model: Any, latents: Tensor) -> Tensor:
    """A LATENT's samples as the U-Net sees them, float32 on the CPU."""
    return model.model.process_latent_in(latents.to("cpu", torch.float32))


def unet_weights(model: Any) -> dict[str, Tensor]:
    """A MODEL's U-Net in LDM names, with the LoRAs that it carries merged in."""
    return _plain_weights(model, "diffusion_model.")


def text_weights(clip: Any) -> dict[str, Tensor]:
    """A CLIP's text encoder as `text_model.*`, with the LoRAs that it carries merged in."""
    weights = _plain_weights(clip.patcher, "")
    return {key[key.index("text_model."):]: value for key, value in weights.items() if "text_model." in key}


def vae_weights(vae: Any) -> dict[str, Tensor]:
    """A VAE in LDM or TAESD names."""
    return _plain_weights(vae.patcher, "")


def _plain_weights(patcher: Any, prefix: str) -> dict[str, Tensor]:
    """float32 copies on the CPU; with dynamic VRAM the stored tensors are read-only and unpatched, so patches are applied here."""
    weights = {}
    with torch.inference_mode(False), torch.no_grad():
        for key, ((weight, convert), *patches) in patcher.get_key_patches(prefix or None).items():
            value = convert(memory.cast_to_device(weight, torch.device("cpu"), torch.float32, copy=True), inplace=True)
            if patches:
                value = comfy.lora.calculate_weight(patches, value, key, intermediate_dtype=torch.float32)
            weights[key.removeprefix(prefix)] = value.detach().clone()
    return weights


def apply_adapter(model: Any, clip: Any, tensors: dict[str, Tensor], strength_model: float, strength_clip: float) -> tuple[Any, Any]:
    """MODEL and CLIP patched by the stock LoRA path; ModelError when nothing in the file fits them."""
    before = len(model.patches) + (len(clip.patcher.patches) if clip is not None else 0)
    patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, tensors, strength_model, strength_clip)
    after = len(patched.patches) + (len(patched_clip.patcher.patches) if clip is not None else 0)
    if tensors and after == before and not _patched_already(model, clip):
        raise ModelError(f"none of the adapter's {len(tensors)} tensors fits this model; use the base it was trained on")
    return patched, patched_clip


def _patched_already(model: Any, clip: Any) -> bool:
    return bool(model.patches) or (clip is not None and bool(clip.patcher.patches))
