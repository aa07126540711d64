"""What a set to learn from and a set to test on must not share: patients, files, and images that were only saved anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...data.image import hash_image
from ...data.record import Record
from ...errors import DataError, listing
from ..features import Features
from .copies import CopyOptions, Match, find_matches, thumbnails
from .threshold import HIGHEST, Threshold, choose_threshold

LEVEL = 0.01
"""Chance that any of a set's images is taken for one of the other by mistake."""
LOWEST = 0.9
"""An image that was saved anew correlates with at least so much; less alike is no leak, though it may be a copy."""


@dataclass(frozen=True)
class Leaks:
    """``patients`` are in both sets, with ``images`` of the second; ``files`` are images of the second that are files of the first;
    ``again`` are pairs (second, first) of the same picture in other files, by their ``threshold``."""

    patients: tuple[str, ...] = ()
    images: int = 0
    files: tuple[Path, ...] = ()
    again: tuple[tuple[Path, Path], ...] = ()
    threshold: Threshold | None = None

    def __bool__(self) -> bool:
        return bool(self.patients or self.files or self.again)

    def say(self, first: str, second: str) -> str:
        """What is shared, in words."""
        parts = []
        if self.patients:
            parts.append(f"{len(self.patients)} patients with {self.images} images of the {second} set ({listing(self.patients)})")
        if self.files:
            parts.append(f"{len(self.files)} files ({listing(self.files)})")
        if self.again:
            pairs = [f"{one} is {other}" for one, other in self.again]
            parts.append(f"{len(self.again)} images that were saved anew ({listing(pairs, 3)})")
        return f"the {first} and the {second} set share {'; '.join(parts)}"


def find_leaks(train: Sequence[Record], test: Sequence[Record], *, pictures: bool = True, cache: str | Path | None = None,
               size: int = 512, fit: str = "crop", on_progress: Callable[[int, int], None] | None = None) -> Leaks:
    """What the two sets share; with ``pictures`` also images that were saved anew, shifted by a few pixels or made brighter.

    That reads every image once (thumbnails are kept in ``cache``) and some a second time.
    """
    known = shared(train, test)
    if not pictures or not train or not test:
        return known
    read = {"cache": cache, "size": size, "fit": fit}
    first, second = thumbnails(train, **read), thumbnails(test, **read, on_progress=on_progress)
    return same_pictures(first, second, find_matches(second, first, CopyOptions()), known)


def shared(train: Sequence[Record], test: Sequence[Record]) -> Leaks:
    """Patients and files of both sets."""
    patients = {record.patient for record in train if record.patient is not None}
    of_both = [record.patient for record in test if record.patient in patients]
    known = {hash_image(record.image) for record in train}
    files = tuple(record.image for record in test if hash_image(record.image) in known)
    return Leaks(tuple(sorted(set(of_both))), len(of_both), files)


def same_pictures(train: Features, test: Features, matches: Sequence[Match | None], known: Leaks | None = None) -> Leaks:
    """``known`` with the pictures that are in both, by the best matches of test among training images.

    The matches also say how alike pictures of different patients are: at most a quarter of them are leaks, or else the threshold is
    at its upper bound, which leaks reach.
    """
    known = known or Leaks()
    threshold = choose_threshold([match.correlation for match in matches if match is not None and not match.same_file],
                                 LEVEL / max(len(test), 1), LOWEST)
    again = tuple((test.records[match.index].image, train.records[match.other].image) for match in matches
                  if match is not None and not match.same_file and match.correlation >= min(threshold.value, HIGHEST))
    return Leaks(known.patients, known.images, known.files, again, threshold)


def check_leaks(train: Sequence[Record], test: Sequence[Record], *, names: tuple[str, str] = ("training", "test"),
                pictures: bool = True, cache: str | Path | None = None, size: int = 512, fit: str = "crop",
                on_progress: Callable[[int, int], None] | None = None) -> None:
    """DataError with the counts and the first few when the sets share patients or images; ``names`` are what it calls the sets."""
    refuse(find_leaks(train, test, pictures=pictures, cache=cache, size=size, fit=fit, on_progress=on_progress), names)


def refuse(leaks: Leaks, names: tuple[str, str] = ("training", "test")) -> None:
    """DataError where there is a leak."""
    if leaks:
        raise DataError(f"{leaks.say(*names)}. Figures on such sets say nothing of new patients: split again by patient, and leave "
                        "out what is there twice")
