"""Words that a base did not know: rows beside the token embedding of its text encoder, and names for them in its tokeniser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from ..errors import ModelError

if TYPE_CHECKING:
    from .base import Base

WORD = "word:"
"""Begins the parameter names of taught words."""


class TaughtEmbedding(nn.Embedding):
    """A token embedding that knows further words: a parameter `word:<name>` (tokens, width) for each, in the order of their ids."""

    def taught(self) -> dict[str, Parameter]:
        """The vectors of each taught word."""
        return {name.removeprefix(WORD): vectors for name, vectors in self._parameters.items() if name.startswith(WORD)}

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., width) of token ids; those from the size of the vocabulary on are of taught words."""
        place = ids - self.num_embeddings
        known = super().forward(ids.clamp(max=self.num_embeddings - 1))
        new = F.embedding(place.clamp(min=0), torch.cat(list(self.taught().values())).to(known.dtype))
        return torch.where((place >= 0)[..., None], new, known)


def token_embedding(text_encoder: nn.Module) -> nn.Embedding:
    """The layer of a text encoder that turns token ids into vectors."""
    return next(module for path, module in text_encoder.named_modules() if path.endswith("token_embedding"))


def teach(base: Base, name: str, vectors: Tensor) -> Parameter:
    """Let prompts of a base use a word that stands for vectors (tokens, width); they are copied, and returned as a parameter.

    Raises ConfigError for a name that is none or is taken, ModelError for vectors that do not fit the text encoder.
    """
    layer = token_embedding(base.need("text_encoder"))
    if vectors.ndim != 2 or vectors.shape[1] != layer.embedding_dim or not len(vectors):
        raise ModelError(f"the word {name!r} has vectors of shape {tuple(vectors.shape)}, and the text encoder of {base.ref} reads "
                         f"(tokens, {layer.embedding_dim}). Use it with the kind of base that it was trained on.")
    base.tokenizer = base.tokenizer.extended({name: len(vectors)})
    layer.__class__ = TaughtEmbedding
    parameter = Parameter(vectors.detach().to(layer.weight.device, layer.weight.dtype, copy=True), requires_grad=False)
    layer.register_parameter(WORD + name, parameter)
    return parameter
