"""Ahead: the same as without it, only sooner."""

from __future__ import annotations

import threading

import pytest
import torch
from medtune.training.prefetch import Ahead


@pytest.fixture
def made():
    return []


@pytest.fixture
def ahead(made):
    """Steps 0 to 9, each giving ten times its number; step 5 cannot be read."""

    def make(step):
        made.append((step, threading.current_thread() is threading.main_thread()))
        if step == 5:
            raise OSError("step 5 cannot be read")
        return 10 * step

    ahead = Ahead(make, 10)
    yield ahead
    ahead.close()


def test_each_step_gets_its_own_from_wherever_one_begins(ahead, made):
    assert [ahead(step) for step in (2, 3, 4)] == [20, 30, 40]
    assert ahead(8) == 80  # not the one that was coming
    assert ahead(9) == 90
    ahead.close()
    assert [step for step, _ in made] == [2, 3, 4, 5, 8, 9] and not any(main for _, main in made)


def test_the_next_step_is_ready_while_this_one_computes():
    ready = threading.Event()
    ahead = Ahead(lambda step: ready.set() if step == 1 else None, 3)
    ahead(0)
    assert ready.wait(10)
    ahead.close()


def test_an_error_is_raised_at_its_own_step(ahead):
    assert ahead(4) == 40
    with pytest.raises(OSError, match="step 5 cannot be read"):
        ahead(5)
    assert ahead(6) == 60


def test_nothing_is_made_beyond_the_last_step(ahead, made):
    assert ahead(9) == 90
    ahead.close()
    assert [step for step, _ in made] == [9]


def test_the_thread_ends(ahead):
    ahead(1)
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("medtune-data")]


def test_its_thread_computes_alone_and_the_others_as_before():
    held = torch.get_num_threads()
    torch.set_num_threads(2)
    ahead = Ahead(lambda step: torch.get_num_threads(), 2)
    try:
        assert [ahead(0), torch.get_num_threads(), ahead(1)] == [1, 2, 1]
    finally:
        ahead.close()
        torch.set_num_threads(held)
