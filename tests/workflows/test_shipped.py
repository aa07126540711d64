"""What all shipped workflows owe a user: a file for the interface and one for the API that say the same, and a picture."""

import json
import urllib.request

import pytest
from medtune.workflows.convert import to_api
from medtune.workflows.server import NAME, PACK

WORKFLOWS = PACK / "workflows"
SHIPPED = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


def test_each_has_its_two_files_and_its_picture():
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == SHIPPED
    assert sorted(path.stem for path in WORKFLOWS.glob("*.jpg")) == SHIPPED


@pytest.mark.comfyui
@pytest.mark.parametrize("name", SHIPPED)
def test_the_interfaces_file_is_the_same_workflow(comfyui, name):
    client, _ = comfyui
    saved, posted = (json.loads((folder / f"{name}.json").read_text()) for folder in (WORKFLOWS, WORKFLOWS / "api"))
    without_titles = {node: {key: value for key, value in entry.items() if key != "_meta"} for node, entry in posted.items()}
    assert to_api(saved, client.get("/object_info")) == without_titles


@pytest.mark.comfyui
@pytest.mark.parametrize("name", SHIPPED)
def test_the_server_offers_it_as_a_template_with_its_picture(comfyui, name):
    client, _ = comfyui
    assert name in client.get("/api/workflow_templates")[NAME]
    with urllib.request.urlopen(f"{client.address}/api/workflow_templates/{NAME}/{name}.jpg") as answer:
        assert answer.read(3) == b"\xff\xd8\xff"


@pytest.mark.comfyui
def test_the_server_offers_help_and_extension(comfyui):
    client, _ = comfyui
    for path in ("js/report.js", "docs/MedTuneTrain.md"):
        with urllib.request.urlopen(f"{client.address}/extensions/{NAME}/{path}") as answer:
            assert answer.status == 200
