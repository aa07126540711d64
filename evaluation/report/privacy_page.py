"""What the page shows of an audit of privacy: its figures, and the nearest and most alike pairs as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arm import Arm
from .number import figure, half_width
from .picture_grid import data_url

PAIRS = 8  # pairs of a kind that are shown


def privacy_sections(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """One section for each arm that was looked into."""
    return [_section(arm.name, arm.privacy) for arm in arms if arm.privacy]


def _section(name: str, privacy: Mapping[str, Any]) -> dict[str, Any]:
    copies = sum(bool(row["copy"]) for row in privacy["images"])
    return {"name": name, "figures": [_figure(one) for one in privacy["figures"]], "n": privacy["n"], "copies": copies,
            "threshold": f"{privacy['threshold']['value']:.3f}", "extractor": privacy["extractor"], "notices": privacy["notices"],
            "pairs": [(title, [_pair(pair) for pair in privacy[key][:PAIRS]]) for key, title in
                      (("alike", "Most alike in pixels"), ("nearest", "Nearest in features")) if privacy[key]]}


def _figure(one: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"title": one["title"], "says": one["says"], "reason": one["reason"], "value": one["value"],
             "expected": figure(one["expected"]) if one["expected"] is not None else None}
    if one["value"] is None:
        return shown
    half = half_width(one["low"], one["high"])
    interval = f"{figure(one['low'], half)} to {figure(one['high'], half)}" if half is not None else None
    return {**shown, "text": figure(one["value"], half), "interval": interval}


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    said = [f"{pair['measure']} {figure(pair['value'])}"]
    if pair.get("held_out_distance") is not None:
        said.append(f"to the nearest held-out image {figure(pair['held_out_distance'])}")
    if any(pair["shift"]):
        said.append(f"shifted by {pair['shift'][0]} down, {pair['shift'][1]} right")
    said += ["mirrored"] if pair["mirrored"] else []
    verdict = "the same file" if pair["same_file"] else "copy" if pair["copy"] else None
    return {"fake": _picture(pair["fake"], "generated"), "train": _picture(pair["train"], "training"), "said": ", ".join(said),
            "verdict": verdict}


def _picture(path: str, kind: str) -> dict[str, str | None]:
    """A picture, or its name alone where the file is no longer there."""
    path = Path(path)
    return {"url": data_url(path) if path.is_file() else None, "alt": f"{kind} image {path.name}", "name": path.name}
