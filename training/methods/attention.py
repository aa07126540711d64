"""Attention tuning: all of the attention layers and nothing else (Moon et al. 2022, "Fine-tuning Diffusion Models with Limited Data",
NeurIPS workshop on score-based methods)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...config import option
from ..direct import DirectMethod
from ..method import METHODS, Facts

_LAYERS = {"attn1", "attn2", "self_attn"}


@dataclass(frozen=True)
class AttentionConfig:
    """Whose attention is trained."""

    text_encoder: bool = option(False, "Train the attention of the text encoder too.")


@METHODS.register("attention")
class Attention(DirectMethod):
    """Train the four projections of each attention layer."""

    name = "attention"
    Config = AttentionConfig
    facts = Facts(
        title="Attention tuning", paper="Moon et al., Fine-tuning Diffusion Models with Limited Data", year=2022,
        trains="self- and cross-attention of the U-Net, optionally the attention of the text encoder",
        cost="93.5 M on Stable Diffusion 1.5", merges=True, file="the full difference of each weight", zero_start=True, lr=1e-5)

    def picks(self, part: str, path: str, module: nn.Module, end: str) -> bool:
        return not _LAYERS.isdisjoint(path.split("."))
