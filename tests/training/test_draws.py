"""What a step draws follows from the seed and its number alone."""

from __future__ import annotations

from collections import Counter

import torch
from medtune.training.draws import Draws, Order, derive_seed


def draws(seed=0, **settings):
    return Draws(Order([1] * 10, seed), 4, (4, 8, 8), 1000, seed, **settings)


def test_an_epoch_shows_each_image_as_often_as_it_repeats():
    order = Order([1, 3, 2], seed=5)
    assert len(order) == 6
    for epoch in range(3):
        assert Counter(order(epoch * 6, 6)) == {0: 1, 1: 3, 2: 2}


def test_each_epoch_is_another_shuffle():
    order = Order([1] * 50, seed=0)
    first, second = order(0, 50), order(50, 50)
    assert first != second and first != list(range(50))
    assert Order([1] * 50, seed=1)(0, 50) != first


def test_any_place_of_the_order_can_be_had_alone():
    whole = Order([1] * 7, seed=3)(0, 40)
    for start in (0, 5, 6, 7, 13, 26):
        assert Order([1] * 7, seed=3)(start, 9) == whole[start:start + 9]


def test_a_step_is_the_same_however_it_is_reached():
    settings = {"flips": True, "caption_dropout": 0.5, "posterior": True}
    running = draws(**settings)
    for step in range(6):
        drawn, alone = running(step), draws(**settings)(step)
        assert (drawn.indices, drawn.flipped, drawn.dropped) == (alone.indices, alone.flipped, alone.dropped)
        for name in ("timesteps", "noise", "posterior"):
            assert torch.equal(getattr(drawn, name), getattr(alone, name))


def test_steps_and_seeds_differ():
    noises = [draws()(0).noise, draws()(1).noise, draws(seed=1)(0).noise]
    assert all(not torch.equal(a, b) for a, b in zip(noises, noises[1:] + noises[:1]))
    assert derive_seed(0, "step", 1) != derive_seed(0, "order", 1)


def test_switching_flips_or_dropout_on_leaves_the_noise():
    assert torch.equal(draws()(3).noise, draws(flips=True, caption_dropout=0.5, posterior=True)(3).noise)


def test_shares_of_flips_and_dropped_captions():
    many = Draws(Order([1] * 10, 0), 2000, (1, 1, 1), 1000, 0, flips=True, caption_dropout=0.1)(0)
    assert 900 < sum(many.flipped) < 1100
    assert 150 < sum(many.dropped) < 250
    assert 0 <= many.timesteps.min() < 20 and 980 < many.timesteps.max() < 1000
    plain = draws()(0)
    assert not any(plain.flipped) and not any(plain.dropped) and plain.posterior is None
