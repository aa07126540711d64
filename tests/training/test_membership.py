"""Losses by which trained images are told from others: those of the objective, the same whatever the batch, and of the right data."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from medtune.data.identity import hash_records
from medtune.data.image import hash_image, read_image
from medtune.errors import ConfigError, DataError
from medtune.training.adapter import read_adapter
from medtune.training.base import load_base
from medtune.training.loop import train
from medtune.training.membership import MembershipOptions, denoising_losses, membership_losses, membership_noise, trained_with
from medtune.training.method import METHODS
from medtune.training.options import TrainOptions

QUICK = MembershipOptions(draws=4, size=64)


@pytest.fixture(scope="module")
def sets(phantoms):
    """Six images to train on and twelve of other patients, small pictures."""
    return phantoms[:6], phantoms[6:18]


@pytest.fixture(scope="module")
def overfitted(sets, tmp_path_factory):
    """The file of a training that saw six images again and again."""
    options = TrainOptions(steps=60, lr=1e-3, batch=6, size=64, caption_dropout=0.0, checkpoint_every=0)
    runs = tmp_path_factory.mktemp("runs")
    return read_adapter(train(load_base("embedded"), METHODS["full"](), sets[0], options, runs=runs).adapter)


def auc(losses, score):
    from sklearn.metrics import roc_auc_score

    return roc_auc_score([image.split == "train" for image in losses.images], [-score(image) for image in losses.images])


def test_losses_are_the_objectives(sets, base):
    """By hand: the base's own latents and text, diffusers' own noise arithmetic, one image at a time."""
    from diffusers import DDPMScheduler

    records = sets[0][:2]
    found = denoising_losses(base, records, [record.caption for record in records], QUICK)
    assert found.shape == (2, 4)
    noises, timesteps = membership_noise((4, 8, 8), 1000, QUICK)
    assert timesteps.tolist() == [125, 375, 625, 875]
    scheduler = DDPMScheduler.from_config({key: value for key, value in base.scheduler_config.items() if not key.startswith("_")})
    for row, record in enumerate(records):
        with torch.no_grad():
            latents, states = base.encode_images(read_image(record.image, 64)[None]), base.encode_prompts([record.caption])
            for draw in range(4):
                noise, timestep = noises[draw:draw + 1], timesteps[draw:draw + 1]
                mixed = scheduler.add_noise(latents, noise, timestep)
                wanted = noise if base.prediction == "epsilon" else scheduler.get_velocity(latents, noise, timestep)
                answer = base.unet(mixed, timestep, encoder_hidden_states=states).sample
                assert found[row, draw].item() == pytest.approx((answer - wanted).square().mean().item(), rel=1e-4)


def test_an_image_has_its_loss_whatever_its_neighbours(sets, base):
    records = [*sets[0], *sets[1]]
    captions = [record.caption for record in records]
    whole = denoising_losses(base, records, captions, QUICK)
    part = denoising_losses(base, records[::-1][:5], captions[::-1][:5], MembershipOptions(draws=4, size=64, batch=2))
    torch.testing.assert_close(part, whole.flip(0)[:5], rtol=1e-4, atol=1e-5)
    other = denoising_losses(base, records[:1], captions[:1], MembershipOptions(draws=4, size=64, seed=1))
    assert not torch.allclose(other, whole[:1], rtol=1e-4)


def test_an_adapter_that_changes_nothing_tells_nothing(sets, base, trained_file):
    adapter = read_adapter(trained_file("bitfit", moved=0.0))
    losses = membership_losses(base, [adapter], *sets, MembershipOptions(draws=2, size=64, other_data=True))
    assert [image.loss for image in losses.images] == [image.base_loss for image in losses.images]
    assert auc(losses, lambda image: image.loss - image.base_loss) == 0.5
    assert [image.split for image in losses.images] == ["train"] * 6 + ["held-out"] * 12
    assert [image.image for image in losses.images] == [hash_image(record.image) for record in [*sets[0], *sets[1]]]


def test_an_overfitted_adapter_gives_its_images_away(sets, overfitted, record_property):
    calls = []
    losses = membership_losses(load_base("embedded"), [overfitted], *sets, MembershipOptions(draws=8, size=64),
                               on_progress=lambda *call: calls.append(call))
    value = auc(losses, lambda image: image.loss - image.base_loss)
    record_property("measured", {"AUC of membership, overfitted": value})
    assert value > 0.8
    assert calls == [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    kept = json.loads(json.dumps(losses.to_json(), allow_nan=False))
    assert kept["images"][0].keys() == {"image", "file", "patient", "split", "loss", "base_loss"}
    assert kept["adapters"][0]["data_hash"] == hash_records(sets[0])
    assert kept["base"]["notice"] in kept["notices"]


def test_a_cache_on_disk_changes_nothing(sets, base, tmp_path):
    captions = [record.caption for record in sets[0]]
    plain = denoising_losses(base, sets[0], captions, QUICK)
    for _ in range(2):
        assert torch.equal(denoising_losses(base, sets[0], captions, QUICK, cache=tmp_path), plain)


def test_other_data_than_the_adapter_names_is_refused(sets, base, trained_file):
    adapter, (train, held_out) = read_adapter(trained_file("bitfit")), sets
    with pytest.raises(DataError, match=r"trained on other data \(abababababab\) than these 5 images"):
        membership_losses(base, [adapter], train[:5], held_out, QUICK)
    allowed = membership_losses(base, [adapter], train[:1], held_out[:1], MembershipOptions(draws=1, size=64, other_data=True))
    assert any("other data" in notice for notice in allowed.notices)
    foreign = dataclasses.replace(adapter, header={})
    trusted = membership_losses(load_base("embedded"), [foreign], train[:1], held_out[:1], MembershipOptions(draws=1, size=64))
    assert any("taken on trust" in notice for notice in trusted.notices)
    assert [image.loss for image in trusted.images] == [image.loss for image in allowed.images]


def test_sizes_are_those_of_the_training(trained_file):
    assert trained_with([read_adapter(trained_file("bitfit"))]) == {"size": 64} and trained_with([]) == {}


@pytest.mark.parametrize("trained, held_out, words", [
    (slice(0, 0), slice(0, 4), "0 training and 4 held-out"), (slice(0, 4), slice(0, 0), "4 training and 0 held-out"),
    (slice(0, 4), slice(2, 6), "2 images are among both")])
def test_sets_that_cannot_be_compared_are_refused(phantoms, base, trained, held_out, words):
    with pytest.raises(DataError, match=words):
        membership_losses(base, [], phantoms[trained], phantoms[held_out], QUICK)


def test_settings_are_checked(sets, base):
    with pytest.raises(ConfigError, match="draws is 0"):
        membership_losses(base, [], *sets, MembershipOptions(draws=0))
