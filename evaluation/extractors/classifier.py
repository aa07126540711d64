"""A classifier trained by ``medtune classify``, as a feature space and as a labeller.

Its features are the last layer before the findings, of root mean square 1 on its training images. As any space that was learnt from
a data set it is no standard: figures in it can be compared only within one extractor id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...config import option
from ...data.record import Record
from ...errors import Missing
from ..classifiers.network import load_network
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts, Labeller


@dataclass(frozen=True)
class ClassifierConfig:
    """Which classifier."""

    folder: str = option("", "Folder of a trained classifier (model.safetensors and config.json).", weights=True)


FACTS = ExtractorFacts(
    title="Trained classifier",
    says="the last layer of a classifier that was trained on the data set's findings",
    paper="none: made for the data set at hand",
    needs="the folder of a classifier, as `medtune classify` keeps in its --out under cells/",
)


@EXTRACTORS.register("classifier")
class TrainedClassifier(Extractor):
    """The network of a folder."""

    name, facts, Config = "classifier", FACTS, ClassifierConfig

    def __init__(self, folder: str | Path, device: str = "cpu"):
        self.model = load_network(folder).to(device)

    @classmethod
    def missing(cls) -> str | None:
        return "the folder of a trained classifier: train one with `medtune classify` and give its folder as the option folder"

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> TrainedClassifier:
        if not config.folder:
            raise Missing(f"no classifier was named; needed is {cls.missing()}")
        return cls(config.folder)

    @property
    def id(self) -> str:
        options = self.model.options
        return f"{self.name}-{options.network}-{self.model.about['weights'][:12]}-{options.size}px-antialiased"

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.features(images.to(self.model.scale.device, torch.float32))

    def about(self) -> dict[str, Any]:
        options, kept = self.model.options, ("cell", "n_real", "n_synthetic", "thresholds")
        return {**super().about(), "network": options.network, "size": options.size, "labels": list(self.model.labels),
                "mode": self.model.mode, **{name: self.model.about[name] for name in kept if name in self.model.about}}

    def seen(self) -> frozenset[str]:
        return frozenset(self.model.about.get("seen", ()))

    def labeller(self) -> ClassifierLabels:
        return ClassifierLabels(self)


class ClassifierLabels(Labeller):
    """What the same network makes of the findings."""

    name, facts, Config = "classifier-labels", FACTS, ClassifierConfig

    def __init__(self, extractor: TrainedClassifier):
        self.extractor, self.labels, self.mode = extractor, extractor.model.labels, extractor.model.mode

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> ClassifierLabels:
        return cls(TrainedClassifier.prepare(config, records, folder, on_progress))

    @property
    def id(self) -> str:
        return f"{self.extractor.id}-labels"

    @property
    def thresholds(self) -> dict[str, float]:
        """The probability from which each finding counts as told, chosen on validation images."""
        return dict(self.extractor.model.about.get("thresholds", {}))

    def features(self, images: Tensor) -> Tensor:
        model = self.extractor.model
        with torch.no_grad():
            return model.probabilities(model.prepare(images.to(model.scale.device, torch.float32)))

    def seen(self) -> frozenset[str]:
        return self.extractor.seen()
