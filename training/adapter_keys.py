"""The keys of adapter files, whoever wrote them: what kind of change each is, and which stock loaders of ComfyUI read it.

Checked against `comfy/lora.py` and `comfy/weight_adapter` of ComfyUI 0.3.64 and 0.33.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Ending of a key -> the kind of change. Endings that several kinds share have none of their own.
_ENDINGS = {
    "LoRA": ("lora_up.weight", "lora_down.weight", "lora_mid.weight", "lora_A.weight", "lora_B.weight", "lora_A.default.weight",
             "lora_B.default.weight", "lora_A", "lora_B", "lora.up.weight", "lora.down.weight", "lora_linear_layer.up.weight",
             "lora_linear_layer.down.weight", "lora_embedding_A", "lora_embedding_B"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    "OFT": ("oft_blocks", "oft_diag", "oft_R", "oft_R.weight", "oft_r", "oft_r.weight"),
    "BOFT": ("boft_R", "boft_s", "boft_R.weight", "boft_s.weight"),
    "VeRA": ("vera_lambda_b", "vera_lambda_d", "vera_lambda_b.weight", "vera_lambda_d.weight"),
    "IA3": ("on_input", "ia3_l", "ia3_l.weight"),
    "difference": ("diff", "w_norm"),
    "bias difference": ("diff_b", "b_norm"),
    "replacement": ("set_weight",),
    "": ("alpha", "dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight", "rescale", "reshape_weight"),
}
_KIND_OF = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings}
_OLD_DIFFUSERS = re.compile(r"_lora\.(up|down)\.weight$")  # of attention processors: ...processor.to_q_lora.up.weight

READ_ENDINGS = frozenset({
    "lora_up.weight", "lora_down.weight", "lora_mid.weight", "lora_A.weight", "lora_B.weight", "lora_A.default.weight",
    "lora_B.default.weight", "lora_A", "lora_B", "lora.up.weight", "lora.down.weight", "lora_linear_layer.up.weight",
    "lora_linear_layer.down.weight", *_ENDINGS["LoHa"], *_ENDINGS["LoKr"], "oft_blocks", "diff", "diff_b", "w_norm", "b_norm",
    "set_weight", "alpha", "dora_scale", "rescale", "reshape_weight", "_lora.up.weight", "_lora.down.weight"})
"""What the stock LoraLoader reads after a name that it knows."""

_TEXT_LINEAR = r"text_model[._]encoder[._]layers[._]\d+[._](self_attn[._][qkv]_proj|self_attn[._]out_proj|mlp[._]fc[12])"
_READ_STEMS = re.compile(
    r"lora_unet_.+|lycoris_.+|diffusion_model\..+|text_encoders\..+|(unet\.)?(down_blocks|mid_block|up_blocks)\..+\.processor\.to_.+"
    rf"|lora_te1?_{_TEXT_LINEAR}|text_encoder\.{_TEXT_LINEAR}")

_WORLDS = (("peft", re.compile(r"base_model\.model\.")), ("kohya", re.compile(r"lora_(unet|te\d?)_")),
           ("ComfyUI", re.compile(r"(diffusion_model|text_encoders)\.")), ("SimpleTuner", re.compile(r"lycoris_")),
           ("diffusers", re.compile(r"(unet|text_encoder)\.|(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding)\.")))


def split(key: str) -> tuple[str, str] | None:
    """(name of the layer, ending) of an adapter's key, or None for an ending that no adapter has."""
    if match := _OLD_DIFFUSERS.search(key):
        return key[:match.start()], match[0]
    at = [index for index, letter in enumerate(key) if letter == "."]
    return next(((key[:index], key[index + 1:]) for index in at if key[index + 1:] in _KIND_OF), None)


def kind_of(endings: Iterable[str], dimensions: int = 0) -> str:
    """The kind of change of one layer by the endings of its keys; `dimensions` are those of its `oft_blocks`."""
    endings = set(endings)
    kinds = {"LoRA" if _OLD_DIFFUSERS.search(ending) else _KIND_OF[ending] for ending in endings} - {""}
    if dimensions == 4:
        kinds = {"BOFT" if kind == "OFT" else kind for kind in kinds}
    if endings & {"dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight"}:
        kinds = {"DoRA" if kind == "LoRA" else kind for kind in kinds}
    if kinds == {"difference", "bias difference"}:
        return "difference"
    return " and ".join(sorted(kinds)) or "incomplete"


def world_of(stem: str) -> str:
    """Whose way of naming layers it is."""
    return next((world for world, pattern in _WORLDS if pattern.match(stem)), "unknown")


def stock_reads(stem: str, ending: str) -> bool:
    """Whether the stock LoraLoader reads a key of a Stable Diffusion 1 or 2 adapter, should the layer exist."""
    return ending in READ_ENDINGS and _READ_STEMS.fullmatch(stem) is not None
