"""What is known of the images that a generator learnt from: test images must not be among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.identity import hash_records
from ...data.image_set import INFO, ImageSet
from ...data.record import Record
from ...errors import DataError
from ..privacy.leaks import check_leaks


def read_made_by(records: Sequence[Record]) -> dict[str, Any]:
    """What the image set of the records says made it; empty where it does not say."""
    folder = Path(records[0].image).parent if records else None
    return ImageSet(folder).read_info() if folder is not None and (folder / INFO).is_file() else {}


def check_generator(synthetic: Sequence[Record], real: Sequence[Record], test: Sequence[Record], *, name: str = "",
                    generator: Sequence[Record] | None = None, unchecked: bool = False, **read: Any) -> str:
    """What is known of the images that the generator of a synthetic set was trained on, as a sentence for a report.

    The set names its adapter's data by a hash: ``generator``, or the real training images, are recognised by it. DataError where
    test images are among them, and where nothing tells which images they are, unless ``unchecked`` accepts that. ``read`` are the
    arguments of ``check_leaks`` that say how images are read.
    """
    made_by = read_made_by(synthetic)
    wanted = {facts["data_hash"] for facts in _adapters(made_by) if facts.get("data_hash")}
    said = f"the generator of {name or 'the synthetic images'}"
    if generator is not None:
        check_leaks(generator, test, names=("generator's", "test"), **read)
        verified = " (the very images that its adapter names)" if wanted == {hash_records(generator)} else ""
        return f"{said} learnt from the {len(generator)} images given{verified}; no test patient or image is among them"
    if made_by and not _adapters(made_by) and made_by.get("base"):
        return f"{said} is the base as it came, with no adapter; what the base was trained on is not looked at"
    if wanted and wanted <= _hashes(real):
        return f"{said} learnt from real training images of this study, as its adapter's hash of the data tells"
    if unchecked:
        return f"which images {said} learnt from is not known: that no test patient is among them was NOT checked"
    why = "its adapter's data are not the real training images given" if wanted else "the set does not say"
    raise DataError(f"it is not known which images {said} learnt from: {why}. Give them as the generator's data, so that it can be "
                    "told whether test patients are among them; or accept it unchecked, which the result will say")


def _adapters(made_by: Mapping[str, Any]) -> list[dict[str, Any]]:
    adapter = made_by.get("adapter")
    return [adapter, *adapter.get("further", [])] if isinstance(adapter, dict) else []


def _hashes(real: Sequence[Record]) -> set[str]:
    """Of all real images, and of those of their training split, in the order of their paths as reading gives them."""
    parts = [list(real), [record for record in real if record.split == "train"]]
    return {hash_records(part) for part in parts if part}
