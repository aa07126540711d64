"""Nodes for training: one per method, the options, training on a checkpoint's file, and on models that come through a graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..training.method import METHODS, Method
from ..training.objective import ObjectiveOptions
from ..training.options import TrainOptions
from . import host
from .adapter import TrainedAdapter
from .host import ADAPTER, LORA_MODEL, LOSS_MAP, METHOD, OBJECTIVE, RECORDS, TRAIN_OPTIONS, io
from .widgets import inputs, read

CATEGORY = "MedTune/train"


def method_node(name: str, method: type[Method]) -> type:
    """The node that chooses a method, with the method's own options as its widgets."""
    facts = method.facts
    about = [f"Trains {facts.trains}.", f"Trained values: {facts.cost}.", f"Its file holds {facts.file}.",
             f"Default learning rate: {facts.lr:g}.", f"{facts.paper} ({facts.year})."]

    class MethodNode(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id=node_id(name), display_name=f"Method: {facts.title}", category="MedTune/methods",
                             description=" ".join(about), inputs=inputs(method.Config),
                             outputs=[METHOD.Output("method", display_name="method")])

        @classmethod
        def execute(cls, **values):
            return io.NodeOutput(method(read(method.Config, values)))

    MethodNode.__name__ = MethodNode.__qualname__ = node_id(name)
    return MethodNode


def node_id(name: str) -> str:
    """`lora` -> `MedTuneMethodLora`."""
    return "MedTuneMethod" + "".join(part.capitalize() for part in name.replace("_", "-").split("-"))


class Options(io.ComfyNode):
    """How to train."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="MedTuneTrainOptions", display_name="Training Options", category=CATEGORY,
                         description="Length, learning rate, precision, previews and checkpoints of a training.",
                         inputs=inputs(TrainOptions), outputs=[TRAIN_OPTIONS.Output("options", display_name="options")])

    @classmethod
    def execute(cls, **values):
        return io.NodeOutput(read(TrainOptions, values))


class Objective(io.ComfyNode):
    """What training minimises."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="MedTuneObjective", display_name="Training Objective", category=CATEGORY,
                         description="What training minimises: weighting by noise level, masked loss, prior preservation, inpainting.",
                         inputs=inputs(ObjectiveOptions), outputs=[OBJECTIVE.Output("objective", display_name="objective")])

    @classmethod
    def execute(cls, **values):
        return io.NodeOutput(read(ObjectiveOptions, values))


def _data_inputs() -> list[Any]:
    return [
        RECORDS.Input("records", tooltip="The images to train on."),
        METHOD.Input("method", tooltip="How to fine-tune."),
        TRAIN_OPTIONS.Input("options", optional=True, tooltip="Without it: the defaults."),
        io.String.Input("name", default="medtune", optional=True, tooltip="Begins the adapter's file name."),
        OBJECTIVE.Input("objective", optional=True, tooltip="Without it: the plain denoising error."),
    ]


def outputs() -> list[Any]:
    """What every training node gives."""
    return [
        ADAPTER.Output("adapter", display_name="adapter"),
        LORA_MODEL.Output("lora", display_name="lora", tooltip="For core's Load LoRA Model and Save LoRA."),
        LOSS_MAP.Output("loss", display_name="loss", tooltip="For core's Plot Loss Graph."),
        host.FileNameOutput("lora_name", display_name="lora_name",
                            tooltip="Its name in the stock LoRA loaders: link it to their lora_name."),
        host.FileNameOutput("vae_name", display_name="vae_name",
                            tooltip="Of a trained autoencoder: link it to the vae_name of the stock Load VAE."),
        io.String.Output("embedding", display_name="embedding", tooltip="Of a trained word: what prompts say for it."),
    ]


class Train(io.ComfyNode):
    """A checkpoint's file, records and a method -> an adapter."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneTrain", display_name="Train", category=CATEGORY,
            description="Fine-tunes the model in a checkpoint file and writes the adapter to output/loras, where the stock LoRA "
                        "loaders list it. The same request finds its finished adapter; an interrupted one goes on.",
            inputs=[io.Combo.Input("checkpoint", options=host.checkpoints(), tooltip="The base model's file."), *_data_inputs()],
            outputs=outputs(), hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, checkpoint, records, method, options=None, name="medtune", objective=None):
        return train_base(cls, lambda device: host.file_base(checkpoint, device), lambda base: records,
                          method=method, options=options, name=name, objective=objective)


class TrainModel(io.ComfyNode):
    """A MODEL, CLIP and VAE of the graph, records and a method -> an adapter."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MedTuneTrainModel", display_name="Train Model of Graph", category=CATEGORY,
            description="Fine-tunes the model that comes through the graph, with the LoRAs that were applied to it on its way.",
            inputs=[io.Model.Input("model"), io.Clip.Input("clip"), io.Vae.Input("vae"), *_data_inputs()],
            outputs=outputs(), hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, model, clip, vae, records, method, options=None, name="medtune", objective=None):
        return train_base(cls, lambda device: host.graph_base(model, clip, vae, device), lambda base: records,
                          method=method, options=options, name=name, objective=objective)


def train_base(node: type, load: Callable[[Any], Any], data: Callable[[Any], list], *, method: Method,
               options: TrainOptions | None, name: str, objective: ObjectiveOptions | None = None) -> io.NodeOutput:
    """Train the base that `load(device)` gives on the records that `data(base)` gives."""
    from ..training.loop import train

    options, progress = options or TrainOptions(), host.Progress(node)
    host.check_name(name)
    progress.say("loading the base")
    with host.computing() as device:
        base = load(device)
        result = train(base, type(method)(method.config), data(base), options, _on_step(progress), objective=objective,
                       runs=host.product_folder("runs"), device=device)
        adapter = TrainedAdapter.publish(result, name)
        tensors = adapter.read().tensors
    for notice in result.notices:
        logging.warning("MedTune: %s", notice)
    done = "found finished" if result.reused else "trained"
    progress(1, 1, "\n".join([f"{done}: {adapter.name}", *result.notices]))
    vae, word = (adapter.products.get(kind) for kind in ("vae", "embedding"))
    return io.NodeOutput(adapter, tensors, {"loss": list(result.losses)}, adapter.name, vae and vae.name,
                         word and f"embedding:{word.stem}")


def _on_step(progress: host.Progress) -> Callable[[Any], None]:
    """Shows each step in the node; ComfyUI's interruption goes through it into the loop, which saves and hands it on."""

    def on_step(info: Any) -> None:
        if info.phase == "train":
            minutes, seconds = divmod(round(info.remaining_s or 0), 60)
            text = (f"step {info.step} of {info.total}, loss {info.smoothed:.4f}, {info.steps_per_second:.2f} steps/s, "
                    f"{minutes}:{seconds:02d} left")
        else:
            text = f"{info.phase}: {info.step} of {info.total}"
        progress(info.step, info.total, text, info.sample)

    return on_step


def nodes() -> list[type]:
    """The nodes of this file: one per method, then the rest."""
    return [*(method_node(name, method) for name, method in METHODS.items()), Options, Objective, Train, TrainModel]
