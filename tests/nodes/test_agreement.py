"""In each ComfyUI here: the embedded base equals the library's, and stock loaders make of every file what training had."""

import pytest

pytestmark = pytest.mark.comfyui
LARGE = [pytest.param(shape, marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)], id=name) for name, shape in {
    "sd1": ("sd1", 4, "epsilon"), "sd2": ("sd2", 4, "v_prediction"), "inpainting": ("sd1", 9, "epsilon")}.items()]
"""Checkpoints of true sizes: an hour each on two cores, hence in `make test-slow` alone."""


@pytest.fixture(scope="module")
def errors(run_inside, random_file):
    return run_inside("agreement", random_file, "all")


@pytest.mark.parametrize("part", ["unet", "text", "decode", "encode"])
def test_the_embedded_base_is_the_same_in_both(errors, part):
    assert errors["base"][part] < 1e-4


def check_every_file(errors, record_property):
    """Fails where a file is not exact; the worst error of each method is printed at the end of the tests."""
    assert {name.split()[0] for name in errors["adapters"]} == set(errors["methods"])
    for name, found in errors["adapters"].items():
        assert found["effect"] > 1e-3, f"{name} changes too little to be tested"
        assert found["output"] < 1e-3, name
        assert found["change"] < 1e-2, name
    record_property("measured", {f"base, {part}": found for part, found in errors["base"].items()} | {
        method: max(found["output"] for name, found in errors["adapters"].items() if name.split()[0] == method)
        for method in errors["methods"]})


def test_stock_loaders_make_of_every_file_what_training_had(errors, record_property):
    check_every_file(errors, record_property)


@pytest.mark.parametrize("shape", LARGE)
def test_so_they_do_with_checkpoints_of_true_sizes(run_inside, random_checkpoint, record_property, shape):
    errors = run_inside("agreement", random_checkpoint(*shape), "one", timeout=4 * 3600)
    assert max(errors["base"].values()) < 1e-4
    check_every_file(errors, record_property)


def test_a_model_of_the_graph_gives_its_weights_with_its_adapters(errors):
    plain = {name: found["plain"] for name, found in errors["adapters"].items() if "plain" in found}
    assert set(plain) == set(errors["methods"])
    assert max(plain.values()) < 1e-4, plain
