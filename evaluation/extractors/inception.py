"""The feature space of the Frechet inception distance: 2048 features of Inception (Heusel et al. 2017), resized as clean-fid does.

Parmar et al. 2022 ("On aliased resizing and surprising subtleties in GAN evaluation") show that the resize alone moves the figure:
theirs, by their own code, is Pillow's bicubic on each channel in floating point, to 299 px, without rounding. The network sees
(x - 128) / 128 of levels from 0 to 255. It learnt from photographs, and tells less of radiographs than of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data.record import Record
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts
from ..networks.inception import WHAT, build_inception, from_torchscript, is_torchscript
from ..networks.pictures import device, device_option, levels
from ..networks.weights import Place, hash_weights, load_into, read_tensors, weights_option

SIZE = 299
PLACE = Place(
    ("inception-2015-12-05.safetensors", "pt_inception-2015-12-05-6726825d.pth"),
    "Get inception-2015-12-05.pt, the file that clean-fid fetches "
    "(https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt), and convert it once: "
    "`medtune convert-weights inception-2015-12-05.pt inception-2015-12-05.safetensors`. Or take pytorch-fid's file of the same "
    "weights, as it is: "
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    (("cleanfid", "clean-fid"), ("torchvision", "torchvision")))


@dataclass(frozen=True)
class InceptionOptions:
    """Where the weights are."""

    weights: str = weights_option()
    device: str = device_option()


@EXTRACTORS.register("inception")
class Inception(Extractor):
    """clean-fid's features."""

    name = "inception"
    facts = ExtractorFacts(
        title="Inception (clean-fid)",
        says="the 2048 features of the Frechet inception distance, resized as clean-fid resizes",
        paper="Heusel et al. 2017; Parmar et al. 2022",
        needs="the weights of 2015-12-05 as a local file",
    )
    Config = InceptionOptions

    def __init__(self, path: Path, where: torch.device):
        from cleanfid.resize import build_resizer

        tensors = read_tensors(path)
        self.network = load_into(build_inception(), from_torchscript(tensors) if is_torchscript(tensors) else tensors, path, WHAT)
        self.network.fc = nn.Identity()
        self.network.to(where)
        self.where, self.resize, self.hash = where, build_resizer("clean"), hash_weights(path)

    @classmethod
    def missing(cls) -> str | None:
        return PLACE.missing()

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> Inception:
        return cls(PLACE.find(config.weights), device(config.device))

    @property
    def id(self) -> str:
        return f"{self.name}-{self.hash[:12]}-{SIZE}px-clean"

    def features(self, images: Tensor) -> Tensor:
        resized = np.stack([self.resize(picture) for picture in levels(images)])  # (N, 299, 299, 3), 0 to 255
        inputs = torch.from_numpy(resized).permute(0, 3, 1, 2).to(self.where)
        with torch.no_grad():
            return self.network((inputs - 128) / 128).float()

    def limits(self) -> tuple[str, ...]:
        return ("Inception learnt from photographs: its features may miss what matters in medical images",)
