"""The errors that a user is meant to read: each names the value, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MedTuneError(Exception):
    """Anything that the user can put right: bad input, a bad file, a bad setting."""


class ConfigError(MedTuneError, ValueError):
    """A setting outside of what is allowed."""


class DataError(MedTuneError, ValueError):
    """A data set, image or caption that cannot be used as it is."""


class ModelError(MedTuneError, ValueError):
    """A checkpoint or adapter file that cannot be used as it is."""


class TrainingStopped(MedTuneError, RuntimeError):
    """Training that cannot go on (a loss that is not finite, no room on the disk); the last good state is kept."""


class Missing(MedTuneError, FileNotFoundError):
    """A file or an optional package that is needed and is not there."""


class UnknownName(MedTuneError, KeyError):
    """A name that a registry does not hold."""

    def __init__(self, kind: str, name: object, known: Iterable[str]):
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"unknown {kind} {name!r}{near(str(name), self.known)}; there are: {', '.join(self.known) or 'none'}")

    def __str__(self) -> str:  # KeyError would quote the whole sentence
        return str(self.args[0])


def near(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the closest of the known names, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def listing(items: Iterable[object], most: int = 5) -> str:
    """The first few items, comma-separated, and how many more there are."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
