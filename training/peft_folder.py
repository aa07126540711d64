"""An adapter as peft saves one: a folder with adapter_config.json and adapter_model.safetensors, for PeftModel.from_pretrained.

All is LoRA there. A whole difference D of a weight is exact as one: D = B A with B or A the identity. Biases are saved as peft's
`bias="all"` does, norms and embeddings as its `modules_to_save`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..files import whole
from .deltas import Deltas, Rounding
from .peft_file import PREFIX

TEXT_FOLDER = "text_encoder"


def write_peft(folder: Path, deltas: Deltas, dtype: torch.dtype, header: Mapping[str, str]) -> tuple[Rounding, list[str]]:
    """Write the U-Net's changes to the folder, the text encoder's to `text_encoder` in it; returns what rounding took, and notices."""
    rounding, notices = Rounding(), []
    for part, into in (("unet", folder), ("text_encoder", folder / TEXT_FOLDER)):
        if any(of == part for of, _ in deltas.changes):
            _Part(deltas, part, dtype, rounding).write(into, header)
            if part == "text_encoder":
                notices.append(f"the text encoder's part lies in {into}: load it on the text encoder")
    return rounding, notices


class _Part:
    """One network's changes in peft's terms."""

    def __init__(self, deltas: Deltas, part: str, dtype: torch.dtype, rounding: Rounding):
        self.deltas, self.part, self.dtype, self.rounding = deltas, part, dtype, rounding
        self.network: nn.Module = getattr(deltas.base, part)
        self.original = deltas.base.original(part)
        self.ranks: dict[str, int] = {}
        self.alphas: dict[str, float] = {}
        self.whole: list[str] = []
        self.tensors: dict[str, Tensor] = {}
        self.biased = False

    def write(self, folder: Path, header: Mapping[str, str]) -> None:
        """Sort the changes into low-rank ones, biases and whole modules, and write the folder."""
        own = [name for part, name in self.deltas.changes if part == self.part]
        for name in own:
            module, _, end = name.rpartition(".")
            if end == "weight" and isinstance(self.network.get_submodule(module), (nn.Linear, nn.Conv2d)):
                self._add_low_rank(module, name)
        if not self.ranks:  # peft needs one layer to adapt: a zero one
            self._add_zero(changed={name.rpartition(".")[0] for name in own})
        for name in own:
            module = name.rpartition(".")[0]
            if module in self.ranks and name.endswith(".bias"):
                self._add_bias(module, name)
            elif module not in self.ranks:
                self._add_whole(module, name)
        self._save(folder, header)

    def _add_low_rank(self, module: str, name: str) -> None:
        wanted = self.deltas.amount((self.part, name))
        if self.deltas.is_low_rank((self.part, name)):
            tensors = self.deltas.changes[self.part, name].tensors
            up, down = tensors["lora_up.weight"], tensors["lora_down.weight"]
            alpha = tensors["alpha"].item() if "alpha" in tensors else float(down.shape[0])
        else:
            up, down = factors(wanted)
            alpha = float(down.shape[0])
        rank, shape = down.shape[0], wanted.shape
        up, down = up.to(self.dtype).reshape(shape[0], rank, *[1] * (len(shape) - 2)), down.to(self.dtype).reshape(rank, *shape[1:])
        self.tensors |= {f"{PREFIX}{module}.lora_A.weight": down.contiguous(), f"{PREFIX}{module}.lora_B.weight": up.contiguous()}
        self.ranks[module], self.alphas[module] = rank, alpha
        got = (up.float().flatten(1) @ down.float().flatten(1)).reshape(shape) * (alpha / rank)
        self.rounding.note(f"{self.part}.{name}", wanted, got)

    def _add_zero(self, changed: set[str]) -> None:
        module, layer = next((path, module) for path, module in self.network.named_modules()
                             if isinstance(module, nn.Linear) and path not in changed)
        rows, columns = layer.weight.shape
        self.tensors |= {f"{PREFIX}{module}.lora_A.weight": torch.zeros(1, columns, dtype=self.dtype),
                         f"{PREFIX}{module}.lora_B.weight": torch.zeros(rows, 1, dtype=self.dtype)}
        self.ranks[module], self.alphas[module] = 1, 1.0

    def _changed(self, name: str) -> Tensor:
        """The whole parameter as it is written."""
        original = self.original[name].float()
        wanted = self.deltas.amount((self.part, name))
        written = (original + wanted).to(self.dtype)
        self.rounding.note(f"{self.part}.{name}", wanted, written.float() - original)
        return written.contiguous()

    def _add_bias(self, module: str, name: str) -> None:
        self.biased = True
        self.tensors[f"{PREFIX}{module}.base_layer.bias"] = self._changed(name)

    def _add_whole(self, module: str, name: str) -> None:
        if module not in self.whole:
            self.whole.append(module)
            for end, _ in self.network.get_submodule(module).named_parameters(recurse=False):
                self.tensors.setdefault(f"{PREFIX}{module}.{end}", self.original[f"{module}.{end}"].to(self.dtype).contiguous())
        self.tensors[PREFIX + name] = self._changed(name)

    def _save(self, folder: Path, header: Mapping[str, str]) -> None:
        from peft import LoraConfig
        from safetensors.torch import save_file

        rank, alpha = next(iter(self.ranks.values())), next(iter(self.alphas.values()))
        settings: dict[str, Any] = {
            "r": rank, "lora_alpha": alpha, "target_modules": sorted(self.ranks), "bias": "all" if self.biased else "none",
            "rank_pattern": {module: one for module, one in self.ranks.items() if one != rank},
            "alpha_pattern": {module: one for module, one in self.alphas.items() if one != alpha},
            "modules_to_save": sorted(self.whole) or None}
        folder.mkdir(parents=True, exist_ok=True)
        LoraConfig(**settings, base_model_name_or_path=self.deltas.base.ref, inference_mode=True).save_pretrained(folder)
        with whole(folder / "adapter_model.safetensors") as beside:
            save_file(self.tensors, beside, metadata={"format": "pt", **header})


def factors(difference: Tensor) -> tuple[Tensor, Tensor]:
    """(up, down) of full rank whose product is a difference exactly; `down` has the shape of the weight from its second axis on."""
    rows, columns = difference.flatten(1).shape
    if rows <= columns:
        return torch.eye(rows), difference
    return difference.flatten(1), torch.eye(columns).reshape(columns, *difference.shape[1:])
