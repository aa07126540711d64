"""What a step reads, made ready in a thread while the step before it computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Ahead(Generic[T]):
    """Step number -> what ``make`` gives for it. That of the following step is being made meanwhile, one at a time.

    ``make`` must follow from the step alone, and draw nothing from global generators: then threads change nothing in what a step
    gets. What it raises is raised where its step is asked for. ``steps`` is how many there are, counted from 0.
    """

    def __init__(self, make: Callable[[int], T], steps: int):
        self._make, self._steps = make, steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="medtune-data")
        _let_compute_alone(self._thread)
        self._coming: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """What the step reads; waits for it where it is not ready."""
        coming = self._coming if self._coming is not None and self._coming[0] == step else self._begin(step)
        made = coming[1].result()
        self._coming = self._begin(step + 1) if step + 1 < self._steps else None
        return made

    def _begin(self, step: int) -> tuple[int, Future[T]]:
        return step, self._thread.submit(self._make, step)

    def close(self) -> None:
        """End the thread, after what it is at."""
        self._thread.shutdown(cancel_futures=True)


def _let_compute_alone(thread: ThreadPoolExecutor) -> None:
    """Give the thread no helpers: with a second team, which OpenMP makes for large tensors, there are more threads than cores, and
    then the step's own no longer spin while they wait for each other but sleep; on two cores that took a fifth of a step's time."""

    def alone() -> None:
        torch.get_num_threads()  # takes over what holds for all threads, once
        torch.set_num_threads(1)

    threads = torch.get_num_threads()
    thread.submit(alone).result()
    torch.set_num_threads(threads)  # for all others
