"""A run's folder: addressed by what goes into it, written by one process at a time.

runs/<method>-<hash>/ holds run.json (what made it), losses.jsonl, checkpoint.safetensors while it is under way, samples/,
tensorboard/ and, in the end, adapter.safetensors or what else the method makes. The same request finds its folder again: finished,
or to go on with.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from .. import config
from ..errors import MedTuneError, ModelError
from ..files import hash_json, write_json
from .options import INCIDENTAL, TrainOptions
from .products import KINDS

if TYPE_CHECKING:
    from .base import Base
    from .method import Method
    from .objective import ObjectiveOptions

FORMAT = 1  # raise it when the same request comes to another adapter


def identity(method: Method, options: TrainOptions, objective: ObjectiveOptions, base: Base, data_hash: str) -> dict[str, Any]:
    """All that decides what comes out of a run."""
    kept = {name: value for name, value in config.to_json(options).items() if name not in INCIDENTAL}
    return {"format": FORMAT, "method": method.name, "config": config.to_json(method.config), "options": kept,
            "objective": config.to_json(objective), "base": base.hash, "data": data_hash}


class Run:
    """The files of one run."""

    def __init__(self, runs: Path, made_of: dict[str, Any]):
        self.made_of = made_of
        self.hash = hash_json(made_of)
        self.folder = Path(runs) / f"{made_of['method']}-{self.hash[:12]}"
        self.adapter = self.product("adapter")
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.losses = self.folder / "losses.jsonl"
        self.samples = self.folder / "samples"
        self.board = self.folder / "tensorboard"
        self.info = self.folder / "run.json"

    def product(self, kind: str) -> Path:
        """Where a product of this kind is written."""
        return self.folder / f"{kind}.safetensors"

    def products(self) -> dict[str, Path]:
        """The files of a finished run by kind, the principal one first."""
        return {kind: self.product(kind) for kind in self.read().get("products", ["adapter"])}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The folder for this process alone, until the block or the process ends. Raises MedTuneError when another has it."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise MedTuneError(f"{self.folder} is being written by another training{self._owner()}. Wait for its end, and this "
                               "request will find its adapter; or change the seed or another setting") from error
        except OSError as error:
            raise MedTuneError(f"cannot write to {self.folder}: {error.strerror or error}. Choose another folder for runs") from error
        try:
            yield
        finally:
            lock.release()

    def _owner(self) -> str:
        info = self.read()
        return f" (process {info['pid']} on {info['host']}, since {info['started']})" if "pid" in info else ""

    def read(self) -> dict[str, Any]:
        """What run.json says; nothing when it is not there."""
        return json.loads(self.info.read_text(encoding="utf-8")) if self.info.exists() else {}

    def write(self, **facts: Any) -> None:
        """Add facts to run.json."""
        write_json(self.info, {**self.read(), **facts})

    def begin(self, **facts: Any) -> None:
        """Note what the run is made of and who is at it."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self.write(**self.made_of, **facts, finished=False, pid=os.getpid(), host=socket.gethostname(), started=now)

    def finished(self) -> bool:
        """Whether all that it makes is there. Raises ModelError when a file is damaged."""
        files = self.products().values()
        if not all(file.exists() for file in files):
            return False
        for file in files:
            try:
                with safe_open(file, framework="pt"):
                    pass
            except SafetensorError as error:
                raise ModelError(f"{file} is damaged ({error}); delete it to train it anew") from error
        return bool(self.read().get("finished"))

    def clear(self) -> None:
        """Forget what was done, to start anew."""
        for file in (self.info, *map(self.product, KINDS), self.checkpoint, self.losses):
            file.unlink(missing_ok=True)
        for folder in (self.samples, self.board):
            shutil.rmtree(folder, ignore_errors=True)
