"""The keys and values that cross-attention reads from the text: what Custom Diffusion trains (Kumari et al., CVPR 2023,
https://arxiv.org/abs/2212.04488)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..direct import DirectMethod
from ..method import METHODS, Facts


@dataclass(frozen=True)
class CrossKVConfig:
    """Nothing to choose: the key and value projections of all cross-attention layers are trained."""


@METHODS.register("cross-kv")
class CrossKV(DirectMethod):
    """Train the key and value projections of each cross-attention layer."""

    name = "cross-kv"
    Config = CrossKVConfig
    facts = Facts(
        title="Cross-attention keys and values", paper="Kumari et al., Multi-Concept Customization of Text-to-Image Diffusion",
        year=2023,
        trains="the key and value projections of the U-Net's cross-attention", cost="19.2 M on Stable Diffusion 1.5", merges=True,
        file="the full difference of each weight", zero_start=True, lr=1e-5)

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return path.endswith(("attn2.to_k", "attn2.to_v"))
