"""Small graphs on each ComfyUI on this machine: training on models and on core's data, interruption, sampling, bad input."""

import json

import pytest
from medtune.workflows.client import WorkflowError

pytestmark = pytest.mark.comfyui

BASE = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "medtune-embedded.safetensors"}}
DATA = {"class_type": "MedTunePhantoms", "inputs": {"count": 4, "seed": 3, "size": 64, "images_per_patient": 1}}


def options(**values):
    return {"class_type": "MedTuneTrainOptions", "inputs": {"size": 64, "batch": 2, "steps": 2, **values}}


def graph(**nodes):
    """A workflow: each node as the API has it, or as (class, inputs)."""
    return {name: {"class_type": node[0], "inputs": node[1]} if isinstance(node, tuple) else node for name, node in nodes.items()}


def training(kind="MedTuneMethodBitfit", show="train", slot=3, **values):
    """Phantoms of 64 px and a few steps on the checkpoint's file."""
    return graph(base=BASE, data=DATA, method=(kind, {}), options=options(**values),
                 train=("MedTuneTrain", {"checkpoint": "medtune-embedded.safetensors", "records": ["data", 0], "method": ["method", 0],
                                         "options": ["options", 0], "name": "small"}),
                 show=("PreviewAny", {"source": [show, slot]}))


def run(client, workflow):
    said = []
    history = client.run(workflow, lambda kind, data: said.append(data["text"]) if kind == "progress_text" else None, timeout=300)
    return history["outputs"], said


def test_a_model_of_the_graph_trains_with_the_adapter_that_it_carries(comfyui):
    client, folder = comfyui
    workflow = training("MedTuneMethodFull", lr=1e-2)
    workflow |= graph(
        lora=("LoraLoader", {"model": ["base", 0], "clip": ["base", 1], "lora_name": ["train", 3], "strength_model": 1.0,
                             "strength_clip": 1.0}),
        again=("MedTuneTrainModel", {"model": ["lora", 0], "clip": ["lora", 1], "vae": ["base", 2], "records": ["data", 0],
                                     "method": ["method", 0], "options": ["options", 0], "name": "graph"}),
        plain=("MedTuneTrainModel", {"model": ["base", 0], "clip": ["base", 1], "vae": ["base", 2], "records": ["data", 0],
                                     "method": ["method", 0], "options": ["options", 0], "name": "plain"}),
        show_again=("PreviewAny", {"source": ["again", 3]}), show_plain=("PreviewAny", {"source": ["plain", 3]}))
    outputs, _ = run(client, workflow)
    names = {name: outputs[name]["text"][0] for name in ("show", "show_again", "show_plain")}
    assert len({name.rsplit("-", 1)[1] for name in names.values()}) == 3, "another base is another run"
    losses = {name: _losses(folder, file) for name, file in names.items()}
    assert losses["show_plain"] == pytest.approx(losses["show"], rel=2e-2), "the graph's weights are the file's (the text in half)"
    assert losses["show_again"] != pytest.approx(losses["show"], rel=1e-3), "the adapter that was applied is part of the base"


def _losses(folder, adapter):
    name = adapter.removesuffix(".safetensors").split("-", 1)[1]
    lines = (folder / "output" / "medtune" / "runs" / name / "losses.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_cores_encoded_data_set_trains(comfyui):
    client, _ = comfyui
    if "MakeTrainingDataset" not in client.get("/object_info"):
        pytest.skip("this ComfyUI has no Make Training Dataset")
    workflow = training()
    workflow |= graph(
        images=("MedTuneSetToImages", {"records": ["data", 0], "start": 0, "count": 4, "size": 64, "fit": "crop"}),
        encoded=("MakeTrainingDataset", {"images": ["images", 0], "vae": ["base", 2], "clip": ["base", 1],
                                         "texts": ["text", 0]}),
        text=("PrimitiveString", {"value": "Chest X-ray showing Nodule"}),
        train=("MedTuneTrainLatents", {"model": ["base", 0], "clip": ["base", 1], "vae": ["base", 2], "latents": ["encoded", 0],
                                       "positive": ["encoded", 1], "method": ["method", 0], "options": ["options", 0],
                                       "name": "encoded"}))
    outputs, said = run(client, workflow)
    assert outputs["show"]["text"][0].startswith("encoded-bitfit-")
    assert any("step 2 of 2" in text for text in said)


def test_an_interrupted_training_goes_on(comfyui):
    client, _ = comfyui
    workflow, said = training(steps=40, seed=11), []

    def stop(kind, data):
        if kind == "progress_text" and data["text"].startswith("step "):
            said.append(data["text"])
            client.interrupt()

    with pytest.raises(WorkflowError, match="interrupted"):
        client.run(workflow, stop, timeout=300)
    _, later = run(client, workflow)
    steps = [int(text.split()[1]) for text in later if text.startswith("step ")]
    assert steps[0] > 1, "it began anew"
    assert steps[-1] == 40


def test_an_image_set_is_sampled_found_again_and_given_to_comfyui(comfyui):
    client, folder = comfyui
    workflow = training() | graph(
        how=("MedTuneSampleOptions", {"steps": 2, "size": 64, "batch": 3}),
        draw=("MedTuneSample", {"checkpoint": "medtune-embedded.safetensors", "table": "labels,count\nNodule,2\nNo Finding,1",
                                "template": "chest-xray", "seed": 5, "adapter": ["train", 0], "options": ["how", 0], "name": "drawn"}),
        images=("MedTuneSetToImages", {"records": ["draw", 0], "start": 0, "count": 8, "size": 64, "fit": "crop"}),
        save=("SaveImage", {"images": ["images", 0], "filename_prefix": "drawn"}), where=("PreviewAny", {"source": ["draw", 1]}))
    outputs, _ = run(client, workflow)
    assert len(outputs["save"]["images"]) == 3
    drawn = folder / outputs["where"]["text"][0]
    before = {path.name: path.stat().st_mtime_ns for path in drawn.glob("*.png")}
    workflow["how"]["inputs"]["batch"] = 1
    outputs, _ = run(client, workflow)
    assert folder / outputs["where"]["text"][0] == drawn
    assert before == {path.name: path.stat().st_mtime_ns for path in drawn.glob("*.png")}
    loaded = graph(load=("MedTuneLoadImageSet", {"folder": outputs["where"]["text"][0]}),
                   show=("PreviewAny", {"source": ["load", 1]}))
    assert run(client, loaded)[0]["show"]["text"][0] == "3 images: Nodule 2, No Finding 1"


def test_a_folder_is_read_and_read_again_when_it_changes(comfyui):
    client, folder = comfyui
    from PIL import Image

    source = folder / "datasets" / "classes"
    for label in ("one", "two"):
        (source / label).mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64), 99).save(source / label / "a.png")
    workflow = graph(read=("MedTuneReadData", {"folder": "datasets/classes", "source": "auto"}),
                     show=("PreviewAny", {"source": ["read", 2]}))
    assert run(client, workflow)[0]["show"]["text"] == ["2"]
    Image.new("L", (64, 64), 7).save(source / "two" / "b.png")
    assert run(client, workflow)[0]["show"]["text"] == ["3"]


@pytest.mark.parametrize(("node", "values", "words"), [
    ("data", {"class_type": "MedTuneReadData", "inputs": {"folder": "../../etc", "source": "auto"}}, "not inside ComfyUI's folders"),
    ("data", {"class_type": "MedTuneReadData", "inputs": {"folder": "input/none", "source": "auto"}}, "there is no"),
    ("method", {"class_type": "MedTuneMethodLora", "inputs": {"rank": 500}}, "rank is 500"),
    ("options", options(batch=50), "batch is 50"),
    ("options", options(optimizer="Adamm"), "Adamm"),
    ("options", options(schedule="wave"), "wave"),
    ("data", {"class_type": "MedTunePhantoms", "inputs": {"count": 0, "seed": 0, "size": 64, "images_per_patient": 1}}, "count"),
])
def test_bad_input_is_refused_with_its_value(comfyui, node, values, words):
    client, _ = comfyui
    with pytest.raises(WorkflowError, match=words):
        client.run(training() | {node: values}, timeout=120)
