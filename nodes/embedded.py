"""The embedded base as a ComfyUI model class, so that the stock loader takes its file like any checkpoint.

ComfyUI picks a model class by the U-Net's shape. The embedded base is an SD 1.x in every respect but its widths, so a subclass
that names them is all it takes; `host.py` hands in ComfyUI's modules.
"""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

from ..training.embedded.architecture import TEXT_ENCODER, UNET


def model_class(supported_models: ModuleType, supported_models_base: ModuleType, sd1_clip: ModuleType) -> type:
    """A subclass of ComfyUI's SD15 with the embedded base's widths, text encoder and tokenizer."""
    width = TEXT_ENCODER["hidden_size"]

    class Tokens(sd1_clip.SDTokenizer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{**kwargs, "embedding_size": width})

    class Tokenizer(sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None, **kwargs):
            super().__init__(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {}, tokenizer=Tokens)

    class Text(sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None, **kwargs):
            super().__init__(device=device, dtype=dtype, model_options=model_options or {}, return_projected_pooled=False,
                             textmodel_json_config=dict(TEXT_ENCODER))

    class TextEncoder(sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None, **kwargs):
            super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=Text)

    class MedTuneEmbedded(supported_models.SD15):
        unet_config: ClassVar = {**supported_models.SD15.unet_config, "context_dim": UNET["cross_attention_dim"],
                       "model_channels": UNET["block_out_channels"][0]}
        unet_extra_config: ClassVar = {"num_heads": -1,
                                       "num_head_channels": UNET["block_out_channels"][-1] // UNET["attention_head_dim"][-1]}

        def clip_target(self, state_dict=None):
            return supported_models_base.ClipTarget(Tokenizer, TextEncoder)

    return MedTuneEmbedded


def register(supported_models: ModuleType, supported_models_base: ModuleType, sd1_clip: ModuleType) -> None:
    """Append the class to ComfyUI's list, once."""
    if not any(known.__name__ == "MedTuneEmbedded" for known in supported_models.models):
        supported_models.models.append(model_class(supported_models, supported_models_base, sd1_clip))
