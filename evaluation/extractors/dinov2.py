"""The feature spaces of DINOv2 (Oquab et al. 2023) and RAD-DINO, the same network for chest radiographs (Perez-Garcia et al. 2025).

A folder as the Hugging Face hub keeps it is read by transformers: config.json, model.safetensors and preprocessor_config.json. The
features are the class token after the last layer norm; resize, crop and normalisation are those of the folder's preprocessor. Stein
et al. 2023 ("Exposing flaws of generative model evaluation metrics") advise DINOv2 for Frechet distances of images in general.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ...data.record import Record
from ...errors import Missing, ModelError
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts
from ..networks.pictures import device, device_option, levels
from ..networks.weights import Place, check_file, hash_weights, refuse_mismatch, weights_option

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
PACKAGES = (("transformers", "transformers"), ("torchvision", "torchvision"))


@dataclass(frozen=True)
class DINOv2Options:
    """Where the folder is."""

    weights: str = weights_option("Folder")
    device: str = device_option()


@EXTRACTORS.register("dinov2")
class DINOv2(Extractor):
    """The class token of a folder's DINOv2."""

    name = "dinov2"
    facts = ExtractorFacts(
        title="DINOv2",
        says="the class token of a vision transformer that learnt from photographs without labels",
        paper="Oquab et al. 2023; Stein et al. 2023",
        needs="the model's folder from the Hugging Face hub",
    )
    Config = DINOv2Options
    place: ClassVar[Place] = Place(
        ("dinov2-large", "dinov2-base", "dinov2-small", "dinov2-giant"),
        f"Get {', '.join(FILES)} of https://huggingface.co/facebook/dinov2-large (or -base, -small, -giant) into a folder of that "
        "name.", PACKAGES)

    def __init__(self, path: Path, where: str):
        self.where, self.hash, self.path = device(where), hash_weights(path), path
        self.network, self.processor = load_folder(path)
        self.network.to(self.where)

    @classmethod
    def missing(cls) -> str | None:
        return cls.place.missing()

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> DINOv2:
        return cls(cls.place.find(config.weights), config.device)

    @property
    def id(self) -> str:
        return f"{self.name}-{self.hash[:12]}-{type(self.processor).__name__}"

    def features(self, images: Tensor) -> Tensor:
        pictures = [Image.fromarray(picture) for picture in levels(images)]
        inputs = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.where)
        with torch.no_grad():
            return self.network(pixel_values=inputs).last_hidden_state[:, 0].float()

    def about(self) -> dict[str, Any]:
        config = self.network.config
        return {**super().about(), "folder": self.path.name, "layers": config.num_hidden_layers, "width": config.hidden_size}

    def limits(self) -> tuple[str, ...]:
        return ("DINOv2 learnt from photographs: its features may miss what matters in medical images",)


@EXTRACTORS.register("rad-dino")
class RADDINO(DINOv2):
    """The same of RAD-DINO."""

    name = "rad-dino"
    facts = ExtractorFacts(
        title="RAD-DINO",
        says="the class token of a vision transformer that learnt from chest radiographs without labels",
        paper="Perez-Garcia et al. 2025",
        needs="the model's folder from the Hugging Face hub",
    )
    place: ClassVar[Place] = Place(
        ("rad-dino",), f"Get {', '.join(FILES)} of https://huggingface.co/microsoft/rad-dino into a folder of that name.", PACKAGES)

    def limits(self) -> tuple[str, ...]:
        return ("RAD-DINO learnt from MIMIC-CXR, CheXpert, NIH ChestX-ray14, PadChest and BRAX: real images of these may have been "
                "among them",)


def load_folder(path: Path) -> tuple[nn.Module, Any]:
    """(network, image processor) of a folder. Raises Missing for a file that it lacks, ModelError for weights of something else."""
    lacking = [name for name in FILES if not (path / name).is_file()]
    if lacking:
        convert = (" From pytorch_model.bin, `medtune convert-weights pytorch_model.bin model.safetensors` makes the weights."
                   if "model.safetensors" in lacking else "")
        raise Missing(f"{path} lacks {', '.join(lacking)}; take the whole folder from where it came.{convert}")
    weights = path / "model.safetensors"
    if check_file(weights) != "safetensors":
        raise ModelError(f"{weights} is a pickle, whatever its name. Convert it: `medtune convert-weights`.")
    return _network(path, weights), _processor(path)


def _network(path: Path, weights: Path) -> nn.Module:
    from safetensors import SafetensorError
    from transformers import AutoConfig, Dinov2Model

    kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
    if kind != "dinov2":
        raise ModelError(f"{path / 'config.json'} describes a model of type {kind!r}; it must be 'dinov2'")
    try:
        network, loading = Dinov2Model.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True,
                                                       ignore_mismatched_sizes=True, dtype=torch.float32)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ModelError(f"{weights} is truncated or damaged: {error}. Fetch it again.") from error
    refuse_mismatch(weights, "the DINOv2 that config.json beside it describes", missing=sorted(loading["missing_keys"]),
                    unexpected=sorted(loading["unexpected_keys"]), reshaped=sorted(str(name) for name in loading["mismatched_keys"]))
    return network.eval().requires_grad_(False)


def _processor(path: Path) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / 'preprocessor_config.json'} describes no image processor: {str(error).splitlines()[0]}") from error
