"""Features on disk: one SQLite file for each way from an image to features, keyed by the image's hash."""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import MedTuneError


class FeatureCache:
    """Vectors by image hash. ``folder`` None keeps nothing. An entry or a file that is damaged counts as not there.

    The key must name everything that the features depend on besides the image: extractor, weights, resize. Each ``put`` is one
    transaction, so that a killed process leaves whole entries, and several processes can use one file.
    """

    def __init__(self, folder: str | Path | None, key: str):
        self.path = Path(folder) / (re.sub(r"[^\w.=-]+", "_", key) + ".sqlite") if folder is not None else None
        self.connection: sqlite3.Connection | None = None

    def __enter__(self) -> FeatureCache:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = self._open()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.connection is not None:
            self.connection.close()

    def get(self, hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors that are known, by image hash."""
        found = {}
        for digest in dict.fromkeys(hashes) if self.connection is not None else ():
            try:
                row = self.connection.execute("SELECT vector, checksum FROM features WHERE image = ?", (digest,)).fetchone()
            except sqlite3.DatabaseError:  # damaged inside: begin anew
                self._renew()
                return {}
            if row is not None and zlib.crc32(row[0]) == row[1]:
                found[digest] = np.frombuffer(row[0], dtype="<f4").copy()
        return found

    def put(self, vectors: dict[str, np.ndarray]) -> None:
        """Keep these vectors, all or none of them. Raises MedTuneError when they cannot be written."""
        if self.connection is None:
            return
        blobs = [(digest, vector.astype("<f4").tobytes()) for digest, vector in vectors.items()]
        rows = [(digest, blob, zlib.crc32(blob)) for digest, blob in blobs]
        try:
            self._insert(rows)
        except sqlite3.OperationalError as error:
            raise self._refusal(error) from error
        except sqlite3.DatabaseError:  # damaged inside: begin anew
            self._renew()
            self._insert(rows)

    def _insert(self, rows: list[tuple[str, bytes, int]]) -> None:
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)

    def _refusal(self, error: sqlite3.Error) -> MedTuneError:
        return MedTuneError(f"cannot keep features in {self.path}: {error}. Free some space or choose another folder for the cache.")

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            connection = sqlite3.connect(self.path, timeout=60)
            try:
                with connection:
                    connection.execute("CREATE TABLE IF NOT EXISTS features (image TEXT PRIMARY KEY, vector BLOB, checksum INTEGER)")
                return connection
            except sqlite3.OperationalError as error:  # locked, read-only, no room: not for us to delete
                connection.close()
                raise self._refusal(error) from error
            except sqlite3.DatabaseError:  # no SQLite file
                connection.close()
                self.path.unlink()
        raise self._refusal(sqlite3.DatabaseError("it is damaged again as soon as it is made"))

    def _renew(self) -> None:
        self.connection.close()
        self.path.unlink(missing_ok=True)
        self.connection = self._open()
