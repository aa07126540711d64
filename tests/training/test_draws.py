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


def test_what_an_objective_draws_leaves_all_else():
    plain, rich = draws()(3), draws(input_perturbation=0.1, variants=5)(3)
    assert torch.equal(plain.noise, rich.noise) and torch.equal(plain.timesteps, rich.timesteps) and plain.indices == rich.indices
    assert plain.shown_noise is None and plain.variants is None
    shifted = draws(noise_offset=0.5, input_perturbation=0.1)(3)
    torch.testing.assert_close(shifted.shown_noise - shifted.noise, rich.shown_noise - rich.noise, rtol=1e-4, atol=1e-6)


def test_the_offset_is_one_value_a_channel():
    plain, shifted = draws()(3), draws(noise_offset=0.5)(3)
    offset = shifted.noise - plain.noise
    torch.testing.assert_close(offset, offset[:, :, :1, :1].expand_as(offset))
    many = Draws(Order([1] * 10, 0), 2000, (4, 1, 1), 1000, 0)
    offsets = Draws(Order([1] * 10, 0), 2000, (4, 1, 1), 1000, 0, noise_offset=0.5)(0).noise - many(0).noise
    assert 0.48 < offsets.std() < 0.52 and abs(offsets.mean()) < 0.02


def test_the_perturbation_has_its_deviation():
    drawn = Draws(Order([1] * 10, 0), 200, (4, 8, 8), 1000, 0, input_perturbation=0.1)(0)
    further = drawn.shown_noise - drawn.noise
    assert 0.098 < further.std() < 0.102
    assert abs((further * drawn.noise).mean()) < 0.002  # it has nothing to do with the noise


def test_variants_are_all_drawn():
    assert set(Draws(Order([1] * 10, 0), 200, (1, 1, 1), 1000, 0, variants=3)(0).variants) == {0, 1, 2}


def test_parts_and_joins_keep_every_image_together():
    drawn = draws(flips=True, caption_dropout=0.5, posterior=True, input_perturbation=0.1, variants=3)(2)
    whole = drawn.part(slice(0, 1)).joined(drawn.part(slice(1, 4)))
    for name, value in vars(drawn).items():
        kept = getattr(whole, name)
        assert torch.equal(kept, value) if isinstance(value, torch.Tensor) else kept == value
    plain = draws()(0)
    assert plain.part(slice(1, 3)).noise.shape == (2, 4, 8, 8) and plain.joined(plain).posterior is None


def test_indices_can_count_from_another_number():
    assert sorted(Order([1, 2], 0, first=10)(0, 3)) == [10, 11, 11]
