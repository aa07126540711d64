"""A base as one LDM file: what is read back is the base."""

from __future__ import annotations

import torch
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from medtune.training import configs
from medtune.training.base import Base
from medtune.training.single_file import checkpoint_tensors, open_clip_tensors
from medtune.training.source import open_checkpoint


def test_the_embedded_base_survives_the_way_there_and_back(base):
    tensors = checkpoint_tensors(base)
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in tensors.values())
    read = Base(open_checkpoint(tensors, {}, "again"), "again", "cpu", torch.float32)
    for part in ("unet", "text_encoder", "vae"):
        one, other = getattr(base, part).state_dict(), getattr(read, part).state_dict()
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert read.latent_scale == base.latent_scale


def test_open_clip_names_are_those_that_diffusers_reads():
    from types import SimpleNamespace

    from transformers import CLIPTextConfig, CLIPTextModel

    small = configs.TEXT_2 | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                              "vocab_size": 50, "projection_dim": 32}
    state = CLIPTextModel(CLIPTextConfig(**small)).state_dict()
    text = {name if name.startswith("text_model.") else f"text_model.{name}": value for name, value in state.items()
            if not name.endswith("position_ids")}
    tensors = open_clip_tensors(text)
    assert sum(".resblocks.2." in name for name in tensors) == 12  # the last layer, which such files have
    config = SimpleNamespace(config=SimpleNamespace(**small))
    back = convert_open_clip_checkpoint(config, tensors | {"cond_stage_model.model.text_projection": torch.zeros(32, 32)},
                                        prefix="cond_stage_model.model.")
    back = {name if name.startswith("text_model.") else f"text_model.{name}": value for name, value in back.items()}
    assert text.keys() <= back.keys()
    assert all(torch.equal(back[name], value) for name, value in text.items())
