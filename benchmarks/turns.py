"""The measured side of a benchmark: a training loop in a process of its own that stops after each block of steps until it is told
to go on, so that loops can take turns on one machine. Only the standard library: ComfyUI's Python runs it too.

Protocol: a line of standard input is the number of steps to do, an empty one or its end is the end; each answer is a line of JSON.
What the loop itself prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class Turns:
    """Call `ready` before the first step, if there is anything to do before it, and `step` after each step."""

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._left, self._steps, self._began = 0, [], None

    def ready(self, **facts: Any) -> None:
        """Say so, with facts about the loop, and wait for the first block."""
        self._answer(facts)
        self._wait()

    def step(self) -> None:
        """A step was done: after the last of a block, give its times and the peak of the memory since the first block began."""
        self._steps.append([now - then for now, then in zip(_clocks(), self._began, strict=True)])
        self._left -= 1
        if not self._left:
            self._answer({"steps": self._steps, "peak": _peak()})
            self._wait()
        self._began = _clocks()

    def _answer(self, value: dict[str, Any]) -> None:
        self._answers.write(json.dumps(value) + "\n")
        self._answers.flush()

    def _wait(self) -> None:
        order = sys.stdin.readline().strip()
        if not order:
            os._exit(0)  # wherever in its loop the training is
        if self._began is None:
            _forget_peak()
        self._left, self._steps, self._began = int(order), [], _clocks()


def _clocks() -> tuple[float, float]:
    """Seconds on the clock, and of the processor in this process, after the GPU has done what it was given."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _forget_peak() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # from here on, VmHWM is the peak since now
    except OSError:
        print("the peak of the memory includes what came before the first step", file=sys.stderr)


def _peak() -> int:
    """Bytes: of the GPU where there is one, otherwise of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
