"""Run with a ComfyUI's Python, in its folder: the privacy nodes on small sets, written to FOLDER/privacy.json."""

# ruff: noqa: E402, I001

import json
import os
import sys
from pathlib import Path

folder = Path(sys.argv[1])
sys.argv = [sys.argv[0], "--cpu", "--base-directory", str(folder)]
sys.path.insert(0, os.getcwd())
os.environ["MEDTUNE_CACHE"] = str(folder / "cache")

import comfy.options

comfy.options.enable_args_parsing()
import utils.install_util  # noqa: F401  (ComfyUI's own utils, before its nodes put another on the path)
import torch
from medtune.data.image import read_image
from medtune.data.image_set import ImageSet
from medtune.data.phantom import write_phantoms
from medtune.errors import MedTuneError
from medtune.evaluation.extractor import make_extractor
from medtune.nodes import host, privacy
from medtune.nodes.adapter import TrainedAdapter
from medtune.training.base import load_base
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.options import TrainOptions

host.register_base()
trained = write_phantoms(folder / "train", 8, seed=1, size=64).records
held_out = write_phantoms(folder / "held_out", 8, seed=2, size=64).records
generated = ImageSet(folder / "fake")
for index, record in enumerate(write_phantoms(folder / "more", 7, seed=3, size=64).records):
    generated.append(read_image(record.image, 64), "x", seed=index)
generated.append(read_image(trained[3].image, 64) * 0.95, "x", seed=7)
result = train(load_base("embedded"), METHODS["bitfit"](), trained, TrainOptions(steps=1, batch=1, size=64), runs=folder / "runs")
adapter = TrainedAdapter(result.adapter, result.adapter.name)


def run(node, **values):
    with torch.inference_mode():
        return node.PREPARE_CLASS_CLONE({}).execute(**values)


def refused(**values):
    try:
        run(privacy.Privacy, train=trained, held_out=held_out, fake=generated.records, extractor=make_extractor("thumbnail"), **values)
        return None
    except MedTuneError as error:
        return str(error)


checkpoint = next(name for name in host.checkpoints() if "embedded" in name)
losses, file = run(privacy.MembershipLosses, checkpoint=checkpoint, adapter=adapter, train=trained, held_out=held_out, draws=2).args
done = run(privacy.Privacy, train=trained, held_out=held_out, fake=generated.records, extractor=make_extractor("thumbnail"),
           membership=losses, repeats=100, figure="membership_auc")
found, text, number, copies = done.args
panel = done.ui["medtune"][0]
(folder / "privacy.json").write_text(json.dumps({
    "losses": [len(losses.of("train")), len(losses.of("held-out")), losses.about["options"]["size"], host.resolve(file).is_file()],
    "number": [number, found.find("membership_auc").value], "copies": copies,
    "figures": [one["name"] for one in json.loads(text)["figures"]],
    "listed": list(privacy.FIGURES), "columns": [len(row) == len(panel["table"]["columns"]) for row in panel["table"]["rows"]],
    "pictures": [[row["name"], len(row["images"]), row["images"][0]["title"]] for row in panel["pictures"]],
    "there": [(host.roots()["output"] / one["subfolder"] / one["filename"]).is_file()
              for row in panel["pictures"] for one in row["images"]],
    "notices": panel["notices"], "file": host.resolve(panel["file"]).is_file(), "unknown": refused(figure="frechet"),
    "bound": refused(false_alarms=2.0)}))
