"""The largest batch that fits into memory: a power of two, with a margin left.

Training steps are tried at growing sizes until the memory does not suffice. On the processor a step that is too large would end
the process, or slow the machine down, before it raised an error: there, small batches are tried, and what larger ones need follows
from them, since activations grow linearly with the batch.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from ..errors import ConfigError, MedTuneError
from . import processes

if TYPE_CHECKING:
    from .trainer import Trainer

MOST = 4096                     # as for a batch that is given
MARGIN = 0.15                   # share of the memory that is left free
VISIBLE = 64 * 2**20            # bytes: less than this is lost among what the process allocates anyway
_PAUSE = 0.002                  # seconds between two looks at the process's memory


@dataclass(frozen=True)
class Found:
    """The batch, and how it was come by as a sentence."""

    batch: int
    why: str


class Memory(Protocol):
    """What a device's memory holds. ``foresees``: a step that does not fit is not to be tried."""

    foresees: bool

    def room(self) -> int:
        """Bytes that training can have besides what it holds."""

    def taken(self, work: Callable[[], None]) -> int:
        """Bytes that the work took at its peak, besides what was held at the start."""


def memory_of(device: torch.device) -> Memory:
    """The memory of a device. Raises ConfigError where it cannot be measured."""
    if device.type == "cuda":
        return GpuMemory(device)
    if device.type == "cpu":
        return ProcessMemory()
    raise ConfigError(f"TrainOptions.batch is 0, and the memory of {device.type} cannot be measured; set a batch, such as 1 or 4")


def find_batch(attempt: Callable[[int], None], memory: Memory, *, most: int, fixed: int = 0, later: int = 0) -> Found:
    """The largest power of two up to ``most`` whose training step fits.

    Args:
        attempt: one forward and backward pass at the batch it is given; nothing of it stays.
        fixed: bytes that a step takes at any batch, as for the gradients.
        later: bytes that the first update will allocate for good, as for the optimiser's state.

    Raises MedTuneError when not even one image fits.
    """
    room = (1 - MARGIN) * memory.room() - later
    search = _Search(attempt, memory, room, fixed)
    batch, obstacle = 0, None
    for size in itertools.takewhile(lambda size: size <= most, (2**power for power in itertools.count())):
        obstacle = search.obstacle(size)
        if obstacle:
            break
        batch = size
    if not batch:
        raise MedTuneError(f"not even a batch of 1 fits into memory: {obstacle}, and there is room for {_gib(max(room, 0))}. Switch "
                           "gradient_checkpointing on, choose a smaller size, bf16 or a method that trains fewer weights, or close "
                           "other programs")
    why = obstacle or f"the data set shows {most} images in an epoch"
    return Found(batch, f"batch 0: {batch} was chosen ({why}; there is room for {_gib(room)} with {MARGIN:.0%} left free)")


def choose_batch(trainer: Trainer) -> int:
    """The batch of a run whose options leave it open: that which it was begun with, or the largest that fits, with a notice.

    On several processes it is the whole batch, as many times what fits the process with the least memory.
    """
    begun = trainer.run.read().get("batch")
    if begun:
        return begun
    accelerator, weights = trainer.accelerator, list(trainer.named.values())
    size, count = sum(weight.numel() * weight.element_size() for weight in weights), accelerator.num_processes
    most = min(sum(record.repeats for record in trainer.records), MOST) // count
    found = find_batch(lambda batch: trainer.rehearse(batch * count), memory_of(accelerator.device), most=most, fixed=size,
                       later=2 * size)
    batch = min(processes.gather([found.batch], accelerator))
    trainer.notices.append(found.why if count == 1 else f"{found.why}; {batch} on each of {count} processes")
    return batch * count


class _Search:
    """What was tried so far: bytes by batch."""

    def __init__(self, attempt: Callable[[int], None], memory: Memory, room: float, fixed: int):
        self.attempt, self.memory, self.room, self.fixed = attempt, memory, room, fixed
        self.tried: dict[int, int] = {}

    def obstacle(self, size: int) -> str | None:
        """Why a batch of this size does not fit, or None."""
        needed = self._foreseen(size) if self.memory.foresees else None
        if needed is None:
            most = 2 * self.tried.get(size // 2, self.fixed) - self.fixed
            if self.memory.foresees and most > self.room:
                return f"{size} may need {_gib(most)}"
            try:
                needed = self.tried[size] = self.memory.taken(lambda: self.attempt(size))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                return f"{size} ran out of memory"
        return f"{size} needs {_gib(needed)}" if needed > self.room else None

    def _foreseen(self, size: int) -> int | None:
        """Bytes that a batch needs, from the two largest that were tried; None before both stand out from the rest of the process."""
        if len(self.tried) < 2:
            return None
        (small, less), (large, more) = sorted(self.tried.items())[-2:]
        if less < VISIBLE:
            return None
        return round(more + max(more - less, 0) / (large - small) * (size - large))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or should_reduce_batch_size(error)


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


class GpuMemory:
    """A CUDA device's memory, of which this process is told exactly what it has."""

    foresees = False

    def __init__(self, device: torch.device):
        self.device = device

    def room(self) -> int:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def taken(self, work: Callable[[], None]) -> int:
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            work()
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_reserved(self.device) - held
        finally:
            gc.collect()
            torch.cuda.empty_cache()


class ProcessMemory:
    """The machine's memory, as far as this process may use it."""

    foresees = True

    def __init__(self):
        import psutil

        self._machine, self._process = psutil, psutil.Process()
        self._start = self._process.memory_info().rss

    def room(self) -> int:
        limits = [self._machine.virtual_memory().available, *_container_room()]
        with contextlib.suppress(ImportError):  # there is none on Windows
            import resource

            limit = resource.getrlimit(resource.RLIMIT_AS)[0]
            if limit != resource.RLIM_INFINITY:
                limits.append(limit - self._process.memory_info().vms)
        return max(min(limits), 0)

    def taken(self, work: Callable[[], None]) -> int:
        # measured against one start for all: what a small batch freed may be kept by the process, and is used again by a larger one
        highest = [self._process.memory_info().rss]
        with _repeatedly(lambda: highest.append(max(highest.pop(), self._process.memory_info().rss))):
            work()
        gc.collect()
        return max(highest[0] - self._start, 0)


@contextlib.contextmanager
def _repeatedly(look: Callable[[], None]) -> Iterator[None]:
    """Calls ``look`` every few milliseconds, in a thread, until the block ends."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_PAUSE):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _container_room() -> list[int]:
    """What a container's limit leaves, where there is one (Linux control groups of both versions)."""
    root, groups = Path("/sys/fs/cgroup"), []
    with contextlib.suppress(OSError):
        groups = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    files = []
    for path in ("", *(path.strip("/") for kinds, path in groups if kinds in ("", "memory"))):
        files += [(root / path / "memory.max", root / path / "memory.current"),
                  (root / "memory" / path / "memory.limit_in_bytes", root / "memory" / path / "memory.usage_in_bytes")]
    rooms = []
    for limit, used in files:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            rooms.append(int(limit.read_text()) - int(used.read_text()))
    return rooms
