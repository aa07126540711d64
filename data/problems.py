"""The bad files and rows of a data set, gathered so that one error names them all."""

from __future__ import annotations

from ..errors import DataError


class Problems:
    """What is wrong with which file or row; ``check`` raises when anything is."""

    def __init__(self, what: str):
        self.what, self.found = what, dict[str, str]()

    def add(self, where: object, reason: str) -> None:
        """Note a file or row; the first reason stays."""
        self.found.setdefault(str(where), reason)

    def check(self, total: int, remedy: str = "Put them right or leave them out; nothing was skipped.") -> None:
        """DataError with the count, the first five and their reasons; nothing when there is no problem."""
        if not self.found:
            return
        first = "; ".join(reason if where in reason else f"{where}: {reason}" for where, reason in list(self.found.items())[:5])
        more = f"; and {len(self.found) - 5} more" if len(self.found) > 5 else ""
        raise DataError(f"{len(self.found)} of {total} {self.what} cannot be used: {first}{more}. {remedy}")
