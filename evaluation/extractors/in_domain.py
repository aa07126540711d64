"""The in-domain feature space: the last layer of a small timm network trained on the data set's own labels.

It works offline, within a minute or two, on any data set with labels, and looks at what the labels are about. It is no standard:
figures in it can be compared only within one extractor id. The features have a root mean square of 1 on the training images; the
Frechet distance would grow with the square of that scale.

It needs enough images to learn from. Seen on phantoms, with 16 images of each arm of the demonstration: a network that learnt from 48
images put the untuned base's grey blobs as near to radiographs (163) as the tuned bases' images (165, 187); two that learnt from 180
put the same blobs far away (1168 and 1725, against 140 and 132, 197 and 189). One that learnt from 57 ranked other images rightly.
These are four networks: that it can go wrong is shown, where the border lies is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.record import Record
from ..classifiers.in_domain import ClassifierOptions, load_classifier, train_classifier
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts, Labeller

ENOUGH = 150
"""Images to learn from below which a report warns of this extractor: a cautious choice between what failed and what did not."""


@EXTRACTORS.register("in-domain")
class InDomain(Extractor):
    """The classifier of ``classifier.py``, as an extractor."""

    name = "in-domain"
    facts = ExtractorFacts(
        title="In-domain network",
        says="a small network trained from random weights on the data set's own labels",
        paper="none: made for the data set at hand",
        needs="records with labels, of at least two kinds; about a minute of training the first time",
    )
    Config = ClassifierOptions

    def __init__(self, folder: Path):
        self.model = load_classifier(folder)

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> InDomain:
        return cls(train_classifier(records, config, folder, on_progress))

    @property
    def id(self) -> str:
        options = self.model.options
        return f"{self.name}-{options.network}-{self.model.about['weights'][:12]}-{options.size}px-antialiased"

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.features(images.to(self.model.scale.device, torch.float32))

    def about(self) -> dict[str, Any]:
        trained = self.model.about
        measured = [value for value in trained["auroc"].values() if value is not None]
        return {**super().about(), "network": self.model.options.network, "labels": list(self.model.labels),
                "auroc": trained["auroc"], "mean_auroc": round(sum(measured) / len(measured), 4) if measured else None,
                "n_train": trained["n_train"], "n_held_out": trained["n_held_out"]}

    def seen(self) -> frozenset[str]:
        return frozenset(self.model.about["seen"])

    def labeller(self) -> InDomainLabels:
        return InDomainLabels(self)

    def limits(self) -> tuple[str, ...]:
        count = self.model.about["n_train"]
        if count >= ENOUGH:
            return ()
        return (f"the in-domain network learnt from {count} images: with fewer than {ENOUGH} it can rank methods wrongly. Let it "
                "learn from more labelled images, such as all that are not compared with, or choose another extractor",)


class InDomainLabels(Labeller):
    """What the same network makes of the findings."""

    name, facts, Config = "in-domain-labels", InDomain.facts, ClassifierOptions

    def __init__(self, extractor: InDomain):
        self.extractor, self.labels = extractor, extractor.model.labels

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> InDomainLabels:
        return cls(InDomain.prepare(config, records, folder, on_progress))

    @property
    def id(self) -> str:
        return f"{self.extractor.id}-labels"

    def features(self, images: Tensor) -> Tensor:
        model = self.extractor.model
        with torch.no_grad():
            return model(model.prepare(images.to(model.scale.device, torch.float32))).sigmoid()

    def seen(self) -> frozenset[str]:
        return self.extractor.seen()
