"""Which layers an adapter works beside: a group of them, and patterns of names with a size of their own; in the U-Net and, on
request, in the text encoder."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from ..config import option
from ..errors import ConfigError, listing
from .keys import kohya_name, text_kohya_name

if TYPE_CHECKING:
    from .base import Base

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "mlp.fc1", "mlp.fc2")
THIN = ("conv_in", "conv_out")  # from and to the 4 latent channels: of hardly any rank

TARGETS = ("attention", "attention+ff", "all-linear", "all", "none")


@dataclass(frozen=True)
class Place:
    """One layer: part of the base, name of the module in it, the module, and the size that a pattern gave it."""

    part: str
    name: str
    layer: nn.Module
    size: int | None = None

    @property
    def title(self) -> str:
        """A name that no other layer of the base has."""
        return title_of(self.part, self.name)

    @property
    def width(self) -> int:
        """The number of inputs of one output, over which a weight (outputs, inputs[, height, width]) is flattened."""
        return self.layer.weight[0].numel()

    @property
    def most(self) -> int:
        """The largest rank that a weight of this shape can have."""
        return min(self.layer.weight.shape[0], self.width)


def title_of(part: str, name: str) -> str:
    """The name of a module or parameter of a part, that of the U-Net without a prefix."""
    return name if part == "unet" else f"{part}.{name}"


def key_of(part: str, name: str) -> str:
    """What the keys of a linear layer or a convolution begin with."""
    return kohya_name(name) if part == "unet" else text_kohya_name(name)


def targets_option(note: str = "") -> Any:
    """The option `targets`."""
    return option("attention", "Which layers: the attention's four projections; those and the feed-forward layers; every linear "
                               "layer, with the time embedding's; those and the convolutions of the blocks (ResNets, resampling, "
                               "projections into and out of attention); or only what the patterns name. The first and last "
                               f"convolution are never among them.{note}", choices=TARGETS)


def patterns_option(size: str) -> Any:
    """The option `patterns`; `size` says what the number after a pattern is, where it may be more than 0."""
    number = f"a number after = is their {size}, and 0 leaves them out" if size else "= 0 leaves them out"
    return option("", "More layers, by a part of their name or by a whole name with * and ?, separated by commas; "
                      f"{number}. Of two patterns for one layer the later counts. Example: "
                      f"{'attn2=16, conv=4' if size else 'time_embedding, mid_block=0'}", advanced=True)


def text_encoder_option() -> Any:
    """The option `text_encoder`."""
    return option(False, "Tune the text encoder's linear layers too, of the same groups.")


def any_layer(layer: nn.Module) -> bool:
    """Whether a layer is linear or a convolution."""
    return isinstance(layer, (nn.Linear, nn.Conv2d))


def linear_layer(layer: nn.Module) -> bool:
    """Whether a layer is linear."""
    return isinstance(layer, nn.Linear)


def layers(base: Base, parts: Iterable[str]) -> list[Place]:
    """Every linear layer and convolution of these parts, in the order of the networks."""
    return [Place(part, name, module) for part in ("unet", "text_encoder") if part in parts
            for name, module in getattr(base, part).named_modules() if any_layer(module)]


def choose(base: Base, parts: Iterable[str], targets: str, patterns: str = "",
           fits: Callable[[nn.Module], bool] = any_layer) -> list[Place]:
    """The layers of a group and of patterns, in the order of the networks; `fits` says which kinds the method has a form for.

    Raises ConfigError for a pattern that cannot be read or matches nothing, and where nothing is left.
    """
    every = layers(base, parts)
    chosen = {place.title: place for place in every if fits(place.layer) and _in_group(place, targets)}
    for pattern, size in read_patterns(patterns).items():
        named = [place for place in every if _matches(place, pattern)]
        found = [place for place in named if fits(place.layer)]
        if not found:
            raise ConfigError(_no_match(pattern, named, every))
        for place in found:
            chosen.pop(place.title, None)
            if size != 0:
                chosen[place.title] = replace(place, size=size)
    if not chosen:
        raise ConfigError(f"targets {targets!r} with the patterns {patterns!r} choose no layer. Choose other targets, or name layers "
                          "by a pattern, such as attn2.")
    return [chosen[place.title] for place in every if place.title in chosen]


def read_patterns(text: str) -> dict[str, int | None]:
    """Pattern -> number after its `=`, or None. Raises ConfigError for anything but whole numbers from 0."""
    found: dict[str, int | None] = {}
    for entry in (entry.strip() for entry in text.split(",")):
        pattern, separator, number = (word.strip() for word in entry.partition("="))
        if not entry:
            continue
        if not pattern or (separator and not (number.isascii() and number.isdigit())):
            raise ConfigError(f"the pattern {entry!r} cannot be read; it must be a name or name=number, with a whole number from 0, "
                              "such as attn2=16")
        found.pop(pattern, None)
        found[pattern] = int(number) if separator else None
    return found


def ending(base: Base, parts: Iterable[str], ends: tuple[str, ...]) -> list[Place]:
    """The linear layers whose names end so."""
    return [place for place in layers(base, parts) if isinstance(place.layer, nn.Linear) and place.name.endswith(ends)]


def check_ranks(places: Iterable[Place], rank: int, name: str) -> None:
    """Raise ConfigError where a rank, or that of a layer's pattern, is larger than the layer allows."""
    places = list(places)
    small = [f"{place.title} (at most {place.most})" for place in places if (place.size or rank) > place.most]
    if small:
        raise ConfigError(f"{name} is {_told(places, rank)}, larger than {len(small)} of the {len(places)} chosen layers allow: "
                          f"{listing(small)}. Choose a smaller rank or other targets.")


def check_blocks(places: Iterable[Place], size: int, name: str, length: Callable[[Place], int], count: int = 1) -> None:
    """Raise ConfigError where `count` blocks of a size do not divide a layer's length, with the sizes that divide all."""
    places = list(places)
    wrong = [f"{place.title} ({length(place)})" for place in places if length(place) % (count * size)]
    if wrong:
        common = math.gcd(*(length(place) for place in places))
        fitting = [value for value in range(2, common // count + 1) if common % (count * value) == 0]
        blocks = f"{count} times that does" if count > 1 else "that does"
        raise ConfigError(f"{name} is {size}, and {blocks} not divide {len(wrong)} of the {len(places)} chosen layers: "
                          f"{listing(wrong)}. Sizes that fit all of them: {listing(fitting, 20) or 'none, choose other targets'}.")


def check_no_sizes(places: Iterable[Place], method: str) -> None:
    """Raise ConfigError where a pattern gives a size and the method has one for all layers."""
    if given := [place for place in places if place.size is not None]:
        raise ConfigError(f"a pattern gives {given[0].title} the size {given[0].size}, and {method} has one size for all layers. "
                          "Leave the number away, or write 0 to leave the layers out.")


def _told(places: Iterable[Place], size: int) -> str:
    given = sorted({place.size for place in places if place.size})
    return f"{size}" + (f" (and {listing(given)} by patterns)" if given else "")


def _in_group(place: Place, targets: str) -> bool:
    if isinstance(place.layer, nn.Conv2d):
        return targets == "all" and place.name not in THIN
    ends = {"attention": ATTENTION, "attention+ff": ATTENTION + FEED_FORWARD}.get(targets)
    return targets != "none" and (ends is None or place.name.endswith(tuple("." + end for end in ends)))


def _matches(place: Place, pattern: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(place.title, pattern)
    return place.title == pattern or (pattern in place.title and place.name not in THIN)


def _no_match(pattern: str, named: list[Place], every: list[Place]) -> str:
    if named:
        return (f"the pattern {pattern!r} names only layers that this method has no form for: "
                f"{listing(f'{place.title} ({type(place.layer).__name__})' for place in named)}. Name others, or use LoRA.")
    words = {word for place in every for word in place.title.split(".")}
    near = difflib.get_close_matches(pattern, sorted(words), n=5) or \
        difflib.get_close_matches(pattern, [place.title for place in every], n=5, cutoff=0.3)
    return (f"the pattern {pattern!r} matches no layer. Near names: {listing(near) or 'none'}. A pattern is a part of a layer's name, "
            f"such as attn2, mid_block or {every[0].title}.")
