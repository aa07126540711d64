"""Named plug-ins found by importing every module of one package: adding a file adds an entry."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .errors import UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """Plug-ins by name.

    ``kind`` is the word used in errors; ``package`` the full module name of the folder whose files register
    themselves, imported on the first look-up so that importing the registry costs nothing.
    """

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._entries: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an entry under a name; a name taken by another module is refused."""

        def add(entry: T) -> T:
            held = self._entries.get(name)
            if held is not None and getattr(held, "__module__", None) != getattr(entry, "__module__", None):
                raise ValueError(f"{self.kind} {name!r} is registered twice: in {held.__module__} and {entry.__module__}")
            self._entries[name] = entry
            return entry

        return add

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True

    def __getitem__(self, name: str) -> T:
        self._discover()
        if name not in self._entries:
            raise UnknownName(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """(name, entry), sorted by name."""
        return [(name, self._entries[name]) for name in self]
