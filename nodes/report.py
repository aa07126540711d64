"""The node that makes a report of several scored sets, and shows its table and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.image_set import ImageSet
from ..data.record import Record
from ..errors import ConfigError
from ..files import hash_json
from . import host
from .evaluate import CATEGORY, ScoredSet
from .host import RECORDS, SCORES, io

MOST = 6
"""Sets of generated images that one report compares."""
SHOWN = 8
PRIVACY, DOWNSTREAM = io.Custom("MEDTUNE_PRIVACY"), io.Custom("MEDTUNE_DOWNSTREAM")


class Report(io.ComfyNode):
    """Scored sets -> a report on disk, and in the node."""

    @classmethod
    def define_schema(cls):
        more = [SCORES.Input(f"scores_{number}", optional=True) for number in range(2, MOST + 1)]
        audits = [PRIVACY.Input(f"privacy_{number}", optional=True, tooltip=f"An audit of the images of scores_{number}.")
                  for number in range(1, MOST + 1)]
        return io.Schema(
            node_id="MedTuneReport", display_name="Report", category=CATEGORY, is_output_node=True,
            description="Compares sets of generated images: a table and pictures in the node; JSON, CSV, LaTeX and a page in "
                        "HTML in output/medtune/reports.",
            inputs=[RECORDS.Input("real", tooltip="The real images that the scores are against."), SCORES.Input("scores_1"), *more,
                    io.String.Input("name", default="report", optional=True, tooltip="Begins the folder's name."),
                    DOWNSTREAM.Input("downstream", optional=True, tooltip="A study of classifiers, to show its curves."), *audits],
            outputs=[io.String.Output("file", display_name="file"), io.String.Output("json", display_name="json")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, *, real, name="report", downstream=None, **linked):
        from ..evaluation.report.report import write_report

        found = {number: one for number in range(1, MOST + 1) if (one := linked.get(f"scores_{number}")) is not None}
        audits = {number: audit.to_json() for number in range(1, MOST + 1) if (audit := linked.get(f"privacy_{number}")) is not None}
        _check(found, audits)
        sets = list(found.values())
        text = json.dumps([{"name": one.name, **one.scores.to_json()} for one in sets], indent=1, allow_nan=False)
        content = [text, [str(one.image) for one in real], audits, downstream.to_json() if downstream is not None else None]
        folder = host.product_folder("reports", f"{name}-{hash_json(content)[:12]}")
        page = write_report(folder, [_arm(one, audits.get(number)) for number, one in found.items()], real, downstream=downstream)
        host.Progress(cls).say(host.shown(page))
        return io.NodeOutput(host.shown(page), text, ui={"medtune": [_panel(folder, page, sets, real)], "scores": [text]})


def _check(found: Mapping[int, ScoredSet], audits: Mapping[int, Any]) -> None:
    """ConfigError where an audit of privacy is of no set of the report."""
    alone = [number for number in audits if number not in found]
    if alone:
        raise ConfigError(f"privacy_{alone[0]} is linked and scores_{alone[0]} is not: link the scores of the same images")


def _arm(one: ScoredSet, privacy: Mapping[str, Any] | None) -> Any:
    from ..evaluation.report.report import Arm, read_losses

    info = ImageSet(one.records[0].image.parent).read_info() if one.records else {}
    losses = (info.get("adapter") or {}).get("losses")
    return Arm(one.name, one.scores, one.records, info, read_losses(losses) if losses and Path(losses).is_file() else (),
               privacy=privacy)


def _panel(folder: Path, page: Path, sets: Sequence[ScoredSet], real: Sequence[Record]) -> dict[str, Any]:
    """What the web extension shows: one row a metric and class, one column a set; and small pictures of each."""
    keys = list(dict.fromkeys((score.metric, score.label, score.direction) for one in sets for score in one.scores.scores))
    rows = [[metric, label or "all", direction, *(_value(one, metric, label) for one in sets)] for metric, label, direction in keys]
    pictures = [{"name": name, "images": _thumbnails(folder, index, records)}
                for index, (name, records) in enumerate([("real", real), *((one.name, one.records) for one in sets)])]
    notices = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["notices"]
    return {"table": {"columns": ["metric", "class", "better", *(one.name for one in sets)], "rows": rows}, "pictures": pictures,
            "notices": notices, "file": host.shown(page)}


def _value(one: ScoredSet, metric: str, label: str | None) -> float | str | None:
    score = one.scores.find(metric, label)
    return None if score is None else score.reason if score.value is None else score.value


def _thumbnails(folder: Path, row: int, records: Sequence[Record]) -> list[dict[str, str]]:
    """Small copies of the first images, in order of their seeds, so that sets drawn with the same ones line up."""
    from ..data.image import open_image
    from ..files import whole

    chosen = sorted(records, key=lambda record: (record.seed is None, record.seed or 0))[:SHOWN]
    links = []
    for index, record in enumerate(chosen):
        path = folder / "pictures" / f"{row}-{index}.jpg"
        if not path.exists():
            picture = open_image(record.image).convert("RGB")
            picture.thumbnail((256, 256))
            with whole(path) as beside:
                picture.save(beside, quality=88)
        links.append({**host.picture_link(path), "title": record.caption})
    return links


def nodes() -> list[type]:
    """The nodes of this file."""
    return [Report]
