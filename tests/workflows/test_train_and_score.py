"""The shipped workflow, posted to each ComfyUI on this machine and followed to its scores."""

import json

import pytest
from medtune.workflows.server import PACK

pytestmark = pytest.mark.comfyui

WORKFLOWS = PACK / "workflows"
QUICK = {"1": {"count": 20, "size": 256}, "2": {"train": 0.5, "test": 0.5},
         "4": {"steps": 8, "batch": 2, "sample_every": 0, "size": 256}, "10": {"width": 256, "height": 256},
         "13": {"steps": 2}, "18": {"steps": 2}, "21": {"steps": 12}, "26": {"count": 20, "size": 256}}
"""Node -> values that make the shipped workflow quick: fewer and smaller images, fewer steps; all else as it ships."""
TRAIN, LORA_LOADER, TUNED, UNTUNED, REPORT = "5", "8", "22", "23", "24"


def shipped():
    return json.loads((WORKFLOWS / "api" / "train_and_score.json").read_text())


def quick():
    workflow = shipped()
    for node, values in QUICK.items():
        assert set(values) <= set(workflow[node]["inputs"])
        workflow[node]["inputs"].update(values)
    return workflow


@pytest.fixture(scope="module")
def result(comfyui):
    """The finished workflow's history, with every event of the websocket."""
    client, _ = comfyui
    events = []
    history = client.run(quick(), lambda kind, data: events.append((kind, data)), timeout=1200)
    return {"history": history, "events": events, "scores": {node: json.loads(output["scores"][0])
                                                             for node, output in history["outputs"].items() if "scores" in output}}


def texts(result, node):
    return [data["text"] for kind, data in result["events"] if kind == "progress_text" and data["node"] == node]


def test_it_runs_to_its_end(result):
    assert result["history"]["status"]["status_str"] == "success"
    assert {TUNED, UNTUNED, REPORT} <= set(result["history"]["outputs"])
    assert any(kind == "execution_success" for kind, _ in result["events"])


def test_training_shows_loss_speed_and_time_left(result):
    steps = [text for text in texts(result, TRAIN) if text.startswith("step ")]
    assert steps and all(part in steps[-1] for part in ("of 8", "loss ", "steps/s", "left"))
    assert any(kind == "progress" and data["node"] == TRAIN for kind, data in result["events"])


def test_the_stock_loader_lists_the_adapter(comfyui, result):
    client, folder = comfyui
    name = texts(result, TRAIN)[-1].split("trained: ")[1].splitlines()[0]
    listed = client.get("/object_info/LoraLoader")["LoraLoader"]["input"]["required"]["lora_name"][0]
    assert name in listed
    assert (folder / "output" / "loras" / name).is_file()
    assert shipped()[LORA_LOADER]["class_type"] == "LoraLoader" and shipped()[LORA_LOADER]["inputs"]["lora_name"][0] == TRAIN


@pytest.mark.parametrize("node", [TUNED, UNTUNED])
def test_the_scores_are_in_the_history(result, node):
    scores = {score["metric"]: score for score in result["scores"][node]["scores"]}
    assert {"frechet", "kid", "vendi"} <= set(scores)
    for score in scores.values():
        assert isinstance(score["value"], float) and score["n_real"] >= 8 and score["n_fake"] == 8


def test_the_adapter_changes_what_the_stock_sampler_draws(comfyui, result):
    _, folder = comfyui
    sets = {path.name.split("-")[0]: path for path in (folder / "output" / "medtune" / "sets").iterdir()}
    tuned, untuned = ([json.loads(line) for line in (sets[name] / "metadata.jsonl").read_text().splitlines()]
                      for name in ("tuned", "untuned"))
    assert [(row["text"], row["seed"]) for row in tuned] == [(row["text"], row["seed"]) for row in untuned]
    assert [row["seed"] for row in tuned] == list(range(1000, 1008))
    assert all((sets["tuned"] / row["file_name"]).read_bytes() != (sets["untuned"] / row["file_name"]).read_bytes() for row in tuned)
    made_by = json.loads((sets["tuned"] / "medtune.json").read_text())
    assert made_by["adapter"]["method"] == "lora" and made_by["notices"]


def test_the_report_is_shown_in_the_node(comfyui, result):
    client, folder = comfyui
    panel = result["history"]["outputs"][REPORT]["medtune"][0]
    assert panel["table"]["columns"][-2:] == ["untuned", "LoRA"] and len(panel["table"]["rows"]) >= 3
    assert [row["name"] for row in panel["pictures"]] == ["real", "untuned", "LoRA"]
    assert any("embedded base" in notice for notice in panel["notices"])
    assert client.picture(panel["pictures"][1]["images"][0])[:3] == b"\xff\xd8\xff"
    assert (folder / panel["file"]).is_file() and "embedded base" in (folder / panel["file"]).read_text()


def test_the_same_training_is_found_finished(comfyui, result):
    client, folder = comfyui
    workflow = {node: entry for node, entry in quick().items() if node in [*"123456", "25"]}
    def adapters():
        return {path: path.stat().st_mtime_ns for path in (folder / "output" / "medtune" / "runs").glob("*/adapter.safetensors")}

    before, seen = adapters(), []
    workflow["6"]["inputs"]["filename_prefix"] = "again"  # or all of it would be cached
    workflow[TRAIN]["inputs"]["name"] = "another_name"
    client.run(workflow, lambda kind, data: seen.append(data.get("text", "")), timeout=300)
    assert any(text.startswith("found finished: another_name-lora-") for text in seen)
    assert not any(text.startswith("step ") for text in seen)
    assert adapters() == before
