"""Textual inversion: only the vectors of a new word are trained (Gal et al., ICLR 2023, https://arxiv.org/abs/2208.01618)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.nn import Parameter

from ...config import option
from ...errors import ConfigError
from ..direct import plain
from ..keys import text_encoder_name
from ..method import METHODS, Facts, Method, check_keys, freeze, need_parts
from ..words import teach, token_embedding

if TYPE_CHECKING:
    from ..base import Base

_PLACES = ("caption", "token")


@dataclass(frozen=True)
class TextualInversionConfig:
    """The new word, and how captions use it."""

    token: str = option("medtune-style", "The new word: letters, digits, - and _. ComfyUI's prompts say embedding:NAME, by the name "
                        "of the file; prompts here say the word itself, too.")
    vectors: int = option(4, "Tokens that the word stands for: more can hold more, and take more of a prompt's 77.", low=1, high=64)
    start: str = option("chest x-ray", "Words whose vectors the new ones begin as, repeated or cut to their number; empty draws them "
                        "at random like the vocabulary's.")
    template: str = option("{caption}, {token}", "What is read for each caption: {caption} is the image's own, {token} the new word.")


@METHODS.register("textual-inversion")
class TextualInversion(Method):
    """Teach the text encoder one new word, and nothing else."""

    name = "textual-inversion"
    Config = TextualInversionConfig
    facts = Facts(
        title="Textual inversion", paper="Gal et al., An Image is Worth One Word", year=2023,
        trains="the vectors of a new word", cost="768 for each vector on Stable Diffusion 1.5", merges=False,
        file="an embedding, which prompts read as embedding:NAME", zero_start=True, lr=5e-3)

    def __init__(self, config: Any = None):
        super().__init__(config)
        places = re.findall(r"{(.*?)}", self.config.template)
        unknown = [place for place in places if place not in _PLACES]
        if unknown or "token" not in places:
            what = f"has {{{unknown[0]}}}" if unknown else "has no {token}, so that the word would not be learned"
            raise ConfigError(f"TextualInversionConfig.template {what}: {self.config.template!r}; it must have {{token}} and may have "
                              "{caption}, such as '{caption}, {token}'")

    def trains(self, base: Base) -> set[str]:
        return {"text_encoder"}

    def caption(self, caption: str) -> str:
        return re.sub(r"{(.*?)}", lambda place: {"caption": caption, "token": self.config.token}[place[1]],
                      self.config.template).strip(" ,")

    def words(self) -> dict[str, int]:
        return {self.config.token: self.config.vectors}

    def attach(self, base: Base, generator: Generator) -> None:
        need_parts(base, self.trains(base), self.name)
        freeze(base)
        teach(base, self.config.token, self._first(base, generator)).requires_grad_(True)

    def _first(self, base: Base, generator: Generator) -> Tensor:
        """The vectors (tokens, width) at the start."""
        layer, count = token_embedding(base.text_encoder), self.config.vectors
        ids, lengths = base.tokens([self.config.start])
        ids = ids[0, 1:lengths[0] - 1][:count].to(layer.weight.device)
        if not len(ids):
            drawn = torch.randn(count, layer.embedding_dim, generator=generator, device=generator.device).to(layer.weight)
            return layer.weight.mean(0) + drawn * layer.weight.std(0)
        with torch.no_grad():
            return layer(ids).repeat(-(-count // len(ids)), 1)[:count]

    def _vectors(self, base: Base) -> Parameter:
        return token_embedding(base.text_encoder).taught()[self.config.token]

    def named(self, base: Base) -> dict[str, Parameter]:
        return {f"word.{self.config.token}": self._vectors(base)}

    def export(self, base: Base) -> dict[str, Tensor]:
        return {text_encoder_name(base.kind): plain(self._vectors(base))}

    def products(self, base: Base) -> dict[str, dict[str, Tensor]]:
        return {"embedding": self.export(base)}

    def load(self, base: Base, tensors: dict[str, Tensor]) -> None:
        key, vectors = text_encoder_name(base.kind), self._vectors(base)
        check_keys(tensors, {key: vectors.shape}, self.name)
        with torch.no_grad():
            vectors.copy_(tensors[key])
