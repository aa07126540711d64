"""Pictures for the page: small, inside of it, those of one prompt and seed below each other."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...data.image import open_image
from ...data.record import Record
from .arm import Arm

PICTURE = 256  # side of the pictures in the page, in pixels


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
    return None if record is None else {"url": data_url(record.image), "alt": record.caption}


def data_url(path: str | Path) -> str:
    """A small JPEG of an image file."""
    image = open_image(path)
    image.thumbnail((PICTURE, PICTURE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
