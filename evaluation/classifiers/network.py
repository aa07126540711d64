"""A timm network that tells findings: how it is built and learns, and its folder on disk (model.safetensors, config.json).

Findings are exclusive ("single": softmax, exactly one an image) or not ("multi": a sigmoid each).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import config
from ...config import option
from ...errors import ModelError, listing
from ...files import hash_file, whole, write_json
from ..networks.weights import Place, read_tensors
from .in_domain import check_network

SINGLE, MULTI = "single", "multi"
PUBLISHED = Place((), "Get them from the network's page, or leave weights empty to start from random ones.")
PLAIN = ((0.5,), (0.25,))  # mean and deviation of inputs for random weights


@dataclass(frozen=True)
class LearningOptions:
    """A classifier's network and how it learns."""

    network: str = option("test_resnet", "A network of timm by name.")
    weights: str = option("", "File of its published weights (.safetensors or .pth); without one it starts from random weights.",
                         weights=True)
    size: int = option(128, "Side of its input in pixels.", low=32, high=1024, step=32)
    colour: bool = option(False, "Look at colour; off for radiographs.")
    steps: int = option(300, "Training steps, the same whatever the number of images.", low=1, high=1_000_000)
    batch: int = option(16, "Images a step.", low=2, high=4096)
    lr: float = option(4e-3, "Highest learning rate of the one-cycle schedule.", above=0, high=1, step=1e-4)
    weight_decay: float = option(1e-2, "Weight decay of AdamW.", low=0, high=1, advanced=True)
    balance: str = option("none", "What is done for rare findings: none; loss, which weighs them more (at most 100 times); sampling, "
                          "which shows them more often.", choices=("none", "loss", "sampling"))
    patience: int = option(0, "Stop when the loss on validation images has not fallen in so many checks, and take the best state; 0 "
                           "trains all steps.", low=0, high=1000)
    check_every: int = option(25, "Steps between two checks.", low=1, high=100_000, advanced=True)
    pretraining: float = option(0.5, "Share of the steps that synthetic-then-real spends on synthetic images.", above=0, high=0.95,
                                advanced=True)
    tuning_lr: float = option(0.5, "Learning rate of fine-tuning on real images, as a share of lr.", above=0, high=1, advanced=True)
    fit: str = option("crop", "How images that are not square are brought to a square.", choices=("crop", "pad"), advanced=True)
    mirror: bool = option(True, "Show mirrored images too; off where the side is part of a label.", advanced=True)


class Network(nn.Module):
    """Findings and features of images; ``about`` is its config.json."""

    def __init__(self, options: LearningOptions, labels: Sequence[str], mode: str, normalisation: tuple = PLAIN):
        super().__init__()
        self.options, self.labels, self.mode, self.about = options, tuple(labels), mode, {}
        self.network = _build(options, len(self.labels))
        self.normalise_by(normalisation)
        self.register_buffer("scale", torch.ones(()))

    def normalise_by(self, normalisation: tuple) -> None:
        """Take these means and deviations of the channels; for grey images their mean over the channels."""
        for name, values in zip(("mean", "deviation"), normalisation):
            values = torch.tensor([float(value) for value in values])
            values = values if self.options.colour else values.mean(0, keepdim=True)
            self.register_buffer(name, values.view(-1, 1, 1), persistent=False)  # (1 or 3, 1, 1)

    @property
    def normalisation(self) -> tuple:
        """Means and deviations of the channels of its inputs."""
        return tuple(self.mean.flatten().tolist()), tuple(self.deviation.flatten().tolist())

    def normalise(self, resized: Tensor) -> Tensor:
        """Images (N, 1 or 3, size, size) in [0, 1] as the network reads them."""
        return (resized - self.mean) / self.deviation

    def prepare(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] as the network reads them: (N, 1 or 3, size, size)."""
        return self.normalise(resize(images, self.options))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, L) of prepared images."""
        return self.network(inputs)

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Probabilities (N, L) of prepared images; of exclusive findings they add up to 1."""
        return self(inputs).softmax(1) if self.mode == SINGLE else self(inputs).sigmoid()

    def pooled(self, inputs: Tensor) -> Tensor:
        """What the last layer reads, (N, D), of prepared images."""
        return self.network.forward_head(self.network.forward_features(inputs), pre_logits=True).flatten(1)

    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) of images (N, 3, H, W) in [0, 1]: the pooled last layer, of root mean square 1 on the training images."""
        return self.pooled(self.prepare(images)) / self.scale


def resize(images: Tensor, options: LearningOptions) -> Tensor:
    """Images (N, 3, H, W) as (N, 1 or 3, size, size)."""
    images = images if options.colour else images.mean(1, keepdim=True)
    if images.shape[-2:] != (options.size, options.size):
        images = functional.interpolate(images, (options.size, options.size), mode="bilinear", antialias=True)
    return images


def new_network(options: LearningOptions, labels: Sequence[str], mode: str) -> Network:
    """A network with random weights, or, but for its last layer, with those of ``options.weights``.

    Raises Missing or ModelError where that file cannot be used.
    """
    model = Network(options, labels, mode)
    if options.weights:
        _load_published(model, read_tensors(PUBLISHED.find(options.weights)))
    return model


def _build(options: LearningOptions, count: int, **published: Any) -> nn.Module:
    import timm

    check_network(options.network)
    channels = 3 if options.colour else 1
    return timm.create_model(options.network, in_chans=channels, num_classes=count, **{"pretrained": False, **published})


def _load_published(model: Network, tensors: dict[str, Tensor]) -> None:
    """timm itself adapts the first layer to grey images and leaves out the last; nothing is downloaded."""
    options, count = model.options, len(model.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untouched = _build(options, count)
        torch.manual_seed(0)
        try:
            loaded = _build(options, count, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors, "source": ""})
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            raise _foreign(options, str(error)[:200]) from error
    random = untouched.state_dict()
    last = loaded.pretrained_cfg.get("classifier") or ()
    kept = [name for name, value in loaded.state_dict().items() if not name.startswith(last if isinstance(last, str) else tuple(last))
            and value.is_floating_point() and value.numel() > 1 and value.std() > 0 and torch.equal(value, random[name])]
    if kept:  # timm passes over names that it does not know
        raise _foreign(options, f"it has nothing for {listing(kept, 3)}")
    model.network = loaded
    model.normalise_by((loaded.pretrained_cfg["mean"], loaded.pretrained_cfg["std"]))


def _foreign(options: LearningOptions, why: str) -> ModelError:
    return ModelError(f"{options.weights} does not hold the weights of timm's {options.network} ({why}); give the file of that "
                      "network, or name the network that the file is of")


def write_network(folder: Path, model: Network, facts: dict[str, Any]) -> None:
    """The weights, then config.json with their hash: without it the folder counts as empty."""
    from safetensors.torch import save_file

    with whole(folder / "model.safetensors") as beside:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, beside)
    write_json(folder / "config.json", {
        "options": config.to_json(model.options), "labels": list(model.labels), "mode": model.mode,
        "normalisation": [list(part) for part in model.normalisation], "weights": hash_file(folder / "model.safetensors"), **facts})


def load_network(folder: str | Path) -> Network:
    """The network of a folder, in evaluation mode; ModelError where the folder holds no whole one."""
    from safetensors.torch import load_file

    folder = Path(folder)
    if not is_whole(folder):
        raise ModelError(f"{folder} holds no whole classifier (config.json and the model.safetensors that it names); give the folder "
                         "of a trained classifier, or train it again")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if about.get("mode") not in (SINGLE, MULTI):
        raise ModelError(f"{folder} holds a classifier of another kind (its config.json has no mode); it serves the in-domain "
                         "extractor alone")
    options = config.from_json(LearningOptions, {**about["options"], "weights": ""})
    model = Network(options, about["labels"], about["mode"], tuple(about["normalisation"]))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.about = about
    return model.eval().requires_grad_(False)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds the weights that its config.json names."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return hash_file(folder / "model.safetensors") == about["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
