"""Run with a ComfyUI's Python, in its folder: facts of the nodes as ComfyUI sees them, written to FOLDER/inside.json."""

# ruff: noqa: E402

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path

folder = Path(sys.argv[1])
sys.argv = [sys.argv[0], "--cpu", "--base-directory", str(folder)]
sys.path.insert(0, os.getcwd())

import comfy.options

comfy.options.enable_args_parsing()
import utils.install_util  # noqa: F401  (ComfyUI's own utils, before its nodes put another on the path)

before = set(sys.modules)
import medtune

plain = sorted({name.split(".")[0] for name in set(sys.modules) - before} - {"medtune"})
from server import PromptServer  # noqa: F401  (what a running ComfyUI has imported)

before = set(sys.modules)
extension = asyncio.run(medtune.comfy_entrypoint())
heavy = [name for name in ("diffusers", "peft", "timm", "open_clip", "monai", "tensorboard", "pydicom", "accelerate")
         if name in set(sys.modules) - before]

import folder_paths
import torch
from medtune import nodes
from medtune.config import fields
from medtune.errors import MedTuneError
from medtune.nodes import data, host, preset, train, widgets
from medtune.training.method import METHODS
from medtune.training.options import TrainOptions


def ids(found):
    return sorted(node.GET_SCHEMA().node_id for node in found)


def with_broken_node():
    """The nodes that remain when one node's schema raises."""
    kept = train.Options.define_schema
    train.Options.define_schema = classmethod(lambda cls: 1 / 0)
    try:
        return ids(nodes.load())
    finally:
        train.Options.define_schema = kept


def refused(action):
    """What the error says, or None when there was none."""
    try:
        action()
        return None
    except MedTuneError as error:
        return str(error)


def widget_facts():
    made = {one.id: {"type": str(one.get_io_type()), "optional": one.optional, **one.as_dict()}
            for one in widgets.inputs(TrainOptions)}
    return {"names": list(made), "declared": [name for name, *_ in fields(TrainOptions)], "steps": made["steps"], "lr": made["lr"],
            "schedule": made["schedule"], "seed": {key: str(value) for key, value in made["seed"].items()}, "flips": made["flips"]}


def paths():
    roots = host.roots()
    (roots["input"] / "here").mkdir(parents=True, exist_ok=True)
    outside = folder / "outside"
    outside.mkdir(exist_ok=True)
    link = roots["input"] / "link"
    if not link.exists():
        link.symlink_to(outside)
    return {"input": str(host.resolve("input/here")) == str(roots["input"] / "here"),
            "datasets": str(host.resolve("datasets/x")) == str(roots["datasets"] / "x"),
            "back": host.shown(host.resolve("output/medtune/sets")),
            **{name: refused(lambda path=path: host.resolve(path)) for name, path in
               {"climbs": "input/../../etc/passwd", "absolute": "/etc/passwd", "linked": "input/link", "empty": " ",
                "unknown": "inputs/here"}.items()},
            "name": refused(lambda: host.product_folder("sets", "../x")), "fine": refused(lambda: host.product_folder("sets", "x-1"))}


def tensors():
    images = torch.rand(2, 5, 7, 3)
    with torch.inference_mode():
        inside = host.to_library(torch.rand(1, 4, 4, 4))
    return {"there": list(host.to_library(images).shape), "back": bool(torch.equal(host.to_comfy(host.to_library(images)), images)),
            "grey": list(host.to_library(torch.rand(1, 4, 4, 1)).shape), "trainable": not inside.is_inference()}


def presets():
    """What the preset node gives for bases of which only the header matters, and what it refuses."""
    from safetensors.torch import save_file

    checkpoints = Path(folder_paths.get_folder_paths("checkpoints")[0])
    checkpoints.mkdir(parents=True, exist_ok=True)
    for name, context in (("one", 768), ("two", 1024)):
        save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
                   "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(1, context)},
                  checkpoints / f"{name}.safetensors")
    node = preset.Preset.PREPARE_CLASS_CLONE({})

    def run(checkpoint, **values):
        return node.execute(preset="pixels-under-pressure/lora", checkpoint=checkpoint, **values).args

    method, options, sampling, about, objective = run("one.safetensors", seed=3)
    return {"method": [method.name, method.config.rank], "options": [options.lr, options.steps, options.seed, sampling.guidance],
            "objective": objective.reconstruction_weight,
            "about": about, "steps": run("one.safetensors", steps=7)[1].steps, "wrong": refused(lambda: run("two.safetensors")),
            "anyway": run("two.safetensors", any_base=True)[3], "gone": refused(lambda: run("three.safetensors")),
            "listed": preset.Preset.GET_SCHEMA().inputs[0].as_dict()["options"]}


def sockets():
    name = host.FileNameOutput("lora_name").io_type
    from comfy_execution.validation import validate_node_input

    return {kind: validate_node_input(name, wanted) for kind, wanted in
            {"list": ["a.safetensors", "b.safetensors"], "combo": "COMBO", "string": "STRING", "any": "*", "int": "INT"}.items()}


def weights():
    """Where the weights of an extractor may lie."""
    from medtune.evaluation.networks.weights import weights_folder

    known = weights_folder()
    (known / "net").mkdir(parents=True, exist_ok=True)
    return {"folder": str(known) == str(Path(folder_paths.models_dir) / "medtune"), "below": host.weights("net") == str(known / "net"),
            "models": host.weights("models/medtune/net") == str(known / "net"), "climbs": refused(lambda: host.weights("../../x")),
            "absolute": refused(lambda: host.weights("/etc/passwd"))}


def read_options():
    return {"fine": refused(lambda: widgets.read(TrainOptions, {"steps": 3})),
            "choice": refused(lambda: widgets.read(TrainOptions, {"schedule": "cosin"})),
            "bound": refused(lambda: widgets.read(TrainOptions, {"lr": -1.0}))}


def dropped():
    """The nodes that do not work here."""
    every = [node for name in nodes.MODULES for node in importlib.import_module(f"medtune.nodes.{name}").nodes()]
    return sorted({node.__name__ for node in every} - {node.__name__ for node in nodes.load()})


found = {
    "dropped": dropped(), "plain": plain, "heavy": heavy, "nodes": ids(asyncio.run(extension.get_node_list())), "without": with_broken_node(),
    "missing_module": ids(nodes.load(("data", "no_such_module"))), "data": ids(data.nodes()), "methods": list(METHODS),
    "method_ids": [train.node_id(name) for name in METHODS], "widgets": widget_facts(), "paths": paths(), "tensors": tensors(),
    "presets": presets(), "sockets": sockets(), "read": read_options(),
    "weights": weights(),
    "inputs": {node.GET_SCHEMA().node_id: [one.id for one in node.GET_SCHEMA().inputs] for node in nodes.load()},
}
(folder / "inside.json").write_text(json.dumps(found, indent=1, default=str))
