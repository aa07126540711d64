"""The batch finder: what it tries, foresees and chooses, on memory that is told and on the process's own."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from medtune.errors import ConfigError, MedTuneError
from medtune.training.batch_finder import MARGIN, ProcessMemory, find_batch, memory_of

MIB = 2**20


class Told:
    """A memory of so many bytes; a step takes ``fixed`` and ``each`` for every image."""

    def __init__(self, room, each, fixed=0, foresees=False):
        self._room, self.each, self.fixed, self.foresees, self.tried = room, each, fixed, foresees, []

    def room(self):
        return self._room

    def attempt(self, size):
        self.tried.append(size)
        if self.fixed + size * self.each > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def taken(self, work):
        work()
        return self.fixed + self.tried[-1] * self.each


@pytest.mark.parametrize("foresees", [False, True])
@pytest.mark.parametrize(("room", "each", "fixed", "most", "batch"), [
    (1000, 100, 0, 4096, 8),       # 8 take 800 of 850
    (1000, 110, 0, 4096, 4),       # 8 would fit, but for the margin
    (1000, 100, 200, 4096, 4),
    (1000, 100, 0, 6, 4),          # no more than the data set shows
    (1000, 100, 0, 1, 1),
    (1000, 1, 500, 4096, 256),
])
def test_it_chooses_the_largest_power_of_two_that_fits(foresees, room, each, *, fixed, most, batch):
    memory = Told(room * MIB, each * MIB, fixed * MIB, foresees)
    found = find_batch(memory.attempt, memory, most=most, fixed=fixed * MIB)
    assert found.batch == batch and f"{batch} was chosen" in found.why
    assert fixed * MIB + batch * each * MIB <= (1 - MARGIN) * room * MIB


def test_what_the_first_update_allocates_is_left_free():
    memory = Told(1000 * MIB, 100 * MIB)
    assert find_batch(memory.attempt, memory, most=64, later=500 * MIB).batch == 2


def test_where_too_much_would_end_the_process_it_is_foreseen_and_not_tried():
    memory = Told(10_000 * MIB, 70 * MIB, 30 * MIB, foresees=True)
    assert find_batch(memory.attempt, memory, most=4096).batch == 64
    assert memory.tried == [1, 2]
    small = Told(1000 * MIB, 70 * MIB, 400 * MIB, foresees=True)
    assert find_batch(small.attempt, small, most=4096).batch == 1
    assert small.tried == [1]  # 2 might need twice as much, and that is not there


def test_an_injected_out_of_memory_ends_the_search_and_another_error_goes_through():
    memory = Told(1000, 0)

    def attempt(size, error):
        memory.tried.append(size)
        if size == 4:
            raise error

    found = find_batch(lambda size: attempt(size, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")), memory,
                       most=64)
    assert found.batch == 2 and "4 ran out of memory" in found.why and memory.tried == [1, 2, 4]
    with pytest.raises(RuntimeError, match="a defect"):
        find_batch(lambda size: attempt(size, RuntimeError("a defect")), memory, most=64)


def test_not_even_one_image_is_an_error_with_remedies():
    memory = Told(1000 * MIB, 2000 * MIB)
    with pytest.raises(MedTuneError, match=r"not even a batch of 1.*gradient_checkpointing.*smaller size"):
        find_batch(memory.attempt, memory, most=64)


def test_a_device_that_cannot_be_measured_is_refused():
    with pytest.raises(ConfigError, match=r"batch is 0.*meta.*set a batch"):
        memory_of(torch.device("meta"))


def test_the_process_sees_what_work_takes_and_gives_back():
    def work():
        held = torch.ones(100 * MIB // 4).add_(1)
        time.sleep(1)  # a step lasts longer than the pause between two looks, also on a busy machine
        del held

    memory = ProcessMemory()
    taken = memory.taken(work)
    assert 95 * MIB < taken < 160 * MIB
    assert 0 < memory.room() < 2**50


LIMITED = """
import resource, psutil, torch
from medtune.training.batch_finder import ProcessMemory, find_batch
held = psutil.Process().memory_info().vms
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (held + limit, held + limit))
memory = ProcessMemory()
memory.foresees = foresees
def attempt(size):
    torch.ones(size * 100 * 2**20 // 4).add_(1)
print(find_batch(attempt, memory, most=16).batch)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on a process's memory is Linux's")
@pytest.mark.parametrize(("limit", "foresees", "batch"), [(1000, True, 8), (600, True, 4), (600, False, 4), (300, True, 2)])
def test_a_real_limit_on_the_process_is_kept(limit, foresees, batch):
    """100 MiB an image: the limit is foreseen, or run into (torch's own allocation fails) where that is asked for."""
    script = f"limit, foresees = {limit} * 2**20, {foresees}\n{LIMITED}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(batch), done.stderr[-2000:]
