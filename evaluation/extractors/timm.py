"""The feature space of any network of timm (Wightman 2019), with weights from a local file and the resize that belongs to them.

A file of weights goes with a network's name; a folder as the Hugging Face hub keeps it (config.json and model.safetensors) brings its
own. The features are what the network pools before its classifier; size, interpolation, crop and normalisation are those that the
weights were published with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...config import option
from ...data.record import Record
from ...errors import ConfigError, Missing, ModelError, near
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts
from ..networks.pictures import device, device_option, transformed
from ..networks.weights import Place, differences, hash_weights, read_tensors, refuse_mismatch, weights_option

NETWORK = "resnet50.a1_in1k"


def place(network: str) -> Place:
    """Where the weights of a network belong."""
    return Place((f"{network}.safetensors", network),
                 f"Get model.safetensors of https://huggingface.co/timm/{network} and name it {network}.safetensors, or take that "
                 f"repository's folder.", (("timm", "timm"), ("torchvision", "torchvision")))


@dataclass(frozen=True)
class TimmOptions:
    """Which network, and where its weights are."""

    network: str = option(NETWORK, "A network of timm by name, with the tag of its weights after a dot; a folder with a config.json "
                          "says it itself.")
    weights: str = weights_option("File or folder")
    device: str = device_option()


@EXTRACTORS.register("timm")
class Timm(Extractor):
    """A network of timm without its classifier."""

    name = "timm"
    facts = ExtractorFacts(
        title="A network of timm",
        says="the pooled features of a network of timm, with its own resize and normalisation",
        paper="Wightman 2019 (timm), and the network's own",
        needs="the network's weights as a local file",
    )
    Config = TimmOptions

    def __init__(self, path: Path, options: TimmOptions):
        from timm.data import create_transform, resolve_model_data_config

        self.where, self.hash = device(options.device), hash_weights(path)
        self.network = load_folder(path) if path.is_dir() else load_file(options.network, path)
        self.title = ".".join(part for part in (self.network.pretrained_cfg.get("architecture") or options.network,
                                                self.network.pretrained_cfg.get("tag")) if part)
        self.network.reset_classifier(0)
        self.network.eval().requires_grad_(False).to(self.where)
        self.reading = resolve_model_data_config(self.network)
        self.transform = create_transform(**self.reading, is_training=False)

    @classmethod
    def missing(cls) -> str | None:
        return place(NETWORK).missing()

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> Timm:
        return cls(place(config.network).find(config.weights), config)

    @property
    def id(self) -> str:
        read = self.reading
        return f"{self.name}-{self.title}-{self.hash[:12]}-{read['input_size'][-1]}px-{read['interpolation']}-{read['crop_pct']:g}"

    def features(self, images: Tensor) -> Tensor:
        inputs = transformed(images, self._picture)
        with torch.no_grad():
            return self.network(inputs.to(self.where)).flatten(1).float()

    def _picture(self, picture: Any) -> Tensor:
        return self.transform(picture.convert("L") if self.reading["input_size"][0] == 1 else picture)

    def about(self) -> dict[str, Any]:
        reading = {name: list(value) if isinstance(value, tuple) else value for name, value in self.reading.items()}
        return {**super().about(), "network": self.title, "reading": reading}

    def limits(self) -> tuple[str, ...]:
        return (f"the features are those of {self.title}: unless it learnt from medical images, it may miss what matters in them",)


def load_file(name: str, path: Path) -> nn.Module:
    """The network of that name with a file's weights, all of them; its classifier has as many classes as the file's."""
    import timm

    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        raise ConfigError(f"timm has no network {network!r}{near(network, timm.list_models())}; timm.list_models() has their names")
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{network}.*")]
        raise ConfigError(f"timm has no weights {tag!r} of {network}{near(tag, tags)}; it has: {', '.join(tags) or 'none'}") from error
    tensors = read_tensors(path)
    classes = count_classes(tensors, published.classifier)
    facts = {"file": str(path), "num_classes": classes, "label_offset": 0, "custom_load": False}
    return loaded(name, path, tensors, pretrained_cfg_overlay=facts, num_classes=classes)


def load_folder(path: Path) -> nn.Module:
    """The network that a folder's config.json names, with the weights in it."""
    if not (path / "config.json").is_file() or not (path / "model.safetensors").is_file():
        raise Missing(f"{path} lacks config.json or model.safetensors; give a folder as https://huggingface.co/timm keeps them")
    return loaded(f"local-dir:{path}", path / "model.safetensors", read_tensors(path / "model.safetensors"))


def loaded(name: str, path: Path, tensors: dict[str, Tensor], **settings: Any) -> nn.Module:
    """What timm makes of a name and its weights; ModelError where they are another network's."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, **settings)
    except (RuntimeError, KeyError, ValueError, AttributeError, AssertionError) as error:
        random = timm.create_model(name, pretrained=False, **{key: value for key, value in settings.items() if key == "num_classes"})
        refuse_mismatch(path, f"timm's {name}", **differences(tensors, random.state_dict()))
        raise ModelError(f"timm cannot read {path} as {name}: {str(error).splitlines()[0]}") from error


def count_classes(tensors: dict[str, Tensor], classifier: str | tuple[str, ...] | None) -> int:
    """How many classes the classifier in a file tells; 0 where it has none."""
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    return next((len(tensors[f"{name}.weight"]) for name in names if f"{name}.weight" in tensors), 0)
