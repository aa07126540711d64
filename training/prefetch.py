"""What a step reads, made ready in a thread while the step before it computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Step number -> what ``make`` gives for it. That of the following step is being made meanwhile, one at a time.

    ``make`` must follow from the step alone, and draw nothing from global generators: then threads change nothing in what a step
    gets. What it raises is raised where its step is asked for. ``steps`` is how many there are, counted from 0.
    """

    def __init__(self, make: Callable[[int], T], steps: int):
        self._make, self._steps = make, steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="medtune-data")
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
