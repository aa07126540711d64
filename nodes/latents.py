"""A node that trains on core's training data sets: latents and conditionings that were encoded before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from . import host
from .host import METHOD, TRAIN_OPTIONS, io
from .train import CATEGORY, outputs, train_base


class TrainLatents(io.ComfyNode):
    """A MODEL, CLIP and VAE, core's latents and conditionings, and a method -> an adapter."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneTrainLatents", display_name="Train on Encoded Data Set", category=CATEGORY, is_input_list=True,
            description="Fine-tunes on what core's Make Training Dataset and Load Training Dataset give.",
            inputs=[io.Model.Input("model"), io.Clip.Input("clip"), io.Vae.Input("vae"),
                    io.Latent.Input("latents", tooltip="The images, encoded."),
                    io.Conditioning.Input("positive", tooltip="The captions, encoded: one for each image, or one for all."),
                    METHOD.Input("method", tooltip="How to fine-tune."),
                    TRAIN_OPTIONS.Input("options", optional=True, tooltip="Without it: the defaults."),
                    io.String.Input("name", default="medtune", optional=True, tooltip="Begins the adapter's file name.")],
            outputs=outputs(), hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, model, clip, vae, latents, positive, method, options=(None,), name=("medtune",)):
        from ..training.options import TrainOptions
        from ..training.prepared import prepare_records

        with torch.inference_mode(False):
            scaled = [sample.clone() for batch in latents for sample in host.to_unet_scale(model[0], batch["samples"])]
            states = _states(positive, len(scaled))
        chosen = _settings(options[0] or TrainOptions(), scaled)
        return train_base(cls, lambda device: host.graph_base(model[0], clip[0], vae[0], device),
                          lambda base: prepare_records(base, scaled, states, chosen, host.product_folder("encoded")),
                          method=method[0], options=chosen, name=name[0])


def _settings(options: Any, latents: Sequence[Tensor]) -> Any:
    """The options with the size that the latents have; ConfigError for what cannot be done to encoded images."""
    shapes = {tuple(latent.shape) for latent in latents}
    channels, height, width = next(iter(shapes))
    if len(shapes) > 1 or height != width or channels != 4:
        raise DataError(f"the latents are of the shapes {sorted(shapes)}; all must be square and of one size, such as (4, 64, 64)")
    if options.flips or options.posterior != "mode":
        raise ConfigError("flips and posterior need the images; for latents set flips off and posterior to mode")
    return dataclasses.replace(options, size=8 * height, fit="none", cache="disk")


def _states(positive: Sequence[Any], count: int) -> list[Tensor]:
    """(77, d) for each image."""
    states = [entry[0].detach().to("cpu", torch.float32, copy=True) for conditioning in positive for entry in conditioning]
    wrong = [tuple(state.shape) for state in states if state.shape[:2] != (1, 77)]
    if wrong:
        raise DataError(f"a conditioning is {wrong[0]}; captions of one part of 77 tokens can be trained on: (1, 77, d)")
    if len(states) not in (1, count):
        raise DataError(f"there are {len(states)} conditionings for {count} latents; give one for each, or one for all")
    states = [state[0] for state in states]
    return states * count if len(states) == 1 else states


def nodes() -> list[type]:
    """The nodes of this file."""
    return [TrainLatents]
