"""Every method learns: on phantoms its loss falls within 60 steps, against an untrained twin with the same images and noise."""

from __future__ import annotations

from statistics import fmean

import pytest
from medtune.training.base import load_base
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.options import TrainOptions

STEPS, LAST = 60, 20
UNTRAINED = 1e-30
RATES = {"full": 1e-3, "attention": 3e-3, "cross-attention": 3e-3, "cross-kv": 5e-3, "bitfit": 1e-2, "norm": 1e-2, "difffit": 1e-2,
         "delta": 1e-3, "lora": 5e-3, "dora": 5e-3, "loha": 2e-2, "lokr": 1e-2, "oft": 1e-2, "boft": 1e-2, "vera": 5e-2, "ia3": 5e-2,
         "svdiff": 2e-2, "textual-inversion": 5e-2}
"""Learning rates that suit the embedded base, whose layers are small."""


@pytest.fixture(scope="module")
def losses(phantoms, tmp_path_factory):
    """A function (method, learning rate) -> the losses of a training of 60 steps; each is run once."""
    made = {}

    def run(name: str, lr: float) -> list[float]:
        if (name, lr) not in made:
            options = TrainOptions(steps=STEPS, lr=lr, batch=2, size=64, warmup=5, checkpoint_every=0, caption_dropout=0.0)
            folder = tmp_path_factory.mktemp("runs")
            made[name, lr] = train(load_base("embedded"), METHODS[name](), phantoms, options, runs=folder).losses
        return made[name, lr]

    return run


def test_a_rate_for_each():
    assert set(RATES) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_its_loss_falls(losses, name):
    words = METHODS[name]().words()  # a learnt word changes the captions, and with them the twin
    before = losses(name if words else "bitfit", UNTRAINED)
    after = losses(name, RATES[name])
    assert after[0] == pytest.approx(before[0], rel=1e-4), "the same images, noise and start"
    assert fmean(after[-LAST:]) < 0.995 * fmean(before[-LAST:])
