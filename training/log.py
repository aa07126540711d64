"""The history of a run: losses.jsonl, one line a step, and TensorBoard's log."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from ..errors import Missing, TrainingStopped
from ..files import write_text


def read_losses(path: Path) -> list[float]:
    """The loss of each step in the log, oldest first."""
    return [line["loss"] for line in _lines(path)]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the log; a last one that a killed process left torn is none."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]


class LossLog:
    """losses.jsonl: a step's line is written before its update, so that no checkpoint is ahead of the log."""

    def __init__(self, path: Path, step: int, write: bool = True):
        """Open to go on after ``step``; what the log holds of later steps is dropped, as they are done again.

        With ``write`` False nothing is written: of several processes, one does.
        """
        kept = [line for line in _lines(path) if line["step"] <= step]
        if write:
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.path, self.losses = path, [line["loss"] for line in kept]
        self._file = open(path if write else os.devnull, "a", encoding="utf-8")  # noqa: SIM115  closed by close()

    def append(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        """Add a step, counted from 1. Raises TrainingStopped when there is no room."""
        line = {"step": step, "loss": loss, "lr": lr, "grad_norm": grad_norm if math.isfinite(grad_norm) else None}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingStopped(f"cannot write step {step} to {self.path}: {error.strerror or error}. Free some space and start "
                                  "again: the run goes on from its last checkpoint") from error
        self.losses.append(loss)

    def sync(self) -> None:
        """Bring what was written to the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported where the line was written
            self._file.close()


class Board:
    """TensorBoard's log of the same figures and of the preview pictures."""

    def __init__(self, folder: Path, step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise Missing("the option tensorboard needs the package tensorboard: pip install tensorboard, or switch it off") from error
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, step: int, **figures: float) -> None:
        """Add a step's figures."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def add_image(self, step: int, name: str, image: Any) -> None:
        """Add a picture (3, H, W)."""
        self._writer.add_image(name, image, step)

    def close(self) -> None:
        self._writer.close()
