"""The moving average, against its formula."""

from __future__ import annotations

import pytest
import torch
from medtune.training.ema import MovingAverage


def test_average_follows_its_formula():
    weight = torch.nn.Parameter(torch.zeros(3))
    average, expected = MovingAverage({"w": weight}, 0.9), torch.zeros(3)
    for step in range(1, 200):
        weight.data.fill_(float(step))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.shadow["w"], expected)


def test_weights_are_back_after_the_block_even_when_it_fails():
    weight = torch.nn.Parameter(torch.ones(2))
    average = MovingAverage({"w": weight}, 0.5)
    weight.data.fill_(3.0)
    average.update(1)
    with pytest.raises(KeyError), average.adopted():
        assert torch.equal(weight, average.shadow["w"]) and (weight < 3).all()
        raise KeyError
    assert (weight == 3).all()
    average.adopt()
    assert (weight < 3).all()
