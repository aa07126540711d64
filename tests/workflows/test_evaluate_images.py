"""The shipped workflow that scores two sets of images, made small, on each ComfyUI on this machine."""

import json

import pytest
from medtune.evaluation.metric import METRICS
from medtune.workflows.server import PACK

pytestmark = pytest.mark.comfyui

WORKFLOWS = PACK / "workflows"
QUICK = {"MedTunePhantoms": {"count": 20, "size": 128}, "MedTuneSetToImages": {"count": 20, "size": 128},
         "MedTuneExtractorInDomain": {"steps": 12}}
"""Kind of node -> values that make the workflow quick."""
GOOD, BLURRED, REPORT = "10", "11", "12"


def shipped():
    return json.loads((WORKFLOWS / "api" / "evaluate_images.json").read_text())


@pytest.fixture(scope="module")
def history(comfyui):
    client, _ = comfyui
    workflow = shipped()
    for entry in workflow.values():
        entry["inputs"].update(QUICK.get(entry["class_type"], {}))
    return client.run(workflow, timeout=550)


def test_a_blurred_copy_scores_worse(history):
    assert history["status"]["status_str"] == "success"
    good, blurred = (json.loads(history["outputs"][node]["scores"][0]) for node in (GOOD, BLURRED))
    wanted = shipped()["9"]["inputs"]["metrics"].split(", ")
    assert [score["metric"] for score in good["scores"]] == wanted and set(wanted) <= set(METRICS)
    values = {score["metric"]: (score["value"], other["value"]) for score, other in zip(good["scores"], blurred["scores"])}
    assert values["spectrum"][1] > 2 * values["spectrum"][0]
    assert all(value is not None for pair in values.values() for value in pair), values


def test_the_report_compares_them(comfyui, history):
    _, folder = comfyui
    panel = history["outputs"][REPORT]["medtune"][0]
    assert {"other phantoms", "the same, blurred"} <= set(panel["table"]["columns"])
    assert (folder / panel["file"]).is_file()
