"""The nodes as each ComfyUI on this machine sees them."""

import pytest
from medtune.workflows.server import PACK

pytestmark = pytest.mark.comfyui

HEAVY = {"torch", "numpy", "PIL", "transformers", "diffusers"}


@pytest.fixture(scope="module")
def facts(run_inside):
    return run_inside("inside")


def test_importing_the_pack_is_cheap(facts):
    assert not HEAVY & set(facts["plain"])
    assert facts["heavy"] == []


def test_every_node_works(facts):
    assert facts["dropped"] == [], facts["log"]


def test_every_method_has_a_node(facts):
    assert facts["methods"]
    assert set(facts["method_ids"]) <= set(facts["nodes"])


def test_one_broken_node_drops_itself_alone_and_is_logged(facts):
    assert set(facts["nodes"]) - set(facts["without"]) == {"MedTuneTrainOptions"}
    assert "ZeroDivisionError" in facts["log"] and "MedTune: node Options is left out" in facts["log"]


def test_one_broken_file_drops_its_nodes_alone(facts):
    assert facts["missing_module"] == facts["data"]
    assert "no_such_module" in facts["log"]


def test_every_node_has_a_help_page_that_names_its_inputs(facts):
    for node, inputs in facts["inputs"].items():
        page = PACK / "web" / "docs" / f"{node}.md"
        assert page.is_file(), f"{page} is missing; write it with tests/nodes/write_pages.py"
        text = page.read_text()
        assert not [name for name in inputs if f"`{name}`" not in text], f"{page} is out of date; run tests/nodes/write_pages.py"


def test_widgets_come_from_the_config(facts):
    widgets = facts["widgets"]
    assert widgets["names"] == widgets["declared"]
    assert widgets["steps"]["type"] == "INT" and widgets["steps"]["min"] == 1 and widgets["steps"]["default"] == 500
    assert widgets["lr"]["step"] == 1e-6 and widgets["lr"]["round"] is False
    assert widgets["schedule"]["options"] == ["constant", "cosine", "linear"]
    assert widgets["flips"]["type"] == "BOOLEAN" and widgets["flips"]["tooltip"]
    assert widgets["seed"]["max"] == str(2**53 - 1) and widgets["steps"]["optional"] is True


def test_values_are_checked_when_the_node_runs(facts):
    read = facts["read"]
    assert read["fine"] is None
    assert "did you mean 'cosine'" in read["choice"] and "linear" in read["choice"]
    assert "at least 0" in read["bound"]


def test_a_preset_gives_the_studys_settings_for_its_kind_of_base(facts):
    presets = facts["presets"]
    assert "pixels-under-pressure/lora" in presets["listed"] and "chest-distillation/frozen" in presets["listed"]
    assert presets["method"] == ["lora", 8] and presets["options"] == [1e-4, 500, 3, 7.5] and presets["steps"] == 7
    assert presets["objective"] == 1.0
    assert "TehraniNasab" in presets["about"] and "chest-xray-eight" in presets["about"]
    assert "is for Stable Diffusion 1.x, and " in presets["wrong"] and "two.safetensors is Stable Diffusion 2.x" in presets["wrong"]
    assert "no settings of the study's" in presets["anyway"] and "no checkpoint 'three.safetensors'" in presets["gone"]


@pytest.mark.parametrize("case", ["climbs", "absolute", "linked", "unknown"])
def test_paths_stay_in_the_folders_of_comfyui(facts, case):
    assert facts["paths"][case] and "input/" in facts["paths"][case]


def test_paths_inside_are_found(facts):
    paths = facts["paths"]
    assert paths["input"] and paths["datasets"] and paths["back"] == "output/medtune/sets"
    assert "empty" in paths["empty"] and "cannot be a file's" in paths["name"] and paths["fine"] is None


def test_weights_lie_in_the_models_folder(facts):
    found = facts["weights"]
    assert found["folder"] and found["below"] and found["models"]
    assert "models/" in found["climbs"] and "models/" in found["absolute"]


def test_images_change_their_layout_and_come_out_of_inference_mode(facts):
    assert facts["tensors"] == {"there": [2, 3, 5, 7], "back": True, "grey": [1, 3, 4, 4], "trainable": True}


def test_an_adapters_name_can_be_linked_into_a_stock_loader(facts):
    assert facts["sockets"] == {"list": True, "combo": True, "string": True, "any": True, "int": False}
