"""What a training says of itself while it runs."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path

RECENT = 20  # updates over which the speed is measured


@dataclass(frozen=True)
class StepInfo:
    """Progress: in phase ``train`` after each update, in ``class`` after each image of the class, in ``cache`` after each encoded
    image, in ``sample`` for each preview picture, in ``save`` before a checkpoint or the adapter is written.

    ``smoothed`` is the loss's running mean, ``grad_norm`` the gradient's norm before clipping.
    """

    step: int
    total: int
    phase: str = "train"
    loss: float = math.nan
    smoothed: float = math.nan
    lr: float = math.nan
    grad_norm: float = math.nan
    steps_per_second: float = 0.0
    remaining_s: float = math.nan
    sample: Path | None = None


class Speed:
    """Steps per second over the recent updates; pictures and checkpoints between them do not count."""

    def __init__(self):
        self._durations: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float) -> None:
        """Take in one update."""
        self._durations.append(seconds)

    def rate(self) -> float:
        """Updates per second; 0 before the first."""
        return len(self._durations) / max(sum(self._durations), 1e-9) if self._durations else 0.0


def smooth(losses: list[float], decay: float = 0.95) -> float:
    """The exponential mean of the losses, without the pull towards 0 of its start."""
    total = weight = 0.0
    for loss in losses[-200:]:
        total, weight = decay * total + (1 - decay) * loss, decay * weight + (1 - decay)
    return total / weight if weight else math.nan
