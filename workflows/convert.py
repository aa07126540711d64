"""A workflow as ComfyUI's interface saves it -> the API format, which the server takes and does not make itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import DataError

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
COMMENTS = ("Note", "MarkdownNote")
ON = 0
"""The mode of a node that runs; others are muted or bypassed."""


def to_api(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The API form of a saved workflow, by what the server says of its nodes at `/object_info`.

    Widget values are saved by position, so the order of a node's inputs decides. Raises DataError for a node that the server does not
    have, or that is not simply on.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    api = {}
    for node in workflow["nodes"]:
        if node["type"] in COMMENTS:
            continue
        if node["type"] not in object_info:
            raise DataError(f"node {node['id']} is a {node['type']!r}, which this ComfyUI does not have; install what it belongs to")
        if node.get("mode", ON) != ON:
            raise DataError(f"node {node['id']} ({node['type']}) is muted or bypassed; remove it, or switch it on")
        api[str(node["id"])] = {"class_type": node["type"], "inputs": _inputs(node, object_info[node["type"]], links)}
    return api


def _inputs(node: dict[str, Any], info: dict[str, Any], links: dict[int, list]) -> dict[str, Any]:
    linked = {entry["name"]: links[entry["link"]] for entry in node.get("inputs", []) if entry.get("link") is not None}
    values = iter(node.get("widgets_values") or [])
    inputs = {}
    for name, kind, facts in _declared(info):
        if _is_widget(kind, facts):
            value = next(values, None)
            if facts.get("control_after_generate") or name in ("seed", "noise_seed"):
                next(values, None)  # what the interface does with the value after a run
            if value is not None and name not in linked:
                inputs[name] = value
        if name in linked:
            inputs[name] = linked[name]
    return inputs


def _declared(info: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, type, facts) of each input, in the order of the widgets."""
    for group in ("required", "optional"):
        specs = info["input"].get(group) or {}
        for name in (info.get("input_order") or {}).get(group) or specs:
            spec = specs[name]
            yield name, spec[0], spec[1] if len(spec) > 1 else {}


def _is_widget(kind: Any, facts: dict[str, Any]) -> bool:
    return (isinstance(kind, list) or kind in WIDGETS) and not facts.get("forceInput")
