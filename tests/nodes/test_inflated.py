"""In each ComfyUI here: an inflated base's checkpoint loads as an inpainting model, which reads masks as training showed them."""

import pytest

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def found(run_inside, base_file):
    return run_inside("inflated", base_file)


def test_the_stock_loader_takes_it_for_an_inpainting_model(found):
    assert found["keys"] == ["mask", "masked_image"]


def test_the_stock_conditioning_gives_what_training_showed(found):
    assert found["masked"] == 16 and found["channels"] < 1e-4


def test_its_u_net_is_the_trained_one(found):
    assert found["unet"] < 1e-3 < found["effect"]
    assert found["text"] < 1e-4
