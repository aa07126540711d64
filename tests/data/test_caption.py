"""Captions from labels."""

from __future__ import annotations

import pytest
from medtune.data.caption import CAPTIONS, caption
from medtune.data.classes import COMBINATIONS, LESIONS
from medtune.errors import ConfigError, DataError


@pytest.mark.parametrize("labels, expected", [
    (("Pleural Effusion", "Cardiomegaly"), "Chest X-ray showing Cardiomegaly, Pleural Effusion"),  # in the paper's order
    (("No Finding",), "Chest X-ray showing No Finding"),
    (("Support Devices", "Fracture"), "Chest X-ray showing Support Devices"),
    ((), "Normal chest X-ray with no significant findings"),
])
def test_the_rule_of_the_paper(labels, expected):
    assert caption(labels) == caption(labels, "chest-xray-eight") == expected


def test_a_finding_beyond_the_eight_is_not_called_normal():
    assert caption(["Nodule"]) == "Chest X-ray showing Nodule"
    assert caption(["Nodule"], "chest-xray-eight") == "Normal chest X-ray with no significant findings"
    assert caption(["Nodule", "Edema"], "chest-xray-all") == "Chest X-ray showing Edema, Nodule"


def test_templates_of_ones_own():
    assert caption(["nevus"], "a skin photograph of {labels}") == "a skin photograph of nevus"
    assert caption(["a", "b"], "labels") == caption(["a", "b"], "{labels}") == "a, b"


@pytest.mark.parametrize("labels, expected", [
    (("left eye", "no diabetic retinopathy"), "Retinal image of left eye showing no diabetic retinopathy"),
    (("severe non-proliferative diabetic retinopathy",), "Retinal image showing severe non-proliferative diabetic retinopathy"),
    (("4", "right eye"), "Retinal image of right eye showing proliferative diabetic retinopathy"),  # folders 0 to 4
])
def test_retinopathy(labels, expected):
    assert caption(labels, "retinopathy") == expected


def test_lesions_by_name_and_by_code():
    for code, name in LESIONS.items():
        assert caption([name], "isic") == caption([code], "isic") == f"a dermoscopic image with {name} ({code})"


@pytest.mark.parametrize("labels, template, words", [
    (("left eye",), "retinopathy", "do not name one class; it must be one of: 0 (no diabetic retinopathy), 1 (mild"),
    (("left eye", "right eye", "0"), "retinopathy", "both eyes"),
    (("5",), "retinopathy", "4 (proliferative"),
    (("0", "1"), "retinopathy", "the labels 0, 1 do not name one class"),
    (("mild non-proliferative diabetic retinopathy", "drusen"), "retinopathy", "drusen do not name one class"),
    ((), "isic", "the labels (none) do not name one class; it must be one of: MEL (melanoma), NV"),
    (("melanoma", "NV"), "isic", "melanoma, NV do not"),
])
def test_labels_outside_of_a_closed_list(labels, template, words):
    with pytest.raises(DataError) as caught:
        caption(labels, template)
    assert words in str(caught.value)


def test_every_combination_of_a_balanced_table_has_a_caption_of_its_own():
    for template, combinations in COMBINATIONS.items():
        assert len({caption(labels, template) for labels in combinations}) == len(combinations)
    assert (len(COMBINATIONS["retinopathy"]), len(COMBINATIONS["isic"])) == (10, 8)


@pytest.mark.parametrize("template", ["chest-xry", "", "{label}", "{labels[0]}", "{labels", "{labels.__class__}", "plain"])
def test_templates_that_are_not(template):
    with pytest.raises(ConfigError) as caught:
        caption(["a"], template)
    assert all(name in str(caught.value) for name in CAPTIONS)
