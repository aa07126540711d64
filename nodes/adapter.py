"""An adapter as it travels between nodes, and the nodes that load one and apply it to a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError
from . import host
from .host import ADAPTER, LORA_MODEL, io

CATEGORY = "MedTune/train"

PLACES = {"vae": "take it by the stock Load VAE", "model": "take it by the stock Load Checkpoint",
          "embedding": "prompts take it by embedding: and its name"}


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter's file: its path, its name in the stock LoRA loaders, and the losses of its training where they are known.

    `products` are all files of the training by kind, the principal one, which is `path`, first: mostly the adapter alone.
    """

    path: Path
    name: str
    run: Path | None = None
    losses: list[float] = field(default_factory=list)
    products: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def publish(cls, result: Any, prefix: str) -> TrainedAdapter:
        """Copy a finished training's files to where stock loaders list them, under a name that no other training has."""
        files = {kind: host.publish(kind, path, f"{prefix}-{result.run.name}") for kind, path in result.products.items()}
        path = next(iter(files.values()))
        return cls(path, path.name, result.run, list(result.losses), files)

    def read(self) -> Any:
        """The tensors and the header."""
        from ..training.adapter import read_adapter

        return read_adapter(self.path)

    def apply(self, base: Any, strength: float = 1.0) -> None:
        """Change a base of the library by every file of the training."""
        from ..training.adapter import apply_adapter, read_adapter

        for path in self.products.values() or [self.path]:
            apply_adapter(base, read_adapter(path), strength)

    def made_by(self, strength: float = 1.0) -> dict[str, Any]:
        """What an image set made with it writes down."""
        losses = {"losses": str(self.run / "losses.jsonl")} if self.run else {}
        return {**self.read().info(), "file": self.name, "strength": strength, **losses}

    def notice(self) -> str | None:
        """What every report made with it must say, where it was trained on the embedded base."""
        from ..training.base import NOTICE

        return NOTICE if "embedded" in self.read().header.get("modelspec.architecture", "") else None


class LoadAdapter(io.ComfyNode):
    """An adapter's file -> an adapter."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneLoadAdapter", display_name="Load Adapter", category=CATEGORY,
            description="Loads an adapter that was trained before, with what made it.",
            inputs=[io.Combo.Input("lora_name", options=host.adapters(), tooltip="A file below models/loras or output/loras.")],
            outputs=[ADAPTER.Output("adapter", display_name="adapter"), LORA_MODEL.Output("lora", display_name="lora")])

    @classmethod
    def validate_inputs(cls, lora_name=None):
        return True  # the list is as old as the page; execute checks

    @classmethod
    def execute(cls, lora_name):
        adapter = TrainedAdapter(host.adapter_path(lora_name), lora_name)
        return io.NodeOutput(adapter, adapter.read().tensors)


class ApplyAdapter(io.ComfyNode):
    """MODEL and CLIP with an adapter, by the stock path."""

    @classmethod
    def define_schema(cls):
        def strength(name):
            return io.Float.Input(name, default=1.0, min=-20.0, max=20.0, step=0.05, optional=True)

        return io.Schema(
            node_id="MedTuneApplyAdapter", display_name="Apply Adapter", category=CATEGORY,
            description="Patches a model with an adapter as the stock LoRA loader does, and says when the adapter does not fit.",
            inputs=[io.Model.Input("model"), ADAPTER.Input("adapter"), io.Clip.Input("clip", optional=True),
                    strength("strength_model"), strength("strength_clip")],
            outputs=[io.Model.Output("model_out", display_name="model"), io.Clip.Output("clip_out", display_name="clip")])

    @classmethod
    def execute(cls, model, adapter, clip=None, strength_model=1.0, strength_clip=1.0):
        read = adapter.read()
        if read.kind != "adapter":
            raise ModelError(f"{adapter.name} is no LoRA: {PLACES[read.kind]}")
        return io.NodeOutput(*host.apply_adapter(model, clip, read.tensors, strength_model, strength_clip))


def nodes() -> list[type]:
    """The nodes of this file."""
    return [LoadAdapter, ApplyAdapter]
