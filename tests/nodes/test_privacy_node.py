"""In each ComfyUI here: the privacy nodes measure, list and show the pairs, and refuse what is wrong."""

import pytest

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def found(run_inside):
    return run_inside("privacy")


def test_losses_are_measured_as_in_the_training(found):
    assert found["losses"] == [8, 8, 64, True]
    assert found["number"][0] == found["number"][1] is not None


def test_every_figure_can_be_chosen(found):
    assert found["figures"] == found["listed"] and all(found["columns"])


def test_the_copy_leads_the_pictures_of_the_pairs(found):
    assert found["copies"] == 1 and found["file"] and all(found["there"])
    assert [count for _, count, _ in found["pictures"]] == [12, 12]
    assert found["pictures"][0][2].startswith("generated: correlation 0.9") and "a copy" in found["pictures"][0][2]
    assert any("a correlation of" in notice for notice in found["notices"])


def test_wrong_values_are_refused(found):
    assert "nearest_ratio" in found["unknown"] and "false_alarms is 2" in found["bound"]
