"""The report's page: everything that its template shows, made ready, with styles, script, pictures and plots inside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .downstream_page import downstream_section
from .overview import class_plots, legend, overview_plots
from .picture_grid import picture_grid
from .plots.loss import loss_curve, span
from .privacy_page import privacy_sections
from .prose import value
from .score_table import Comparisons, labels_of, score_table, verdicts

if TYPE_CHECKING:
    from ...data.record import Record
    from ..downstream.result import Downstream
    from .arm import Arm

TEMPLATE = Path(__file__).parent / "template"


@dataclass(frozen=True)
class Contents:
    """What a report says: its arms, the real images, every figure as a row, comparisons by (metric, label), and the paragraphs."""

    title: str
    created: str
    arms: Sequence[Arm]
    real: Sequence[Record]
    table: Sequence[dict[str, Any]]
    compared: Comparisons
    notices: Sequence[str] = ()
    methods: Sequence[str] = ()
    limits: Sequence[str] = ()
    downstream: Downstream | None = None
    columns: int = 8

    def tables(self) -> list[dict[str, Any]]:
        """The tables of all images and of each class."""
        return [score_table(self.arms, self.table, label, self.compared) for label in (None, *labels_of(self.table))]


def render(contents: Contents) -> str:
    """The page as HTML."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    arms, (headline, *classes) = contents.arms, contents.tables()
    return environment.get_template("report.html").render(
        contents=contents, n_arms=sum(not arm.reference for arm in arms),
        style=(TEMPLATE / "report.css").read_text(encoding="utf-8"), script=(TEMPLATE / "report.js").read_text(encoding="utf-8"),
        headline=headline, verdicts=verdicts(headline), classes=classes, legend=legend([arm.name for arm in arms]),
        plots=overview_plots(arms), class_plots=class_plots(arms, contents.table), curves=_curves(arms),
        grid=picture_grid(arms, contents.real, contents.columns), privacy=privacy_sections(arms),
        downstream=downstream_section(contents.downstream), extractors=_extractors(arms), versions=arms[0].scores.versions,
        provenance=[(arm.name, flatten(arm.made_by)) for arm in arms if arm.made_by])


def _curves(arms: Sequence[Arm]) -> list[tuple[str, str, int]]:
    """(name, SVG, steps) of each training, on one scale."""
    bounds = span([arm.losses for arm in arms])
    return [(arm.name, loss_curve(arm.losses, arm.name, bounds), len(arm.losses)) for arm in arms if len(arm.losses) > 1]


def _extractors(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Each feature space once, and what else it tells of itself."""
    found = {}
    for arm in arms:
        for about in [arm.scores.extractor, *(arm.scores.settings.get("extractors") or {}).values()]:
            if about:
                told = {key: one for key, one in about.items() if key not in ("title", "name", "auroc", "mean_auroc")}
                found[about.get("id")] = {**{key: about.get(key) for key in ("title", "auroc", "mean_auroc")}, "lines": flatten(told)}
    return list(found.values())


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of everything in nested JSON, names joined by dots; what is empty is left out."""
    lines = []
    for key, item in values.items():
        if isinstance(item, dict):
            lines += flatten(item, f"{prefix}{key}.")
        elif item not in (None, "", [], ()):
            lines.append((prefix + key, value(item) if isinstance(item, (list, tuple)) else str(item)))
    return lines
