"""Cross-attention tuning: only the layers through which the text reaches the image (Gheini et al., EMNLP 2021, "Cross-Attention is All
You Need", https://arxiv.org/abs/2104.08771, for translation)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..direct import DirectMethod
from ..method import METHODS, Facts


@dataclass(frozen=True)
class CrossAttentionConfig:
    """Nothing to choose: all of the U-Net's cross-attention is trained."""


@METHODS.register("cross-attention")
class CrossAttention(DirectMethod):
    """Train the four projections of each cross-attention layer."""

    name = "cross-attention"
    Config = CrossAttentionConfig
    facts = Facts(
        title="Cross-attention tuning", paper="Gheini et al., Cross-Attention is All You Need", year=2021,
        trains="the cross-attention of the U-Net", cost="44.0 M on Stable Diffusion 1.5", merges=True,
        file="the full difference of each weight", zero_start=True, lr=1e-5)

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return "attn2" in path.split(".")
