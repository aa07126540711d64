"""A small classifier of findings, trained from random weights on the data set at hand in about a minute.

It is for features, not for diagnosis: its last layer before the findings is the in-domain feature space. It is trained on the CPU
with its own seed, so that the same data give the same weights on the same machine, and kept by content: (records, options).

The network was chosen by mean AUROC on 300 phantoms of other patients, after a minute of one slow core on 160 phantoms: test_resnet at
128 px .89 (96 features; on 72 phantoms .87), at 160 px .88 in 81 s, a narrow resnet10t at 224 px .77, resnet10t at 112 px .72,
mobilenetv3_small_050 at 224 px .69.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import config
from ...config import option
from ...data.identity import hash_records
from ...data.image import hash_image, read_image
from ...data.record import Record
from ...data.split import split
from ...errors import ConfigError, DataError, ModelError, near
from ...files import cache_folder, hash_file, hash_json, whole, write_json

FORMAT = 1  # raised when the same records and options would give other weights
COMMON_SIZE = 512  # every image is brought to this side first, then to the network's


@dataclass(frozen=True)
class ClassifierOptions:
    """How the classifier is built and trained."""

    network: str = option("test_resnet", "A network of timm by name; it starts from random weights.")
    size: int = option(128, "Side of its input in pixels.", low=32, high=1024, step=32)
    colour: bool = option(False, "Look at colour; off for radiographs.")
    steps: int = option(300, "Training steps.", low=1, high=1_000_000)
    batch: int = option(16, "Images a step.", low=2, high=1024)
    lr: float = option(4e-3, "Highest learning rate of the one-cycle schedule.", above=0, high=1, step=1e-4)
    fit: str = option("crop", "How images that are not square are brought to a square.", choices=("crop", "pad"))
    mirror: bool = option(True, "Show mirrored images too; off where the side is part of a label.")
    seed: int = option(0, "Seed of weights and order.", low=0, high=2**63 - 1)


class Classifier(nn.Module):
    """Findings and features of images; ``about`` is its config.json."""

    def __init__(self, options: ClassifierOptions, labels: Sequence[str]):
        super().__init__()
        self.options, self.labels, self.about = options, tuple(labels), {}
        self.network = _build(options, len(self.labels))
        self.register_buffer("scale", torch.ones(()))

    def prepare(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] as the network reads them: (N, 1 or 3, size, size) around zero."""
        images = images if self.options.colour else images.mean(1, keepdim=True)
        if images.shape[-2:] != (self.options.size, self.options.size):
            images = functional.interpolate(images, (self.options.size, self.options.size), mode="bilinear", antialias=True)
        return (images - 0.5) / 0.25

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, L) of prepared images."""
        return self.network(inputs)

    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) of images (N, 3, H, W) in [0, 1]: the pooled last layer, of root mean square 1 on the training images."""
        return self.pooled(self.prepare(images)) / self.scale

    def pooled(self, inputs: Tensor) -> Tensor:
        """What the last layer reads, (N, D), of prepared images."""
        return self.network.forward_head(self.network.forward_features(inputs), pre_logits=True).flatten(1)


def train_classifier(records: Sequence[Record], options: ClassifierOptions | None = None, out: str | Path | None = None,
                     on_progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder (model.safetensors, config.json) of a classifier of the records' labels; trained only if it is not there yet.

    Records of the split "test" are left out. Those of "val", or else a fifth of the patients, are held out to measure the AUROC.
    ``out`` is the folder that such folders lie in. Raises DataError when there are fewer than two labels to tell apart.
    """
    options = config.check(options or ClassifierOptions())
    train, held_out = _divide(records, options.seed)
    labels = _labels(train)
    key = hash_json({"format": FORMAT, "options": config.to_json(options), "train": hash_records(train),
                     "held_out": hash_records(held_out)})
    folder = (Path(out) if out is not None else cache_folder() / "classifiers") / key[:16]
    if _is_whole(folder):
        return folder
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):  # nodes run in inference mode
        torch.manual_seed(options.seed)
        model = Classifier(options, labels)
        pictures = _Pictures(model, train)
        _fit(model, pictures, options, on_progress)
        _set_scale(model, pictures)
    auroc = _measure(model, held_out)
    _write(folder, model, {"auroc": auroc, "n_train": len(train), "n_held_out": len(held_out),
                           "seen": sorted(hash_image(record.image) for record in train)})
    return folder


def load_classifier(folder: str | Path) -> Classifier:
    """The classifier of a folder, in evaluation mode."""
    from safetensors.torch import load_file

    folder = Path(folder)
    if not _is_whole(folder):
        raise ModelError(f"{folder} holds no whole classifier (config.json and the model.safetensors that it names); "
                         "delete it and train again")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Classifier(config.from_json(ClassifierOptions, about["options"]), about["labels"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.about = about
    return model.eval().requires_grad_(False)


def check_network(name: str) -> None:
    """ConfigError unless timm has a network of that name."""
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"timm has no network {name!r}{near(name, timm.list_models())}; timm.list_models() lists what there is")


def _build(options: ClassifierOptions, count: int) -> nn.Module:
    import timm

    check_network(options.network)
    return timm.create_model(options.network, pretrained=False, in_chans=3 if options.colour else 1, num_classes=count)


def _divide(records: Sequence[Record], seed: int) -> tuple[list[Record], list[Record]]:
    usable = [record for record in records if record.split != "test"]
    if any(record.split == "val" for record in usable):
        parted = usable
    else:
        parted = split(usable, {"train": 0.8, "val": 0.2}, seed=seed) if len(usable) >= 10 else usable
    return [record for record in parted if record.split != "val"], [record for record in parted if record.split == "val"]


def _labels(records: Sequence[Record]) -> list[str]:
    """The labels that some of the images have and some have not."""
    counts: dict[str, int] = {}
    for record in records:
        for label in set(record.labels):
            counts[label] = counts.get(label, 0) + 1
    labels = sorted(label for label, count in counts.items() if count < len(records))
    if not labels or len(records) < 2:
        raise DataError(f"{len(records)} images to learn from, with the labels {', '.join(sorted(counts)) or 'none'}: a classifier "
                        "needs at least two kinds. Give the records labels, or choose an extractor with weights of its own.")
    return labels


class _Pictures:
    """Prepared images by index, each decoded once, kept as bytes."""

    def __init__(self, model: Classifier, records: Sequence[Record]):
        self.model, self.records, self.kept = model, records, {}
        self.targets = torch.tensor([[label in record.labels for label in model.labels] for record in records], dtype=torch.float32)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        for index in indices:
            if index not in self.kept:
                image = read_image(self.records[index].image, COMMON_SIZE, self.model.options.fit)
                self.kept[index] = (self.model.prepare(image[None])[0] * 31.75 + 127.5).round().to(torch.uint8)
        return (torch.stack([self.kept[index] for index in indices]).float() - 127.5) / 31.75  # (B, C, size, size)


def _fit(model: Classifier, pictures: _Pictures, options: ClassifierOptions, on_progress: Callable[[int, int], None] | None) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=max(options.steps, 2), pct_start=0.2)
    order: list[int] = []
    model.train()
    for step in range(options.steps):
        while len(order) < options.batch:
            order += torch.randperm(len(pictures.records)).tolist()
        indices, order = order[:options.batch], order[options.batch:]
        loss = functional.binary_cross_entropy_with_logits(model(vary(pictures(indices), options.mirror)), pictures.targets[indices])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_progress is not None:
            on_progress(step + 1, options.steps)
    model.eval()


def vary(inputs: Tensor, mirror: bool) -> Tensor:
    """Inputs (N, C, H, W) around zero, shifted, mirrored, and of another contrast and brightness."""
    most = inputs.shape[-1] // 20
    shift = torch.randint(-most, most + 1, (2,)).tolist()
    inputs = torch.roll(inputs, shift, (2, 3))
    if mirror and torch.rand(()) < 0.5:
        inputs = inputs.flip(3)
    contrast, brightness = torch.rand(2, len(inputs), 1, 1, 1)
    return inputs * (0.8 + 0.4 * contrast) + 0.4 * (brightness - 0.5)


def _set_scale(model: Classifier, pictures: _Pictures) -> None:
    """Bring the features of the training images to a root mean square of 1: distances grow with its square."""
    model.scale.copy_(_over(model.pooled, pictures).square().mean().sqrt().clamp_min(1e-6))


@torch.no_grad()
def _over(function: Callable[[Tensor], Tensor], pictures: _Pictures, batch: int = 16) -> Tensor:
    """The function of all pictures, a batch at a time: (N, ...)."""
    count = len(pictures.records)
    return torch.cat([function(pictures(range(start, min(start + batch, count)))) for start in range(0, count, batch)])


def _measure(model: Classifier, records: Sequence[Record]) -> dict[str, float | None]:
    """AUROC by label on held-out records; None where they have no positives or no negatives."""
    from sklearn.metrics import roc_auc_score

    if not records:
        return dict.fromkeys(model.labels)
    pictures = _Pictures(model, records)
    scores, result = _over(model, pictures), {}
    for index, label in enumerate(model.labels):
        truth = pictures.targets[:, index]
        both = 0 < truth.sum() < len(truth)
        result[label] = round(float(roc_auc_score(truth, scores[:, index])), 4) if both else None
    return result


def _write(folder: Path, model: Classifier, facts: dict[str, Any]) -> None:
    """The weights, then config.json with their hash: without it the folder counts as empty."""
    from safetensors.torch import save_file

    with whole(folder / "model.safetensors") as beside:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, beside)
    write_json(folder / "config.json", {"options": config.to_json(model.options), "labels": list(model.labels),
                                        "weights": hash_file(folder / "model.safetensors"), **facts})


def _is_whole(folder: Path) -> bool:
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return hash_file(folder / "model.safetensors") == about["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
