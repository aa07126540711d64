"""The feature space of torchxrayvision's DenseNet-121, which learnt from chest radiographs (Cohen et al. 2022): 1024 features.

The studies feed it in three ways, and the figures of one cannot be set beside those of another:

- ``xrv``: grey levels brought to -1024 to 1024 and resized to 224 px by torchxrayvision's own resizer, a Gaussian blur and linear
  interpolation (TehraniNasab et al. 2025, "Pixels Under Pressure");
- ``network``: the same levels, resized in the network: bilinear with antialiasing (Dombrowski et al. 2024, "Trade-offs in fine-tuned
  diffusion models between accuracy and interpretability");
- ``unit``: levels from 0 to 1, not resized, and the features before the last rectifier (Pinaya et al. 2023, "Generative AI for
  medical imaging: extending the MONAI framework").

The network's own findings are its labels, at the operating points published with the weights: 0.5 is where a finding is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config import option
from ...data.record import Record
from ..extractor import EXTRACTORS, Extractor, ExtractorFacts, Labeller
from ..networks.pictures import device, device_option, levels
from ..networks.weights import Place, hash_weights, load_into, read_tensors, weights_option
from ..networks.xrv_labels import FINDINGS, LEARNT, OPERATING_POINTS

SIZE = 224
WHAT = "torchxrayvision's DenseNet-121"
RELEASE = "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
PLACE = Place(
    ("xrv-densenet121-res224-all.safetensors",),
    f"Get {RELEASE} from https://github.com/mlmed/torchxrayvision/releases/tag/v1 and convert it once: "
    f"`medtune convert-weights {RELEASE} xrv-densenet121-res224-all.safetensors`.",
    (("torchvision", "torchvision"),))


@dataclass(frozen=True)
class XRVOptions:
    """Where the weights are, what they learnt from, and how images are fed."""

    weights: str = weights_option()
    convention: str = option("xrv", "How images are fed: as torchxrayvision resizes, resized in the network, or in 0 to 1 and not "
                             "resized.", choices=("xrv", "network", "unit"))
    learnt: str = option("all", "The data that the weights learnt from, by torchxrayvision's name: it says which findings they tell.",
                         choices=tuple(OPERATING_POINTS), advanced=True)
    device: str = device_option()


@EXTRACTORS.register("xrv")
class XRV(Extractor):
    """The features before torchxrayvision's classifier."""

    name = "xrv"
    facts = ExtractorFacts(
        title="Chest radiographs (torchxrayvision)",
        says="the 1024 features of a DenseNet-121 that learnt 18 findings from seven sets of chest radiographs",
        paper="Cohen et al. 2022",
        needs="the weights of torchxrayvision as a local file",
    )
    Config = XRVOptions

    def __init__(self, path: Path, options: XRVOptions):
        self.options, self.where, self.hash = options, device(options.device), hash_weights(path)
        self.network = load_into(build_densenet(), read_tensors(path), path, WHAT, unused=("op_threshs",)).to(self.where)

    @classmethod
    def missing(cls) -> str | None:
        return PLACE.missing()

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> XRV:
        return cls(PLACE.find(config.weights), config)

    @property
    def id(self) -> str:
        return f"{self.name}-{self.hash[:12]}-{self.options.convention}"

    def features(self, images: Tensor) -> Tensor:
        return self.pooled(images, self.options.convention)

    def pooled(self, images: Tensor, convention: str) -> Tensor:
        """What the classifier reads, (N, 1024), of images fed by one of the conventions."""
        with torch.no_grad():
            maps = self.network.features(inputs(images, convention).to(self.where))
            return functional.adaptive_avg_pool2d(maps if convention == "unit" else maps.relu(), 1).flatten(1).float()

    def labeller(self) -> XRVLabels:
        return XRVLabels(self)

    def about(self) -> dict[str, Any]:
        return {**super().about(), "convention": self.options.convention, "learnt": self.options.learnt}

    def limits(self) -> tuple[str, ...]:
        return (f"torchxrayvision's network learnt from {LEARNT[self.options.learnt]}: real images of these may have been among them",)


class XRVLabels(Labeller):
    """The findings by the same network, fed as it was trained, whatever way the features are fed."""

    name, facts, Config = "xrv-labels", XRV.facts, XRVOptions

    def __init__(self, extractor: XRV):
        points = OPERATING_POINTS[extractor.options.learnt]
        self.extractor, self.told = extractor, [index for index, point in enumerate(points) if point is not None]
        self.labels = tuple(FINDINGS[index] for index in self.told)
        self.points = torch.tensor([points[index] for index in self.told])

    @classmethod
    def missing(cls) -> str | None:
        return PLACE.missing()

    @classmethod
    def prepare(cls, config: Any, records: Sequence[Record], folder: Path | None = None,
                on_progress: Callable[[int, int], None] | None = None) -> XRVLabels:
        return cls(XRV.prepare(config, records, folder, on_progress))

    @property
    def id(self) -> str:
        return f"{self.extractor.name}-{self.extractor.hash[:12]}-xrv-labels-{self.extractor.options.learnt}"

    def limits(self) -> tuple[str, ...]:
        return self.extractor.limits()

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            found = self.extractor.network.classifier(self.extractor.pooled(images, "xrv")).sigmoid().cpu()[:, self.told]
        low, high = found / (2 * self.points), 1 - (1 - found) / (2 * (1 - self.points))
        return torch.where(found < self.points, low, high)


def build_densenet() -> nn.Module:
    """The network with random weights: inputs (N, 1, 224, 224) -> logits (N, 18)."""
    from torchvision.models import densenet121

    network = densenet121(weights=None, num_classes=len(FINDINGS))
    network.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def inputs(images: Tensor, convention: str) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as a convention feeds them, (N, 1, H', W')."""
    grey = levels(images).astype(np.float32) / 255  # (N, H, W, 3)
    if convention == "unit":
        return torch.from_numpy(grey.mean(-1))[:, None]
    grey = ((2 * grey - 1) * 1024).mean(-1)
    if convention == "xrv":
        return torch.from_numpy(np.stack([resize(centre(image)) for image in grey]))[:, None]
    scaled = torch.from_numpy(np.stack([centre(image) for image in grey]))[:, None]
    if scaled.shape[-2:] == (SIZE, SIZE):
        return scaled
    return functional.interpolate(scaled, (SIZE, SIZE), mode="bilinear", antialias=True)


def centre(image: np.ndarray) -> np.ndarray:
    """The middle square of an image (H, W)."""
    side = min(image.shape)
    top, left = (image.shape[0] // 2 - side // 2, image.shape[1] // 2 - side // 2)
    return image[top:top + side, left:left + side]


def resize(image: np.ndarray) -> np.ndarray:
    """An image (H, W) at 224 x 224 as torchxrayvision resizes: scikit-image's resize, with zeros around the image."""
    from scipy import ndimage

    factors = np.divide(image.shape, SIZE)
    blurred = ndimage.gaussian_filter(image, np.maximum(0, (factors - 1) / 2), mode="grid-constant") if factors.max() > 1 else image
    scaled = ndimage.zoom(blurred, 1 / factors, order=1, mode="grid-constant", grid_mode=True)
    low, high = image.min(), image.max()
    if scaled.min() <= 0 <= scaled.max():
        low, high = min(low, 0), max(high, 0)
    return np.clip(scaled, low, high)
