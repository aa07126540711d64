"""The image files that a table names without folder and ending."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from .image import SUFFIXES
from .source import list_images


class NamedImages:
    """The images below a folder by their names without ending."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._found: dict[str, list[Path]] = {}
        for path in list_images(folder, deep=True):
            self._found.setdefault(path.stem, []).append(path)

    def find(self, name: str) -> Path:
        """The one image of this name, given with or without its ending. DataError when there is none, or several."""
        if not name:
            raise DataError("no image name")
        stem = Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name
        found = self._found.get(stem, [])
        if not found:
            raise DataError(f"there is no image {stem} in {self.folder}; set images to the folder that holds it")
        if len(found) > 1:
            names = ", ".join(path.relative_to(self.folder).as_posix() for path in found)
            raise DataError(f"{len(found)} images are called {stem}: {names}; keep one")
        return found[0]
