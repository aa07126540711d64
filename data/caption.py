"""Captions from labels, by a template."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import ConfigError, DataError, near
from .classes import EYES, LESIONS, RETINOPATHY

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


def _retina(labels: tuple[str, ...]) -> str:
    """"Pixels Under Pressure": the level in words, which may be given by its number, and the eye where it is known."""
    eyes = [name for name in EYES.values() if name in labels]
    if len(eyes) > 1:
        raise DataError(f"the labels {', '.join(labels)} name both eyes; an image shows one")
    level = _one([label for label in labels if label not in eyes], dict(enumerate(RETINOPATHY)), labels)
    return f"Retinal image {f'of {eyes[0]} ' if eyes else ''}showing {RETINOPATHY[level]}"


def _skin(labels: tuple[str, ...]) -> str:
    """"Pixels Under Pressure": the lesion with its code, either of which may be given."""
    code = _one(list(labels), LESIONS, labels)
    return f"a dermoscopic image with {LESIONS[code]} ({code})"


def _one(given: list[str], classes: Mapping[Any, str], labels: tuple[str, ...]) -> Any:
    """The key of the one class that was given, by its key or by its name."""
    found = [key for key, name in classes.items() if name in given or str(key) in given]
    if len(found) != 1 or len(given) != 1:
        named = ", ".join(f"{key} ({name})" for key, name in classes.items())
        raise DataError(f"the labels {', '.join(labels) or '(none)'} do not name one class; it must be one of: {named}")
    return found[0]


def _labels(labels: tuple[str, ...]) -> str:
    return ", ".join(labels)


CAPTIONS: dict[str, Callable[[tuple[str, ...]], str]] = {
    "chest-xray": _chest, "chest-xray-eight": _eight, "chest-xray-all": _every, "retinopathy": _retina, "isic": _skin,
    "labels": _labels,
}
TEMPLATES = f"{', '.join(CAPTIONS)}, or a text with {{labels}} in it"


def caption(labels: Iterable[str], template: str = "chest-xray") -> str:
    """The caption of an image with these labels.

    ``template`` is a name of CAPTIONS or a text with ``{labels}`` in it, as ``"a skin photograph of {labels}"``.
    ConfigError for anything else, DataError for labels that a template of closed classes does not know.
    """
    labels = tuple(labels)
    if template in CAPTIONS:
        return CAPTIONS[template](labels)
    check_template(template)
    return template.format(labels=", ".join(labels))


def modality(template: str) -> str:
    """What the captions of a named template speak of, `chest-xray` for all of its variants; empty for other templates."""
    return next((name for name in ("chest-xray", "retinopathy", "isic") if template.startswith(name)), "")


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
