"""What sd-scripts trains for a method: its script, its network module and the arguments of that, for the same layers.

sd-scripts' own LoRA (`networks.lora`) adapts all linear layers and 1 x 1 convolutions of the attention blocks, with `conv_dim` those
of the ResNets and samplers too. For other layers there is LyCORIS (`lycoris.kohya`), whose preset file names each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import ConfigError
from .keys import text_name
from .targets import Place

if TYPE_CHECKING:
    from .base import Base
    from .method import Method

PRESET = "lycoris_preset.toml"
METHODS_THERE = ("lora", "dora", "loha", "lokr", "full", "textual-inversion")

_ALGORITHMS = {"lora": "lora", "dora": "lora", "loha": "loha", "lokr": "lokr"}
_ATTENTION = {"Transformer2DModel"}
_RESNETS = {"ResnetBlock2D", "Downsample2D", "Upsample2D"}
_TEXT = {"CLIPAttention", "CLIPSdpaAttention", "CLIPMLP"}


@dataclass(frozen=True)
class Network:
    """What to run, and with what: `settings` are arguments but for the learning rates, `preset` a LyCORIS preset file's text.

    `text_encoder` is None where the script has no say in it, else whether it is trained beside the U-Net.
    """

    script: str
    settings: list[str]
    text_encoder: bool | None = None
    preset: str = ""
    template: str = ""
    notices: list[str] = field(default_factory=list)

    def arguments(self, lr: float) -> list[str]:
        """The arguments, learning rates included."""
        if self.text_encoder is None:
            return self.settings
        rates = ["--unet_lr", f"{lr:g}", "--text_encoder_lr", f"{lr:g}"] if self.text_encoder else \
            ["--unet_lr", f"{lr:g}", "--network_train_unet_only"]
        return [*self.settings, *rates]

    def caption(self, text: str) -> str:
        """A caption as the training is to read it."""
        return self.template.replace("{caption}", text) if self.template else text


def network_of(base: Base, method: Method) -> Network:
    """What sd-scripts trains for a method on a base. Raises ConfigError for settings that it has not."""
    if method.name == "full":
        return _full(method.config)
    if method.name == "textual-inversion":
        return _textual_inversion(method.config)
    return _adapter(base, method)


def _full(config: Any) -> Network:
    if config.parts not in ("unet", "unet+text-encoder"):
        raise ConfigError(f"parts is {config.parts!r}, and sd-scripts trains the U-Net (unet), or it with the text encoder "
                          "(unet+text-encoder)")
    text = ["--train_text_encoder"] if "text" in config.parts else []
    if text and config.lr_text_encoder:
        text += ["--learning_rate_te", f"{config.lr_text_encoder:g}"]
    return Network("fine_tune.py", text, notices=["fine_tune.py writes a whole checkpoint, not the difference from the base"])


def _textual_inversion(config: Any) -> Network:
    settings = ["--token_string", config.token, "--num_vectors_per_token", str(config.vectors)]
    settings += ["--init_word", config.start] if config.start else []
    return Network("train_textual_inversion.py", settings, template=config.template.replace("{token}", config.token))


def _adapter(base: Base, method: Method) -> Network:
    config, places = method.config, method.chosen(base)
    notices = []
    if getattr(config, "start", "kaiming") != "kaiming":
        notices.append(f"sd-scripts starts a LoRA in one way alone: start={config.start} is left out")
    if getattr(config, "dropout", 0):
        notices.append("sd-scripts drops an update's inner values, MedTune its inputs")
    text_encoder = any(place.part == "text_encoder" for place in places)
    ranks = {place.size or config.rank for place in places}
    if method.name == "lora" and len(ranks) == 1 and (conv := _own_layers(base, places)) is not None:
        return _own(config, conv, ranks.pop(), text_encoder, notices)
    notices.append("needs LyCORIS in the environment of sd-scripts: pip install lycoris-lora")
    if method.name == "dora":
        notices.append("LyCORIS writes dora_scale, which ComfyUI's stock loader gets wrong along the outputs: merge or bake its file")
    arguments = [f"algo={_ALGORITHMS[method.name]}", f"preset={PRESET}", *_options(method)]
    settings = ["--network_module", "lycoris.kohya", "--network_dim", str(config.rank), "--network_alpha",
                f"{_alpha(config, config.rank):g}", "--network_args", *arguments]
    return Network("train_network.py", settings, text_encoder, preset_toml(places, config, _ALGORITHMS[method.name]), notices=notices)


def _own(config: Any, conv: bool, rank: int, text_encoder: bool, notices: list[str]) -> Network:
    """sd-scripts' own LoRA."""
    alpha = f"{_alpha(config, rank):g}"
    own = ([f"conv_dim={rank}", f"conv_alpha={alpha}"] if conv else []) + _plus(config)
    settings = ["--network_module", "networks.lora", "--network_dim", str(rank), "--network_alpha", alpha]
    settings += ["--network_dropout", f"{config.dropout:g}"] if config.dropout else []
    return Network("train_network.py", settings + (["--network_args", *own] if own else []), text_encoder, notices=notices)


def _own_layers(base: Base, places: Sequence[Place]) -> bool | None:
    """Whether sd-scripts' own LoRA adapts just these layers: with its convolutions, without, or not at all (None)."""
    wanted = {(place.part, place.name) for place in places}
    text = _within(base, "text_encoder", _TEXT, lambda layer: isinstance(layer, nn.Linear)) if any(
        part == "text_encoder" for part, _ in wanted) else set()
    small = _within(base, "unet", _ATTENTION, lambda layer: isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1))
    every = _within(base, "unet", _ATTENTION | _RESNETS, lambda layer: True)
    return False if wanted == small | text else True if wanted == every | text else None


def _within(base: Base, part: str, blocks: set[str], counts: Callable[[nn.Module], bool]) -> set[tuple[str, str]]:
    """The linear layers and convolutions in blocks of these classes."""
    found = set()
    for path, block in getattr(base, part).named_modules():
        if type(block).__name__ in blocks:
            found |= {(part, f"{path}.{name}") for name, layer in block.named_modules()
                      if isinstance(layer, (nn.Linear, nn.Conv2d)) and counts(layer)}
    return found


def _alpha(config: Any, rank: int) -> float:
    """The alpha by which alpha / rank is the scale of the setting."""
    return config.alpha * rank**0.5 if getattr(config, "rank_stabilised", False) else config.alpha


def _plus(config: Any) -> list[str]:
    ratio = getattr(config, "up_ratio", 1.0)
    return [f"loraplus_lr_ratio={ratio:g}"] if ratio != 1 else []


def _options(method: Method) -> list[str]:
    """The options of LyCORIS' algorithm."""
    config = method.config
    found = _plus(config) + ([f"dropout={config.dropout:g}"] if getattr(config, "dropout", 0) else [])
    found += ["use_tucker=True"] if getattr(config, "tucker", False) else []
    found += ["decompose_both=True"] if getattr(config, "decompose_both", False) else []
    found += [f"factor={config.factor}"] if method.name == "lokr" else []
    return found + (["dora_wd=True", "wd_on_output=True"] if method.name == "dora" else [])


def preset_toml(places: Sequence[Place], config: Any, algorithm: str) -> str:
    """LyCORIS' preset file: the layers by name and, for those of another rank than the rest, that rank."""
    names = {part: [_there(place) for place in places if place.part == part] for part in ("unet", "text_encoder")}
    lines = ["enable_conv = true", "use_fnmatch = true", "unet_target_module = []", f"unet_target_name = {_listed(names['unet'])}",
             "text_encoder_target_module = []", f"text_encoder_target_name = {_listed(names['text_encoder'])}"]
    for place in places:
        if place.size and place.size != config.rank:
            lines += ["", f"[name_algo_map.{json.dumps(_there(place))}]", f'algo = "{algorithm}"', f"dim = {place.size}",
                      f"alpha = {float(_alpha(config, place.size))}"]
    return "\n".join(lines) + "\n"


def _there(place: Place) -> str:
    """A layer's name in sd-scripts, whose text encoder is that of transformers 4."""
    return place.name if place.part == "unet" else text_name(f"{place.name}.weight").removesuffix(".weight")


def _listed(names: Sequence[str]) -> str:
    return "[\n" + "".join(f"  {json.dumps(name)},\n" for name in names) + "]" if names else "[]"
