"""Saved workflows -> API format, on workflows of two nodes."""

import pytest
from medtune.errors import DataError
from medtune.workflows.convert import to_api

INFO = {
    "Load": {"input": {"required": {"name": [["a", "b"], {}]}}, "output": ["MODEL"]},
    "Draw": {"input": {"required": {"model": ["MODEL", {}], "seed": ["INT", {"default": 0}], "text": ["STRING", {}]},
                       "optional": {"late": ["FLOAT", {}], "wired": ["STRING", {"forceInput": True}],
                                    "way": ["COMBO", {"options": ["x"]}]}},
             "input_order": {"required": ["text", "model", "seed"], "optional": ["late", "wired", "way"]}},
}


def saved(**draw):
    node = {"id": 2, "type": "Draw", "widgets_values": ["hello", 7, "fixed", 0.5, "x"],
            "inputs": [{"name": "model", "link": 1}, {"name": "wired", "link": None}], **draw}
    return {"nodes": [{"id": 1, "type": "Load", "widgets_values": ["b"]}, node, {"id": 3, "type": "MarkdownNote"}],
            "links": [[1, 1, 0, 2, 0, "MODEL"]]}


def test_values_are_taken_by_position_and_the_seeds_control_is_skipped():
    assert to_api(saved(), INFO) == {
        "1": {"class_type": "Load", "inputs": {"name": "b"}},
        "2": {"class_type": "Draw", "inputs": {"text": "hello", "model": ["1", 0], "seed": 7, "late": 0.5, "way": "x"}}}


def test_a_link_into_a_widget_replaces_its_value():
    linked = saved(inputs=[{"name": "model", "link": 1}, {"name": "seed", "link": 1}])
    assert to_api(linked, INFO)["2"]["inputs"] == {"text": "hello", "model": ["1", 0], "seed": ["1", 0], "late": 0.5, "way": "x"}


def test_inputs_newer_than_the_file_are_left_to_their_defaults():
    assert to_api(saved(widgets_values=["hello", 7, "fixed"]), INFO)["2"]["inputs"] == {"text": "hello", "model": ["1", 0], "seed": 7}


@pytest.mark.parametrize(("draw", "words"), [({"type": "Paint"}, "'Paint'"), ({"mode": 4}, "bypassed")])
def test_a_node_that_cannot_run_is_named(draw, words):
    with pytest.raises(DataError, match=words):
        to_api(saved(**draw), INFO)
