"""Counts on networks without weights, against methods attached to real ones and against the figures of the literature."""

from __future__ import annotations

import pytest
import torch
from medtune.errors import Missing, ModelError
from medtune.training.base import load_base
from medtune.training.count import count, count_all, empty_base
from medtune.training.method import METHODS


@pytest.fixture(scope="module")
def sd1():
    return empty_base("sd1")


def test_counts_are_those_of_a_base_with_weights(base_file):
    counts = count_all(base_file)
    for name, entry in METHODS.items():
        base, method = load_base("embedded"), entry()
        method.attach(base, torch.Generator().manual_seed(0))
        assert counts[name] == method.count(base), name
    assert counts == count_all("embedded")


@pytest.mark.parametrize(("name", "settings", "expected"), [
    ("full", {}, 859_520_964), ("full", {"parts": "unet+text-encoder+vae"}, 859_520_964 + 123_060_480 + 83_653_863),
    ("bitfit", {}, 343_684), ("norm", {}, 200_320), ("lora", {"rank": 8}, 1_594_368), ("dora", {"rank": 8}, 1_594_368 + 99_840),
])
def test_counts_on_stable_diffusion_15(sd1, name, settings, expected):
    entry = METHODS[name]
    assert count(entry(entry.Config(**settings)), sd1) == expected


def test_counting_leaves_the_base_as_it_is(sd1):
    names = list(dict(sd1.unet.named_parameters()))
    count(METHODS["lora"](), sd1)
    assert list(dict(sd1.unet.named_parameters())) == names
    assert not any(parameter.requires_grad for parameter in sd1.unet.parameters())


def test_what_is_not_a_base(tmp_path):
    with pytest.raises(Missing, match=r"no base 'sd3'; give sd1, sd2, embedded, a \.safetensors checkpoint, or a diffusers folder"):
        empty_base("sd3")
    (tmp_path / "x.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="web page"):
        empty_base(tmp_path / "x.safetensors")
