"""What the report's page shows, made ready for its template: figures as text, pictures as data URLs, curves as SVG."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.image import open_image
from ..data.record import Record
from .comparison import BEST, TIED
from .metric import METRICS
from .plot import loss_curve, span

if TYPE_CHECKING:
    from .report import Arm

TEMPLATE = Path(__file__).parent / "template"
PICTURE = 256  # side of the pictures in the page, in pixels
ARROWS = {"lower": "↓", "higher": "↑"}


def render(arms: Sequence[Arm], real: Sequence[Record], table: Sequence[dict[str, Any]], *, title: str, created: str,
           notices: Sequence[str], columns: int) -> str:
    """The page as HTML, with styles, script and pictures inside it."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    labels = sorted({row["label"] for row in table if row["label"] is not None})
    headline = score_table(arms, table, None)
    bounds = span([arm.losses for arm in arms])
    return environment.get_template("report.html").render(
        title=title, created=created, notices=notices, n_real=len(real), n_arms=sum(not arm.reference for arm in arms),
        style=(TEMPLATE / "report.css").read_text(encoding="utf-8"), script=(TEMPLATE / "report.js").read_text(encoding="utf-8"),
        headline=headline, verdicts=verdicts(headline), classes=[(label, score_table(arms, table, label)) for label in labels],
        grid=picture_grid(arms, real, columns),
        curves=[(arm.name, loss_curve(arm.losses, arm.name, bounds), len(arm.losses)) for arm in arms if len(arm.losses) > 1],
        provenance=[(arm.name, flatten(arm.made_by)) for arm in arms if arm.made_by],
        extractors=list({arm.scores.extractor.get("id"): arm.scores.extractor for arm in arms if arm.scores.extractor}.values()),
        versions=arms[0].scores.versions)


def score_table(arms: Sequence[Arm], table: Sequence[dict[str, Any]], label: str | None) -> dict[str, Any]:
    """The columns (metrics) and rows (arms) of the scores of one class, or of all images."""
    chosen = [row for row in table if row["label"] == label]
    metrics = list(dict.fromkeys(row["metric"] for row in chosen))
    untuned = next((arm.name for arm in arms if not arm.tuned and not arm.reference), None)
    by_place = {(row["arm"], row["metric"]): row for row in chosen}
    heads = [{"name": metric, "title": METRICS[metric].facts.title if metric in METRICS else metric,
              "says": METRICS[metric].facts.says if metric in METRICS else "",
              "direction": next(row["direction"] for row in chosen if row["metric"] == metric)} for metric in metrics]
    for head in heads:
        head["arrow"] = ARROWS[head["direction"]]
    cells = {arm.name: [cell(by_place.get((arm.name, metric)), by_place.get((untuned, metric))) for metric in metrics] for arm in arms}
    return {"heads": heads, "lines": [{"name": arm.name, "reference": arm.reference, "cells": cells[arm.name]}
                                      for arm in arms if any((arm.name, metric) in by_place for metric in metrics)]}


def verdicts(table: dict[str, Any]) -> list[tuple[str, str]]:
    """For each metric that tells arms apart, or shows that it cannot, one sentence."""
    said = []
    for column, head in enumerate(table["heads"]):
        cells = [(line["name"], line["cells"][column]) for line in table["lines"]]
        best = [f"{name} is best, {one['text']} ({one['interval']})" for name, one in cells if one.get("standing") == BEST]
        tied = [name for name, one in cells if one.get("standing") == TIED]
        if best or tied:
            said.append((head["title"], best[0] if best else f"{' and '.join(tied)} cannot be told apart"))
    return said


def cell(row: dict[str, Any] | None, untuned: dict[str, Any] | None) -> dict[str, Any]:
    """A figure as it is shown: value, interval, numbers of images, share of the untuned base's figure, standing, or the reason."""
    if row is None:
        return {"value": None, "reason": "not computed", "n": None}
    shown = {"value": row["value"], "reason": row["reason"], "n": (row["n_real"], row["n_fake"]), "standing": row["standing"]}
    if row["value"] is None:
        return shown
    half = (row["high"] - row["low"]) / 2 if row["low"] is not None else None
    shown["text"] = figure(row["value"], half)
    shares = untuned and untuned is not row and untuned["value"] and untuned["value"] > 0 and row["value"] > 0
    shown["share"] = f"{100 * row['value'] / untuned['value']:.0f} % of untuned" if shares else None
    shown["interval"] = f"{figure(row['low'], half)} to {figure(row['high'], half)}" if half is not None else None
    return shown


def figure(value: float, half: float | None = None) -> str:
    """A number with as many decimals as its interval's half width gives meaning to, else three significant digits."""
    if half and half > 0:
        text = f"{value:.{min(8, max(0, 1 - math.floor(math.log10(half))))}f}"
    elif value == 0 or 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0}f}"
    else:
        text = f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def picture_grid(arms: Sequence[Arm], real: Sequence[Record], columns: int) -> dict[str, Any]:
    """Columns of one prompt and seed each, rows of real images and of each arm's; a place without a picture is None."""
    shown = [arm for arm in arms if arm.records and not arm.reference]
    if not shown:
        return {"heads": [], "rows": []}
    first = next((arm for arm in shown if not arm.tuned), shown[0])
    prompts = list(first.records[:columns])
    counterparts = _counterparts(prompts, real)
    rows = [{"name": "Real, held out", "cells": [picture(record) for record in counterparts]}] if real else []
    for arm in shown:
        drawn = {(record.caption, record.seed): record for record in arm.records}
        rows.append({"name": arm.name, "cells": [picture(drawn.get((record.caption, record.seed))) for record in prompts]})
    return {"heads": [{"caption": record.caption, "seed": record.seed} for record in prompts], "rows": rows}


def _counterparts(prompts: Sequence[Record], real: Sequence[Record]) -> list[Record | None]:
    """For each prompt a real image, each once: of the same caption if there is one, else of the same labels."""
    left, chosen = list(real), []
    for prompt in prompts:
        alike = sorted((record for record in left if record.caption == prompt.caption or set(record.labels) == set(prompt.labels)),
                       key=lambda record: record.caption != prompt.caption)
        chosen.append(alike[0] if alike else None)
        left = [record for record in left if record is not chosen[-1]]
    return chosen


def picture(record: Record | None) -> dict[str, str] | None:
    """A small JPEG of an image as a data URL, with the text that stands for it."""
    if record is None:
        return None
    image = open_image(record.image)
    image.thumbnail((PICTURE, PICTURE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return {"url": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), "alt": record.caption}


def flatten(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of everything in nested JSON, names joined by dots; what is empty is left out."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += flatten(item, f"{prefix}{key}.")
        elif item not in (None, "", [], ()):
            lines.append((prefix + key, ", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)))
    return lines
