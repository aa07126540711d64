"""Run with a ComfyUI's Python, in its folder: the nodes for classifiers on small images; writes FOLDER/classifying.json."""

# ruff: noqa: E402, I001

import json
import math
import os
import sys
from pathlib import Path

folder = Path(sys.argv[1])
sys.argv = [sys.argv[0], "--cpu", "--base-directory", str(folder)]
sys.path.insert(0, os.getcwd())

import comfy.options

comfy.options.enable_args_parsing()
import utils.install_util  # noqa: F401  (ComfyUI's own utils, before its nodes put another on the path)
import torch
from medtune.data.image_set import ImageSet
from medtune.nodes import classify

QUICK = {"network": "test_vit", "size": 32, "steps": 2, "batch": 4, "mode": "auto", "labels": ""}


def draw(name, count, seed, patients=True):
    generator, image_set = torch.Generator().manual_seed(seed), ImageSet(folder / "output" / name)
    for index in range(count):
        kind = ("Bright", "Dark")[index % 2]
        image = 0.4 + 0.2 * (kind == "Bright") + 0.15 * torch.randn((1, 32, 32), generator=generator)
        image_set.append(image.clamp(0, 1).expand(3, -1, -1), kind, (kind,), patient=f"{name}-{index}" if patients else None)
    return image_set.records


def run(kind, **values):
    with torch.inference_mode():
        return kind.PREPARE_CLASS_CLONE({}).execute(**values)


def refused(act):
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


real, drawn, test = draw("real", 12, 0), draw("drawn", 6, 1, patients=False), draw("test", 8, 2)
trained = run(classify.ClassifierTrain, real=real, synthetic=drawn, protocol="real+synthetic", ratio="all", seed=1, **QUICK)
tested = run(classify.ClassifierTest, classifier=trained.args[0], test=test)
study = {**QUICK, "protocols": "real-only, synthetic-only", "fractions": "50", "seeds": 1, "repeats": 100, "unchecked_generator": True,
         "pictures": False}
compared = run(classify.DownstreamStudy, real=real, test=test, synthetic=drawn, gain_of="synthetic-only", gain_at=50.0, **study)
found = {
    "ids": [node.GET_SCHEMA().node_id for node in classify.nodes()], "folder": trained.args[1], "summary": trained.args[2],
    "figures": json.loads(tested.args[0]), "number": tested.args[1], "panel": tested.ui["medtune"][0]["table"],
    "study": json.loads(compared.args[1]), "gain": compared.args[2], "rows": compared.ui["medtune"][0]["table"]["rows"],
    "nan": math.isnan(run(classify.DownstreamStudy, real=real, test=test, synthetic=drawn, gain_at=7.0, **study).args[2]),
    "seen": refused(lambda: run(classify.ClassifierTest, classifier=trained.args[0], test=real)),
    "label": refused(lambda: run(classify.ClassifierTest, classifier=trained.args[0], test=test, label="Brigth")),
    "leak": refused(lambda: run(classify.DownstreamStudy, real=real, test=real, synthetic=drawn, **study)),
    "names": refused(lambda: run(classify.DownstreamStudy, real=real, test=test, synthetic=drawn, synthetic_2=drawn, name="a",
                                 name_2="a", **study)),
    "steps": refused(lambda: run(classify.ClassifierTrain, real=real, **{**QUICK, "steps": 0})),
}
(folder / "classifying.json").write_text(json.dumps(found, indent=1, default=str))
