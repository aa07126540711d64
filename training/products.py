"""The files that a training can make besides an adapter, and what applying each to a base does.

An adapter cannot hold a trained autoencoder (a VAE file), a new word (an embedding, which prompts name), or a U-Net of another shape
than its base's (a whole checkpoint).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import ConfigError, ModelError
from .file_kind import describe
from .keys import text_encoder_name
from .method import misfits
from .vae_file import vae_scalars, vae_shapes, vae_weights
from .words import teach

if TYPE_CHECKING:
    from .adapter import Adapter
    from .base import Base

KINDS = {"adapter": "a LoRA or another adapter", "vae": "an autoencoder (VAE) alone", "embedding": "textual inversion embeddings",
         "model": "a Stable Diffusion checkpoint"}
"""Kind -> what `file_kind.describe` says of it. In a run's folder the file is `<kind>.safetensors`."""

_ARCHITECTURES = {"adapter": "/lora", "vae": "/vae", "embedding": "/textual-inversion", "model": ""}


def kind_of(names: Collection[str], header: Mapping[str, str]) -> str | None:
    """Which product a file with these tensor names is; None for what is none. A checkpoint is one only if a training here made it."""
    what = describe(names)
    kind = next((kind for kind, said in KINDS.items() if said == what), None)
    return None if kind == "model" and header.get("medtune.product") != "model" else kind


def product_header(header: Mapping[str, str], kind: str) -> dict[str, str]:
    """An adapter's header as that of another product."""
    architecture = header["modelspec.architecture"].removesuffix("/lora") + _ARCHITECTURES[kind]
    kept = {key: value for key, value in header.items() if kind == "adapter" or not key.startswith("ss_network_")}
    return {**kept, "modelspec.architecture": architecture, "medtune.product": kind}


def apply_product(base: Base, product: Adapter, strength: float = 1.0) -> list[str]:
    """Change a base in place by a product that is no adapter; what a user should know of it is returned as sentences.

    Raises ModelError, before anything is changed, for a file that does not fit, ConfigError for a strength that it cannot have.
    """
    if product.kind != "vae" and strength != 1:
        raise ConfigError(f"the strength is {strength:g}, and {product.name} is {KINDS[product.kind]}, which is used whole. Set it to "
                          "1.")
    return {"vae": apply_vae, "embedding": apply_embedding, "model": apply_model}[product.kind](base, product, strength)


def apply_vae(base: Base, product: Adapter, strength: float) -> list[str]:
    """Put an autoencoder in the place of the base's, or that share of the way to it."""
    vae = base.need("vae")
    problems = misfits(product.tensors, vae_shapes(vae)) or "; ".join(
        f"{name} {product.tensors[name].item():g}, not {value.item():g}" for name, value in vae_scalars(base).items()
        if not torch.isclose(product.tensors[name].float(), value))
    if problems:
        raise ModelError(f"{product.name} is another kind of autoencoder than that of {base.ref} ({problems}). Use it with the base "
                         "that it was trained on.")
    with torch.no_grad():
        for name, value in vae_weights(vae, product.tensors).items():
            weight = vae.get_parameter(name)
            weight.copy_(value if strength == 1 else torch.lerp(weight.float(), value.float().to(weight.device), strength))
    return []


def apply_embedding(base: Base, product: Adapter, strength: float) -> list[str]:
    """Teach the base the word of an embedding: under its name in training, or that of the file where it does not say."""
    name = json.loads(product.header.get("medtune.config", "{}")).get("token") or Path(product.name).stem
    key = text_encoder_name(base.kind)
    vectors = product.tensors.get(key, next(iter(product.tensors.values())) if len(product.tensors) == 1 else None)
    if vectors is None:
        raise ModelError(f"{product.name} has embeddings for {', '.join(product.tensors)} and none for {key}, the text encoder of "
                         f"{base.ref}. Use it with the kind of base that it was trained on.")
    teach(base, name, vectors.reshape(-1, vectors.shape[-1]).float())
    return [f"prompts use the embedding of {product.name} by the word {name}"]


def apply_model(base: Base, product: Adapter, strength: float) -> list[str]:
    """Put a whole checkpoint in the base's place."""
    from .base import Base
    from .source import open_checkpoint

    source = open_checkpoint(product.tensors, product.header, product.name)
    base.__dict__.update(vars(Base(source, base.ref, base.device, base.dtype)))
    return []
