"""The shipped workflow of all methods, made small, on each ComfyUI on this machine."""

import json
from io import BytesIO

import pytest
from medtune.training.method import METHODS
from medtune.workflows.server import PACK
from PIL import Image

pytestmark = pytest.mark.comfyui

WORKFLOWS = PACK / "workflows"
QUICK = {"MedTunePhantoms": {"count": 4, "size": 64}, "MedTuneTrainOptions": {"steps": 2, "size": 64, "warmup": 0},
         "EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 2}, "MedTuneImageGrid": {"side": 64}}
"""Kind of node -> values that make the workflow quick."""


def shipped():
    return json.loads((WORKFLOWS / "api" / "all_methods.json").read_text())


@pytest.fixture(scope="module")
def result(comfyui):
    """The finished workflow's history, and what its nodes said."""
    client, _ = comfyui
    workflow, said = shipped(), []
    for kind, values in QUICK.items():
        for entry in of_kind(workflow, kind):
            assert set(values) <= set(entry["inputs"])
            entry["inputs"].update(values)
    history = client.run(workflow, lambda kind, data: said.append(data["text"]) if kind == "progress_text" else None, timeout=550)
    return history, said


def of_kind(workflow, kind):
    return [entry for entry in workflow.values() if entry["class_type"] == kind]


def test_every_method_is_in_it():
    kinds = {entry["class_type"].lower() for entry in shipped().values()}
    assert {f"medtunemethod{name.replace('-', '')}" for name in METHODS} <= kinds


def test_every_method_trains_and_its_file_is_loaded(comfyui, result):
    client, folder = comfyui
    history, said = result
    assert history["status"]["status_str"] == "success"
    trained = [line.split()[1] for text in said for line in text.splitlines() if line.startswith("trained: ")]
    assert len(trained) == len(METHODS)
    files = sorted(path.name for path in (folder / "output" / "loras").glob("all_methods-*.safetensors"))
    loaded = of_kind(shipped(), "LoraLoader")
    assert len(files) == len(loaded) == len(METHODS) - 1, "a learnt word is an embedding, and stands in the prompt"
    listed = client.get("/object_info/LoraLoader")["LoraLoader"]["input"]["required"]["lora_name"][0]
    assert set(files) <= set(listed)


def test_the_pictures_stand_side_by_side(comfyui, result):
    client, _ = comfyui
    history, _ = result
    (picture,) = [image for output in history["outputs"].values() for image in output.get("images", [])
                  if image["filename"].startswith("all_methods")]
    grid = Image.open(BytesIO(client.picture(picture)))
    assert grid.width >= 5 * 64 and grid.height >= 4 * 64
    assert grid.convert("L").getextrema() != (0, 0)
