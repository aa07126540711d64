"""What each kind of adapter makes of a weight: the formulas of ComfyUI's stock loader (`comfy/weight_adapter` of 0.3.64 and 0.33).

A layer's tensors are told apart by the ends of their keys, below without the dot. A weight is (out, in[, h, w]), r a rank.

| kind | tensors |
|---|---|
| LoRA | lora_up.weight (out, r[, 1, 1]), lora_down.weight (r, in[, h, w]), lora_mid.weight (r, r, h, w) |
| LoHa | hada_w1_a (out, r), hada_w1_b (r, in), hada_w2_a, hada_w2_b; with hada_t1 (r, r, h, w) and hada_t2, w_a is (r, out) |
| LoKr | lokr_w1 or lokr_w1_a, lokr_w1_b; lokr_w2 or lokr_w2_a, lokr_w2_b and lokr_t2 |
| OFT, BOFT | oft_blocks (blocks, size, size) or (factors, blocks, size, size), rescale (out, 1[, 1, 1]) |
| difference | diff, or w_norm, of the weight's shape |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

SYNONYMS = {"lora_B.weight": "lora_up.weight", "lora_A.weight": "lora_down.weight", "lora.up.weight": "lora_up.weight",
            "lora.down.weight": "lora_down.weight", "lora_B": "lora_up.weight", "lora_A": "lora_down.weight",
            "lora_B.default.weight": "lora_up.weight", "lora_A.default.weight": "lora_down.weight",
            "lora_linear_layer.up.weight": "lora_up.weight", "lora_linear_layer.down.weight": "lora_down.weight"}
"""What others call the tensors of a LoRA."""


@dataclass(frozen=True)
class Kind:
    """A kind of adapter: which tensors it needs and may have, and what they do to a weight.

    `misfit(tensors, shape)` says why they cannot fit a weight, or None. `difference(tensors, shape)` is what they add to one; a kind
    that has none has `turned(weight, tensors, strength)`, the weight that they make of one.
    """

    name: str
    needs: frozenset[str]
    may: frozenset[str]
    misfit: Callable[[Tensors, torch.Size], str | None]
    difference: Callable[[Tensors, torch.Size], Tensor] | None = None
    turned: Callable[[Tensor, Tensors, float], Tensor] | None = None

    def change(self, weight: Tensor, tensors: Tensors, strength: float) -> Tensor:
        """The new weight of a float32 one and its tensors, float32 and on its device."""
        if self.difference is None:
            return self.turned(weight, tensors, strength)
        return _decomposed(weight, self.difference(tensors, weight.shape), tensors, strength)


def kind_of(tensors: Tensors) -> Kind | str:
    """The kind of a layer's tensors, or why there is none that has exactly these."""
    ends = set(tensors)
    marked = [kind for kind in KINDS if ends & (kind.needs | kind.may) - _SHARED and _fits_blocks(kind, tensors)]
    if len(marked) > 1:
        return f"a mix of {' and '.join(kind.name for kind in marked)}, of which stock loaders would use one"
    if not marked:
        return f"only {', '.join(sorted(ends))}"
    kind = marked[0]
    if lacking := _lacking(kind, ends):
        return f"no {lacking}"
    extra = ends - kind.needs - kind.may
    return f"{', '.join(sorted(extra))}, which stock loaders do not use with {kind.name}" if extra else kind


_SHARED = frozenset({"alpha", "dora_scale"})


def _fits_blocks(kind: Kind, tensors: Tensors) -> bool:
    """OFT and BOFT have the same key, and are told apart by the number of dimensions."""
    if "oft_blocks" not in tensors or kind.name not in ("OFT", "BOFT"):
        return True
    return (tensors["oft_blocks"].ndim == 4) == (kind.name == "BOFT")


def _lacking(kind: Kind, ends: set[str]) -> str:
    if kind.name != "LoKr":
        return ", ".join(sorted(kind.needs - ends) + [end for end, other in (("hada_t2", "hada_t1"), ("hada_t1", "hada_t2"))
                                                       if other in ends and end not in ends])
    return ", ".join(f"lokr_{w}" for w in ("w1", "w2") if f"lokr_{w}" not in ends and not {f"lokr_{w}_a", f"lokr_{w}_b"} <= ends)


def norms(weight: Tensor, rows: bool) -> Tensor:
    """What stock loaders divide `dora_scale` by: the norms of a weight's rows (out, 1[, 1, 1]) or columns (1, in[, 1, 1])."""
    matrix = weight.flatten(1) if rows else weight.transpose(0, 1).flatten(1)
    shape = (-1, 1) if rows else (1, -1)
    return matrix.norm(dim=1).reshape(*shape, *[1] * (weight.ndim - 2)) + torch.finfo(weight.dtype).eps


def _decomposed(weight: Tensor, delta: Tensor, tensors: Tensors, strength: float) -> Tensor:
    """The weight with a difference added and, where there is a `dora_scale`, its rows or columns brought to that norm.

    Rows are divided by the norm that they had before, columns by the one that they have after: DoRA's paper has the latter.
    """
    if "dora_scale" not in tensors:
        return weight + strength * delta
    scale, changed = tensors["dora_scale"], weight + delta
    rows = scale.shape[0] == weight.shape[0]
    changed = changed * (scale / norms(weight if rows else changed, rows))
    return changed if strength == 1 else weight + strength * (changed - weight)


def _scale(tensors: Tensors, rank: int | None) -> float:
    return float(tensors["alpha"]) / rank if rank and "alpha" in tensors else 1.0


def _dora_misfit(tensors: Tensors, shape: torch.Size) -> str | None:
    if "dora_scale" not in tensors:
        return None
    found, ones = tuple(tensors["dora_scale"].shape), (1,) * (len(shape) - 2)
    fits = found in ((shape[0], 1, *ones), (1, shape[1], *ones))
    return None if fits else f"a dora_scale of {found} for a weight of {tuple(shape)}"


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a.flatten(1) @ b.flatten(1)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(out, in, h, w) of a core (r, r, h, w), (r, out) and (r, in)."""
    return torch.einsum("ijhw,io,jn->onhw", core, a, b)


def _lora(tensors: Tensors, shape: torch.Size) -> Tensor:
    up, down = tensors["lora_up.weight"], tensors["lora_down.weight"]
    if "lora_mid.weight" in tensors:
        delta = _tucker(tensors["lora_mid.weight"], up.flatten(1).T, down.flatten(1))
    else:
        delta = _product(up, down)
    return delta.reshape(shape) * _scale(tensors, down.shape[0])


def _lora_misfit(tensors: Tensors, shape: torch.Size) -> str | None:
    up, down, mid = tensors["lora_up.weight"], tensors["lora_down.weight"], tensors.get("lora_mid.weight")
    if mid is not None:
        fits = len(shape) == 4 and mid.shape == (down.shape[0], down.shape[0], *shape[2:]) and down[0].numel() == shape[1]
    else:
        fits = down[0].numel() == shape[1:].numel()
    if not (fits and up.shape[0] == shape[0] and up[0].numel() == down.shape[0]):
        middle = "" if mid is None else f"{tuple(mid.shape)} times "
        return f"{tuple(up.shape)} times {middle}{tuple(down.shape)} for a weight of {tuple(shape)}"
    return _dora_misfit(tensors, shape)


def _loha(tensors: Tensors, shape: torch.Size) -> Tensor:
    w1_a, w1_b, w2_a, w2_b = (tensors[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    if "hada_t1" in tensors:
        delta = _tucker(tensors["hada_t1"], w1_a, w1_b) * _tucker(tensors["hada_t2"], w2_a, w2_b)
    else:
        delta = (w1_a @ w1_b) * (w2_a @ w2_b)
    return delta.reshape(shape) * _scale(tensors, w1_b.shape[0])


def _lokr(tensors: Tensors, shape: torch.Size) -> Tensor:
    w1, w2, rank = tensors.get("lokr_w1"), tensors.get("lokr_w2"), None
    if w1 is None:
        w1, rank = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"], tensors["lokr_w1_b"].shape[0]
    if w2 is None:
        a, b, rank = tensors["lokr_w2_a"], tensors["lokr_w2_b"], tensors["lokr_w2_b"].shape[0]
        w2 = _tucker(tensors["lokr_t2"], a, b) if "lokr_t2" in tensors else a @ b
    return torch.kron(w1[..., None, None] if w2.ndim == 4 else w1, w2.contiguous()).reshape(shape) * _scale(tensors, rank)


def _tried(difference: Callable[[Tensors, torch.Size], Tensor]) -> Callable[[Tensors, torch.Size], str | None]:
    """Whether a product of factors has a weight's shape is found by making it, without values."""

    def misfit(tensors: Tensors, shape: torch.Size) -> str | None:
        try:
            difference({end: tensor if end == "alpha" else tensor.to("meta") for end, tensor in tensors.items()}, shape)
        except (RuntimeError, IndexError, ValueError):
            told = ", ".join(f"{end} {tuple(tensor.shape)}" for end, tensor in sorted(tensors.items()) if tensor.ndim)
            return f"{told} for a weight of {tuple(shape)}"
        return _dora_misfit(tensors, shape)

    return misfit


def _rotations(tensors: Tensors) -> Tensor:
    """Orthogonal blocks of skew-symmetric ones; an alpha above 0 limits the norm of all of them together."""
    skew = tensors["oft_blocks"] - tensors["oft_blocks"].transpose(-1, -2)
    limit = float(tensors["alpha"]) if "alpha" in tensors else 0.0
    if limit > 0 and (norm := skew.norm() + 1e-8) > limit:
        skew = skew * limit / norm
    one = torch.eye(skew.shape[-1], device=skew.device)
    return (one + skew) @ (one - skew).inverse()


def _oft(weight: Tensor, tensors: Tensors, strength: float) -> Tensor:
    rotations = _rotations(tensors)  # (blocks, size, size)
    one = torch.eye(rotations.shape[-1], device=weight.device)
    rows = weight.reshape(*rotations.shape[:2], -1)
    delta = ((rotations - one) * strength).transpose(1, 2) @ rows
    return weight + strength * delta.reshape(weight.shape)  # the strength acts twice, as it does in the stock loader


def _boft(weight: Tensor, tensors: Tensors, strength: float) -> Tensor:
    rotations, turned = _rotations(tensors), weight.flatten(1)  # (factors, blocks, size, size)
    size = rotations.shape[-1]
    one = torch.eye(size, device=weight.device)
    for i, blocks in enumerate(rotations * strength + (1 - strength) * one):
        apart = 2**i * (size // 2)
        mixed = turned.unflatten(0, (-1, 2, apart)).transpose(1, 2).reshape(len(blocks), size, -1)
        turned = (blocks @ mixed).reshape(-1, apart, 2, turned.shape[1]).transpose(1, 2).reshape(turned.shape)
    turned = turned.reshape(weight.shape) * tensors.get("rescale", 1.0)
    return weight + strength * (turned - weight)


def _blocks_misfit(tensors: Tensors, shape: torch.Size) -> str | None:
    blocks = tensors["oft_blocks"]
    told = f"oft_blocks {tuple(blocks.shape)} for a weight of {tuple(shape)}"
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2] or blocks.shape[-3] * blocks.shape[-1] != shape[0]:
        return told
    if blocks.ndim == 4:
        if "alpha" not in tensors:
            return "a BOFT without alpha, which stock loaders pass over: add one of 0"
        if blocks.shape[-1] % 2 or shape[0] % (blocks.shape[-1] * 2 ** (blocks.shape[0] - 1)):
            return told
    rescale, ones = tensors.get("rescale"), (1,) * (len(shape) - 1)
    return None if rescale is None or rescale.shape == (shape[0], *ones) else f"a rescale of {tuple(rescale.shape)} for {tuple(shape)}"


def _whole(tensors: Tensors, shape: torch.Size) -> Tensor:
    return next(tensors[end] for end in ("diff", "w_norm") if end in tensors)


def _whole_misfit(tensors: Tensors, shape: torch.Size) -> str | None:
    found = _whole(tensors, shape).shape
    return None if found == shape else f"{tuple(found)} for a weight of {tuple(shape)}"


def _kind(name: str, needs: str, may: str, misfit: Callable, **does: Callable) -> Kind:
    return Kind(name, frozenset(needs.split()), frozenset(may.split()), misfit, **does)


KINDS = (
    _kind("LoRA", "lora_up.weight lora_down.weight", "lora_mid.weight alpha dora_scale", _lora_misfit, difference=_lora),
    _kind("LoHa", "hada_w1_a hada_w1_b hada_w2_a hada_w2_b", "hada_t1 hada_t2 alpha dora_scale", _tried(_loha),
          difference=_loha),
    _kind("LoKr", "", "lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a lokr_w2_b lokr_t2 alpha dora_scale", _tried(_lokr),
          difference=_lokr),
    _kind("OFT", "oft_blocks", "rescale alpha", _blocks_misfit, turned=_oft),
    _kind("BOFT", "oft_blocks", "rescale alpha", _blocks_misfit, turned=_boft),
    _kind("a full difference", "diff", "", _whole_misfit, difference=_whole),
    _kind("a norm's difference", "w_norm", "", _whole_misfit, difference=_whole),
)
ENDS = frozenset(end for kind in KINDS for end in kind.needs | kind.may)
"""Every end of a key of a weight."""
