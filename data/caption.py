"""Captions from labels, by a template."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable

from ..errors import ConfigError, near

STUDIED = ("No Finding", "Cardiomegaly", "Lung Opacity", "Edema", "Pneumonia", "Pneumothorax", "Pleural Effusion", "Support Devices")
NORMAL = "Normal chest X-ray with no significant findings"


def _chest(labels: tuple[str, ...]) -> str:
    """The rule of "Pixels Under Pressure"; findings outside of its eight are named when none of the eight is there.

    The paper calls such an image normal; ``chest-xray-eight`` does as the paper.
    """
    return _eight(labels) if not labels or set(labels) & set(STUDIED) else f"Chest X-ray showing {', '.join(labels)}"


def _eight(labels: tuple[str, ...]) -> str:
    found = [label for label in STUDIED if label in labels]
    return f"Chest X-ray showing {', '.join(found)}" if found else NORMAL


def _every(labels: tuple[str, ...]) -> str:
    found = [label for label in STUDIED if label in labels] + [label for label in labels if label not in STUDIED]
    return f"Chest X-ray showing {', '.join(found)}" if found else NORMAL


def _labels(labels: tuple[str, ...]) -> str:
    return ", ".join(labels)


CAPTIONS: dict[str, Callable[[tuple[str, ...]], str]] = {
    "chest-xray": _chest, "chest-xray-eight": _eight, "chest-xray-all": _every, "labels": _labels,
}


def caption(labels: Iterable[str], template: str = "chest-xray") -> str:
    """The caption of an image with these labels.

    ``template`` is a name of CAPTIONS or a text with ``{labels}`` in it, as ``"a skin photograph of {labels}"``.
    ConfigError for anything else.
    """
    labels = tuple(labels)
    if template in CAPTIONS:
        return CAPTIONS[template](labels)
    check_template(template)
    return template.format(labels=", ".join(labels))


def check_template(template: str) -> str:
    """The template itself, when captions can be made by it; otherwise ConfigError."""
    if template in CAPTIONS:
        return template
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError:
        names = {""}
    if names != {"labels"}:
        raise ConfigError(f"caption template {template!r}{near(template, CAPTIONS)} is neither one of {', '.join(CAPTIONS)} "
                          "nor a text with {labels} in it")
    return template
