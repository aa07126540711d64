"""Latents and text states that were made elsewhere are found by training, which encodes nothing."""

import dataclasses

import pytest
import torch
from medtune.errors import ConfigError
from medtune.files import cache_folder
from medtune.training.cache import cache_latents, cache_text
from medtune.training.options import TrainOptions
from medtune.training.prepared import prepare_records

OPTIONS = TrainOptions(size=64, fit="none", cache="disk", batch=2, steps=1)


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple([torch.randn(shape, generator=generator) for _ in range(3)] for shape in ((4, 8, 8), (77, 64)))


def test_training_finds_every_entry(base, tmp_path, monkeypatch):
    latents, states = tensors()
    records = prepare_records(base, latents, states, OPTIONS, tmp_path)

    def refuse(*_, **__):
        raise AssertionError("something was encoded")

    monkeypatch.setattr(base, "posterior", refuse)
    found = cache_latents(base, records, cache_folder() / "training", size=64, fit="none")
    assert torch.equal(found.batch([0, 1, 2], [False] * 3), torch.stack(latents))
    captions = [record.caption for record in records]
    cache_text(base, [], cache_folder() / "training")  # the empty caption
    monkeypatch.setattr(base, "encode_prompts", refuse)
    assert torch.equal(cache_text(base, captions, cache_folder() / "training").batch(captions), torch.stack(states))


def test_other_tensors_are_another_data_set_and_the_same_are_the_same(base, tmp_path):
    first, again, other = (prepare_records(base, *tensors(seed), OPTIONS, tmp_path) for seed in (0, 0, 1))
    assert first == again
    assert {record.image.parent for record in other}.isdisjoint(record.image.parent for record in first)


@pytest.mark.parametrize("change", [{"cache": "memory"}, {"flips": True}, {"posterior": "sample"}])
def test_options_that_would_encode_again_are_refused(base, tmp_path, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        prepare_records(base, *tensors(), dataclasses.replace(OPTIONS, **change), tmp_path)
