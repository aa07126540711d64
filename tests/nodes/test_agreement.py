"""In each ComfyUI here: the embedded base equals the library's, and stock loaders make of every file what training had."""

import pytest

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def errors(run_inside, base_file):
    return run_inside("agreement", base_file)


@pytest.mark.parametrize("part", ["unet", "text", "decode", "encode"])
def test_the_embedded_base_is_the_same_in_both(errors, part):
    assert errors["base"][part] < 1e-4


def test_stock_loaders_make_of_every_file_what_training_had(errors):
    assert {name.split()[0] for name in errors["adapters"]} == set(errors["methods"])
    for name, found in errors["adapters"].items():
        assert found["effect"] > 1e-3, f"{name} changes too little to be tested"
        assert found["output"] < 1e-3, name
        assert found["change"] < 1e-2, name


def test_a_model_of_the_graph_gives_its_weights_with_its_adapters(errors):
    for name, found in errors["adapters"].items():
        assert found["plain"] < 1e-4, name
