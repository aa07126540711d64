"""The nodes for classifiers, run as each ComfyUI on this machine runs nodes."""

import pytest

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def found(run_inside):
    return run_inside("classifying")


def test_a_classifier_is_trained_kept_and_tested(found):
    assert found["folder"].startswith("output/medtune/classifiers/real+synthetic-all-100pc-seed1-")
    assert found["summary"].endswith("synthetic images") and "(single)" in found["summary"]
    figures = {(row["label"], row["figure"]): row["value"] for row in found["figures"]["figures"]}
    assert found["number"] == figures["mean over labels", "auroc"] and found["figures"]["n_test"] == 8
    assert found["panel"]["columns"][0] == "label" and len(found["panel"]["rows"]) == len(figures)


def test_a_study_gives_its_result_and_the_gain(found):
    assert found["study"]["contenders"] == ["real-only", "synthetic-only"]
    (pair,) = [pair for pair in found["study"]["pairs"] if (pair["label"], pair["figure"]) == ("mean over labels", "auroc")]
    assert found["gain"] == pair["value"] and found["nan"] is True
    assert [row[:2] for row in found["rows"]] == [["real-only", "50 %"], ["synthetic-only", "0 %"]]


@pytest.mark.parametrize(("case", "words"), [
    ("seen", "images: 000000.png"), ("label", "there is no auroc of 'Brigth'"), ("leak", "12 patients with 12 images"),
    ("names", "give each a name of its own"), ("steps", "steps is 0")])
def test_bad_input_is_refused(found, case, words):
    assert words in found[case]
