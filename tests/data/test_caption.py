"""Captions from labels."""

from __future__ import annotations

import pytest
from medtune.data.caption import CAPTIONS, caption
from medtune.errors import ConfigError


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


@pytest.mark.parametrize("template", ["chest-xry", "", "{label}", "{labels[0]}", "{labels", "{labels.__class__}", "plain"])
def test_templates_that_are_not(template):
    with pytest.raises(ConfigError) as caught:
        caption(["a"], template)
    assert all(name in str(caught.value) for name in CAPTIONS)
