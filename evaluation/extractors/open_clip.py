"""The joint spaces of images and captions of open_clip's networks (Radford et al. 2021; Ilharco et al. 2021), and of BiomedCLIP
(Zhang et al. 2023).

A folder as the Hugging Face hub keeps it (open_clip_config.json with weights beside it) is read as it is; a file of weights goes with
a network's name. Features are scaled to length one, as CLIPScore (Hessel et al. 2021) and CMMD (Jayasumana et al. 2024) have them;
clean-fid's Frechet distance on CLIP (Kynkaanniemi et al. 2023) does not scale them, which ``normalise`` off gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ...config import option
from ...data.record import Record
from ...errors import ConfigError
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts
from ..networks.clip import CONFIG, load_file, load_folder
from ..networks.pictures import device, device_option, transformed
from ..networks.weights import Place, hash_weights, weights_option

PACKAGES = (("open_clip", "open_clip_torch"),)


@dataclass(frozen=True)
class OpenCLIPOptions:
    """Which network, and where its weights are."""

    weights: str = weights_option("Folder or file")
    network: str = option("", "For a file of weights alone: its network by open_clip's name. OpenAI's own weights go with a name that "
                          "ends in -quickgelu.")
    normalise: bool = option(True, "Scale features to length one.")
    device: str = device_option()


@EXTRACTORS.register("open-clip")
class OpenCLIP(Extractor):
    """Image and caption features of one network."""

    name = "open-clip"
    facts = ExtractorFacts(
        title="CLIP (open_clip)",
        says="the joint space of images and captions of a network of open_clip",
        paper="Radford et al. 2021; Ilharco et al. 2021",
        needs="the model's folder from the Hugging Face hub, or a file of its weights",
    )
    Config = OpenCLIPOptions
    reads_text = True
    place: ClassVar[Place] = Place(
        ("open-clip",),
        f"Get {CONFIG} and open_clip_model.safetensors of https://huggingface.co/timm/vit_large_patch14_clip_336.openai, the network "
        "of CMMD, or of another model of open_clip, into a folder of that name.", PACKAGES)

    def __init__(self, path: Path, options: OpenCLIPOptions):
        if path.is_dir() and options.network:
            raise ConfigError(f"network is {options.network!r}, but {path / CONFIG} says which it is; leave network empty")
        self.options, self.where, self.hash = options, device(options.device), hash_weights(path)
        self.title = path.name if path.is_dir() else options.network
        self.network, self.transform, self.tokenizer = load_folder(path) if path.is_dir() else load_file(path, options.network)
        self.context: int = self.tokenizer.context_length
        self.network.eval().requires_grad_(False).to(self.where)

    @classmethod
    def missing(cls) -> str | None:
        return cls.place.missing()

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> OpenCLIP:
        return cls(cls.place.find(config.weights), config)

    @property
    def id(self) -> str:
        network = f"-{self.options.network}" if self.options.network else ""
        return f"{self.name}{network}-{self.hash[:12]}-{'unit' if self.options.normalise else 'raw'}"

    @property
    def logit_scale(self) -> float:
        """What cosines were multiplied by in training, where they stand for log odds."""
        return float(self.network.logit_scale.detach().exp())

    def features(self, images: Tensor) -> Tensor:
        inputs = transformed(images, self.transform).to(self.where)
        with torch.no_grad():
            return self._scaled(self.network.encode_image(inputs))

    def text_features(self, captions: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return self._scaled(self.network.encode_text(self.tokenizer(list(captions)).to(self.where)))

    def exceeds(self, captions: Sequence[str]) -> list[bool]:
        """Which captions are longer than what the network reads: of these, the rest is cut."""
        longer = self.tokenizer(list(captions), context_length=self.context + 2)
        padding = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", 0)
        return [bool(found) for found in (longer[:, self.context:] != padding).any(1)]

    def about(self) -> dict[str, Any]:
        return {**super().about(), "network": self.title, "normalised": self.options.normalise, "logit_scale": self.logit_scale,
                "context_length": self.context}

    def _scaled(self, values: Tensor) -> Tensor:
        return functional.normalize(values.float(), dim=-1) if self.options.normalise else values.float()


@EXTRACTORS.register("biomedclip")
class BiomedCLIP(OpenCLIP):
    """The same of BiomedCLIP."""

    name = "biomedclip"
    facts = ExtractorFacts(
        title="BiomedCLIP",
        says="the joint space of images and captions that learnt from 15 million figures of PubMed Central",
        paper="Zhang et al. 2023",
        needs="the model's folder from the Hugging Face hub",
    )
    place: ClassVar[Place] = Place(
        ("biomedclip", "BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"),
        "Get the folder https://huggingface.co/microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224: "
        f"{CONFIG}, open_clip_pytorch_model.bin (or .safetensors), tokenizer.json, tokenizer_config.json, special_tokens_map.json and "
        "vocab.txt.", (*PACKAGES, ("timm", "timm"), ("transformers", "transformers")))
