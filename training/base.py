"""A base model to tune: U-Net, text encoder, autoencoder and tokeniser, whatever their weights come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..errors import ConfigError, Missing, ModelError
from . import embedded
from .keys import text_name
from .layout import Layout, refuse
from .source import Source, open_file, open_folder, open_tensors
from .tokenizer import Tokenizer

EMBEDDED = "embedded"
NOTICE = ("Made with the embedded base: a small model for trying and testing, trained on drawn scenes. "
          "Its scores say how methods compare on it, nothing about a clinical use.")


def load_base(ref: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
              prediction: str | None = None) -> Base:
    """Load a base, frozen and in evaluation mode; nothing is ever downloaded.

    Args:
        ref: `embedded`, a .safetensors checkpoint in LDM layout, or a folder as diffusers saves it.
        prediction: `epsilon` or `v_prediction`, where the file does not say it or says it wrongly.

    Raises:
        Missing: there is no such file.
        ModelError: the file is not a base, saying what it is, or lacks tensors, naming each.
    """
    path = embedded.FILE if str(ref) == EMBEDDED else Path(ref).expanduser()
    if not path.exists():
        hint = ("Name a file of its architecture by MEDTUNE_EMBEDDED_BASE, or use a checkpoint of your own." if str(ref) == EMBEDDED
                else f"Give {EMBEDDED!r}, the path of a .safetensors checkpoint, or a diffusers folder.")
        raise Missing(f"there is no base {str(path)!r}. {hint}")
    source = open_folder(path, prediction) if path.is_dir() else open_file(path, prediction)
    return Base(source, str(ref), device, dtype)


def base_from_tensors(unet_ldm: Mapping[str, Tensor], text: Mapping[str, Tensor] | None, vae: Mapping[str, Tensor] | None,
                      kind: str | None = None, name: str = "graph", *, device: str | torch.device = "cpu",
                      dtype: torch.dtype = torch.float32, prediction: str | None = None) -> Base:
    """A base from plain weights; a part that is None cannot be used. `kind` is checked against the shapes where it is given.

    Keys: `unet_ldm` as in LDM files after `model.diffusion_model.`; `text` as `text_model....`; `vae` in LDM or TAESD names.
    The tensors are copied.
    """
    copies = [None if part is None else {key: value.detach().cpu().clone() for key, value in part.items()}
              for part in (unet_ldm, text, vae)]
    base = Base(open_tensors(*copies, name, prediction), name, device, dtype)
    if kind is not None and kind != base.kind:
        raise ModelError(f"{name} was said to be {kind!r}, and its weights are those of {base.kind!r}. Give its own kind, or None.")
    return base


class Base:
    """The networks of one base and the few operations that training and sampling need of them.

    Attributes:
        ref: what it was loaded from.
        hash: SHA-256 of the file (of a folder: over its weight files; of tensors: over their bytes).
        kind: `sd1`, `sd2` or `embedded`.
        prediction: `epsilon` or `v_prediction`.
        channels: of the U-Net's input: 4, or 9 for inpainting.
        unet, text_encoder, vae, tokenizer: the networks, frozen, and the tokeniser.
        scheduler_config: what diffusers' schedulers are built from.
        source: where its original weights are read from.
        notice: what every report made with this base must say, or None.
    """

    def __init__(self, source: Source, ref: str, device: str | torch.device, dtype: torch.dtype):
        self.ref, self.hash, self.kind, self.prediction = ref, source.hash, source.layout.kind, source.prediction
        self.channels: int = source.layout.unet["in_channels"]
        self.scheduler_config: dict[str, Any] = {**source.layout.scheduler, "prediction_type": source.prediction}
        self.notice = NOTICE if self.kind == "embedded" else None
        self.device, self.dtype = torch.device(device), dtype
        self.source = source
        self._text_stem = "text_model."  # what transformers 4 begins CLIPTextModel's names with, and 5 does not
        self.tokenizer = Tokenizer(source.layout.text["pad_token_id"])
        self.unet = self._built("unet")
        self.text_encoder = self._built("text_encoder")
        self.vae = self._built("vae")

    def _built(self, part: str) -> nn.Module | None:
        if not self.source.has(part):
            return None
        network = empty(part, self.source.layout)
        if part == "text_encoder" and not next(iter(network.state_dict())).startswith(self._text_stem):
            self._text_stem = ""
        weights = self.original(part)
        check_weights(network, weights, part, self.ref)
        network.load_state_dict({key: _own(value, self.device, self.dtype) for key, value in weights.items()}, assign=True)
        return network.to(self.device).requires_grad_(False).eval()

    def original(self, part: str) -> dict[str, Tensor]:
        """The weights as stored, in the stored type, under the names of `unet`, `text_encoder` or `vae`.

        Read anew from the file at each call and memory-mapped, so that they cost no memory until they are used.
        """
        weights = self.source.read(part)
        if part == "text_encoder":
            weights = {self._text_stem + name.removeprefix("text_model."): value for name, value in weights.items()}
        return weights

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Base:
        """Move the networks, in place."""
        self.device, self.dtype = torch.device(device or self.device), dtype or self.dtype
        for part in (self.unet, self.text_encoder, self.vae):
            if part is not None:
                part.to(self.device, self.dtype)
        return self

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Token ids (N, 77), and how many tokens each prompt needs, start and end included: above 77, the prompt was cut."""
        return self.tokenizer(prompts)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text states (N, 77, d), as ComfyUI's CLIPTextEncode makes them of plain prompts without weights in parentheses.

        Stable Diffusion 2 takes the last layer but one, through the final norm: its text encoder is built without the last.
        """
        text_encoder = self.need("text_encoder")
        ids, _ = self.tokens(prompts)
        return text_encoder(ids.to(text_encoder.device)).last_hidden_state

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (N, 4, H/8, W/8) of the latents of images (N, 3, H, W) in [0, 1], in the U-Net's scale.

        An autoencoder of TAESD's layout has no spread: its deviation is 0.
        """
        vae = self.need("vae")
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 8 or images.shape[3] % 8:
            raise ConfigError(f"images are {tuple(images.shape)}; they must be (N, 3, H, W) with H and W multiples of 8")
        encoded = vae.encode(images.to(vae.device, vae.dtype) * 2 - 1)
        if hasattr(encoded, "latents"):
            mean = encoded.latents.float()
            deviation = torch.zeros_like(mean)
        else:
            mean, deviation = encoded.latent_dist.mean.float(), encoded.latent_dist.std.float()
        return mean * self.source.scale + self.source.shift * self.source.scale, deviation * self.source.scale

    def encode_images(self, images: Tensor, generator: Generator | None = None, sample: bool = False) -> Tensor:
        """Latents (N, 4, H/8, W/8) of images (N, 3, H, W) in [0, 1]: the posterior's mean, or a sample of it by the generator."""
        mean, deviation = self.posterior(images)
        if not sample:
            return mean
        place = generator.device if generator is not None else mean.device
        noise = torch.randn(mean.shape, generator=generator, device=place)
        return mean + deviation * noise.to(mean.device)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] of latents (N, 4, h, w) in the U-Net's scale."""
        return (self.decoded(latents) / 2 + 0.5).clamp(0, 1)

    def decoded(self, latents: Tensor) -> Tensor:
        """What the autoencoder itself makes of latents in the U-Net's scale: images (N, 3, H, W) about -1 to 1, unbounded."""
        vae = self.need("vae")
        raw = latents.float() / self.source.scale - self.source.shift
        return vae.decode(raw.to(vae.device, vae.dtype)).sample.float()

    @property
    def latent_scale(self) -> tuple[float, float]:
        """(scale, shift): the U-Net's latents are (raw + shift) * scale of the autoencoder's."""
        return self.source.scale, self.source.shift

    def need(self, part: str) -> nn.Module:
        """One of the networks. Raises ModelError where the base was made without."""
        network = getattr(self, part)
        if network is None:
            raise ModelError(f"the base {self.ref} was made without its {part.replace('_', ' ')}. Connect it, or load the whole "
                             "checkpoint.")
        return network


def empty(part: str, layout: Layout) -> nn.Module:
    """One network of a layout whose parameters take no memory yet."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with init_empty_weights(include_buffers=False):
        if part == "unet":
            return UNet2DConditionModel.from_config(layout.unet)
        if part == "vae":
            return (AutoencoderTiny if layout.tiny_vae else AutoencoderKL).from_config(layout.vae)
        return CLIPTextModel(CLIPTextConfig(**layout.text))


def check_weights(network: nn.Module, weights: Mapping[str, Tensor], part: str, ref: str) -> None:
    """Raise ModelError naming each tensor that the network has and the weights have not, the other way round, or of another shape."""
    wanted, weights = ({text_name(key) if part == "text_encoder" else key: tuple(value.shape) for key, value in tensors.items()}
                       for tensors in (network.state_dict(), weights))
    wrong = [f"{key} {shape}, not {wanted[key]}" for key, shape in weights.items() if shape != wanted.get(key, shape)]
    refuse(ref, part.replace("_", " "), missing=wanted.keys() - weights.keys(), unknown=weights.keys() - wanted.keys(), wrong=wrong)


def _own(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy that shares no memory with the file or the giver."""
    moved = value.to(device, dtype)
    return moved.clone() if moved.data_ptr() == value.data_ptr() else moved
