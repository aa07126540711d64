"""What a weights file is, from its first bytes and its tensor names, without reading a weight.

The safetensors layout: 8 bytes of header length, little-endian; that many bytes of JSON; the tensors' bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import Missing, ModelError

_LONGEST_HEADER = 100_000_000

_TO_SAFETENSORS = ("Pickles can run programs when they are opened, so that they are never read here: take the .safetensors file of "
                   "the same model, or convert it once with torch.load(..., weights_only=True) and safetensors.torch.save_file.")
_FETCH_AGAIN = "Fetch it again, and compare its size with the source's."


@dataclass(frozen=True)
class Header:
    """The head of a safetensors file: shape and type of each tensor, and the text metadata."""

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]
    metadata: dict[str, str]


def read_header(path: str | Path) -> Header:
    """The head of a whole safetensors file. Raises Missing or ModelError that says what the file is instead."""
    path = Path(path)
    if not path.is_file():
        raise Missing(f"there is no file {path}. Give the path of a .safetensors file.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(512)
        if start[8:9] != b"{":  # the JSON that follows the length: else, a length may begin with any other format's mark
            _refuse_other_format(path, start, size)
        length = int.from_bytes(start[:8], "little")
        if length > _LONGEST_HEADER:
            raise ModelError(f"{path} is not a safetensors file: its header would be {length:,} bytes long, and at most "
                             f"{_LONGEST_HEADER:,} are allowed. {_FETCH_AGAIN}")
        if length + 8 > size:
            raise ModelError(f"{path} is truncated: {size:,} bytes, of which the header alone needs {length + 8:,}. {_FETCH_AGAIN}")
        file.seek(8)
        text = file.read(length)
    return _parse(path, text, size - 8 - length)


def _refuse_other_format(path: Path, start: bytes, size: int) -> NoReturn:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if size == 0:
        raise ModelError(f"{path} is empty (0 bytes). {_FETCH_AGAIN}")
    if text.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer, not the weights themselves. Run 'git lfs pull' where it came from.")
    if text.startswith(b"<"):
        raise ModelError(f"{path} is a web page (HTML or XML), not weights: the download gave an error or a login page. "
                         f"{_FETCH_AGAIN}")
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise ModelError(f"{path} is a pickle (.ckpt, .pt, .bin). {_TO_SAFETENSORS}")
    if start[:4] == b"GGUF":
        raise ModelError(f"{path} is a GGUF file of quantised weights, which cannot be tuned. Take the model's .safetensors file.")
    raise ModelError(f"{path} is not a safetensors file: no JSON header follows its first 8 bytes. {_FETCH_AGAIN}")


def _parse(path: Path, text: bytes, room: int) -> Header:
    try:
        head = json.loads(text)
        metadata = head.pop("__metadata__", None) or {}
        shapes = {name: tuple(entry["shape"]) for name, entry in head.items()}
        types = {name: entry["dtype"] for name, entry in head.items()}
        end = max((entry["data_offsets"][1] for entry in head.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"{path} is not a safetensors file: its header cannot be read ({error}). {_FETCH_AGAIN}") from error
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError(f"{path} is not a safetensors file: the __metadata__ of its header is not an object of texts. {_FETCH_AGAIN}")
    if end != room:
        state = "truncated" if end > room else "longer than its header says"
        raise ModelError(f"{path} is {state}: its tensors need {end:,} bytes and {room:,} are there. {_FETCH_AGAIN}")
    if not shapes:
        raise ModelError(f"{path} holds no tensors. {_FETCH_AGAIN}")
    return Header(shapes, types, metadata)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file to take tensors from one by one, memory-mapped: `get_tensor(name)`.

    Raises Missing or ModelError that says what the file is instead; it is never unpickled.
    """
    from safetensors import SafetensorError, safe_open

    read_header(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file that can be used: {error}. {_FETCH_AGAIN}") from error


ADAPTER = "a LoRA or another adapter"

# The last words of the keys of adapters, whoever wrote them: kohya's tools, LyCORIS, peft, diffusers, ComfyUI.
_OF_ADAPTERS = {
    "lora_up", "lora_down", "lora_mid", "lora_A", "lora_B", "lora", "lora_linear_layer", "lora_magnitude_vector", "dora_scale",
    "to_q_lora", "to_k_lora", "to_v_lora", "to_out_lora", "diff", "diff_b", "set_weight", "w_norm", "b_norm", "on_input", "ia3_l",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a", "oft_blocks", "oft_diag",
    "oft_R", "oft_r", "boft_R", "boft_s", "vera_lambda_b", "vera_lambda_d",
}

# What gives a file away by a word of any tensor's dotted name. The first that fits wins.
_WORDS = (
    (ADAPTER, _OF_ADAPTERS),
    ("a ControlNet", {"control_model", "controlnet_cond_embedding", "zero_convs"}),
    ("a Stable Diffusion XL checkpoint", {"conditioner"}),
    ("a checkpoint with class embeddings (Stable Diffusion unCLIP, or XL without text encoders)", {"label_emb"}),
    ("a Stable Diffusion 3 checkpoint", {"joint_blocks"}),
    ("a Flux checkpoint", {"double_blocks", "single_transformer_blocks"}),
)

# The same by what tensor names begin with.
_STARTS = (
    (ADAPTER, ("lora_unet_", "lora_te", "lycoris_", "base_model.model.")),
    ("a Stable Diffusion checkpoint", ("model.diffusion_model.input_blocks.",)),
    ("a checkpoint of another diffusion model", ("model.diffusion_model.",)),
    ("a U-Net alone", ("input_blocks.", "output_blocks.", "down_blocks.", "up_blocks.")),
    ("an autoencoder (VAE) alone", ("encoder.", "decoder.", "first_stage_model.", "quant_conv.", "taesd_encoder.", "taesd_decoder.")),
    ("a text encoder alone", ("text_model.", "cond_stage_model.", "text_encoders.", "transformer.", "token_embedding.")),
    ("textual inversion embeddings", ("emb_params", "string_to_param", "clip_l", "clip_g", "clip_h")),
)


def describe(names: Collection[str]) -> str | None:
    """What a file with these tensor names is: `a Stable Diffusion XL checkpoint`, `a LoRA or another adapter`, ...; None if unknown.

    A checkpoint of Stable Diffusion 1 or 2 is `a Stable Diffusion checkpoint`.
    """
    words = {word for name in names for word in name.split(".")}
    for what, signs in _WORDS:
        if words & signs:
            return what
    return next((what for what, starts in _STARTS if any(name.startswith(starts) for name in names)), None)
