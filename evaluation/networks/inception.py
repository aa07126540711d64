"""The Inception network of the Frechet inception distance (Szegedy et al. 2015, as Heusel et al. 2017 use it), and its files' names.

The weights of 2015-12-05 go with a network that differs from torchvision's in its pooling: averages leave the padding out, and the
last block takes maxima. clean-fid brings those blocks; their tensors have torchvision's names. The TorchScript archive that clean-fid
itself fetches holds the same weights under the names of the original graph, with batch norms that have no scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WHAT = "the Inception network of the Frechet inception distance (2015-12-05)"
CLASSES = 1008

_STEM = {"conv": "Conv2d_1a_3x3", "conv_1": "Conv2d_2a_3x3", "conv_2": "Conv2d_2b_3x3", "conv_3": "Conv2d_3b_1x1",
         "conv_4": "Conv2d_4a_3x3"}
_BLOCKS = {"mixed": "5b", "mixed_1": "5c", "mixed_2": "5d", "mixed_3": "6a", "mixed_4": "6b", "mixed_5": "6c", "mixed_6": "6d",
           "mixed_7": "6e", "mixed_8": "7a", "mixed_9": "7b", "mixed_10": "7c"}
_A = {"conv": "branch1x1", "tower.conv": "branch5x5_1", "tower.conv_1": "branch5x5_2", "tower_1.conv": "branch3x3dbl_1",
      "tower_1.conv_1": "branch3x3dbl_2", "tower_1.conv_2": "branch3x3dbl_3", "tower_2.conv": "branch_pool"}
_B = {"conv": "branch3x3", "tower.conv": "branch3x3dbl_1", "tower.conv_1": "branch3x3dbl_2", "tower.conv_2": "branch3x3dbl_3"}
_C = {"conv": "branch1x1", "tower.conv": "branch7x7_1", "tower.conv_1": "branch7x7_2", "tower.conv_2": "branch7x7_3",
      "tower_1.conv": "branch7x7dbl_1", "tower_1.conv_1": "branch7x7dbl_2", "tower_1.conv_2": "branch7x7dbl_3",
      "tower_1.conv_3": "branch7x7dbl_4", "tower_1.conv_4": "branch7x7dbl_5", "tower_2.conv": "branch_pool"}
_D = {"tower.conv": "branch3x3_1", "tower.conv_1": "branch3x3_2", "tower_1.conv": "branch7x7x3_1", "tower_1.conv_1": "branch7x7x3_2",
      "tower_1.conv_2": "branch7x7x3_3", "tower_1.conv_3": "branch7x7x3_4"}
_E = {"conv": "branch1x1", "tower_conv": "branch3x3_1", "tower_mixed_conv": "branch3x3_2a", "tower_mixed_conv_1": "branch3x3_2b",
      "tower_1_conv": "branch3x3dbl_1", "tower_1_conv_1": "branch3x3dbl_2", "tower_1_mixed_conv": "branch3x3dbl_3a",
      "tower_1_mixed_conv_1": "branch3x3dbl_3b", "tower_2_conv": "branch_pool"}
_BRANCHES = {"5b": _A, "5c": _A, "5d": _A, "6a": _B, "6b": _C, "6c": _C, "6d": _C, "6e": _C, "7a": _D, "7b": _E, "7c": _E}
_PARTS = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}


def build_inception() -> nn.Module:
    """The network with random weights: inputs (N, 3, 299, 299) -> logits (N, 1008)."""
    from cleanfid import inception_pytorch as blocks
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, num_classes=CLASSES, aux_logits=False, init_weights=False)
    network.Mixed_5b = blocks.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = blocks.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = blocks.FIDInceptionA(288, pool_features=64)
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(network, f"Mixed_{name}", blocks.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b = blocks.FIDInceptionE_1(1280)
    network.Mixed_7c = blocks.FIDInceptionE_2(2048)
    return network


def is_torchscript(names: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of the TorchScript archive ``inception-2015-12-05.pt``."""
    return "layers.conv.beta" in names and "layers.mixed_10.tower_2_conv.weight" in names


def from_torchscript(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The archive's tensors under torchvision's names, the missing scales of the batch norms as ones; others keep their names."""
    found = {}
    for layer, ours in _layers().items():
        for part, name in _PARTS.items():
            if f"{layer}.{part}" in tensors:
                found[f"{ours}.{name}"] = tensors[f"{layer}.{part}"].float()
        if f"{layer}.beta" in tensors:
            found[f"{ours}.bn.weight"] = torch.ones(len(tensors[f"{layer}.beta"]))
    found |= {f"fc.{part}": tensors[f"output.{part}"].float() for part in ("weight", "bias") if f"output.{part}" in tensors}
    known = {f"{layer}.{part}" for layer in _layers() for part in _PARTS} | {"output.weight", "output.bias"}
    return found | {name: value for name, value in tensors.items() if name not in known}


def _layers() -> dict[str, str]:
    """torchvision's name of each convolution by the archive's."""
    stem = {f"layers.{theirs}": ours for theirs, ours in _STEM.items()}
    return stem | {f"layers.{block}.{theirs}": f"Mixed_{name}.{ours}" for block, name in _BLOCKS.items()
                   for theirs, ours in _BRANCHES[name].items()}
