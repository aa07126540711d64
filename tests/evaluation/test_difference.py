"""Differences of scores: what is shared drops out, and what they say of false alarms and power holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medtune.data.record import Record
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric
from medtune.evaluation.uncertainty.difference import difference


def drawn(values: np.ndarray, seeded: bool = True) -> Features:
    """Generated images of one prompt, each with its seed."""
    return Features(values, tuple(Record(Path(f"{i}.png"), "a", seed=i if seeded else None) for i in range(len(values))))


def test_what_is_shared_drops_out():
    """Two arms that differ by little, drawn from the same seeds: each figure is uncertain, their difference is not."""
    rng = np.random.default_rng(0)
    real, base = Features(rng.normal(size=(80, 6))), rng.normal(size=(60, 6)) + 0.5
    first, second = (make_metric("kid").score(real, drawn(values)) for values in (base, base + 0.1))
    found = difference(second, first)
    assert first.low < second.value < first.high  # alone, they overlap
    assert found.holds and found.low > 0 and found.value == pytest.approx(second.value - first.value)
    apart = difference(second, replace(first, fake_key="another"))
    assert apart.high - apart.low > 1.5 * (found.high - found.low) and apart.value == found.value
    back = difference(first, second)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low)) and back.p == found.p


def test_false_alarms_and_power():
    """Of arms that do not differ about a twentieth seem to; of arms that differ by what is detectable about four fifths."""
    alarms, p_values, sizes = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        real = Features(rng.normal(size=(60, 4)))
        scores = [make_metric("kid").score(real, drawn(rng.normal(size=(60, 4)) + 0.5, seeded=False)) for _ in range(2)]
        found = difference(*scores)
        alarms.append(found.holds)
        p_values.append(found.p)
        sizes.append((found.value, found.detectable))
    assert 0.01 <= np.mean(alarms) <= 0.1
    assert np.mean(np.asarray(p_values) < 0.05) == pytest.approx(np.mean(alarms))
    error = np.std([value for value, _ in sizes])
    assert np.mean([size for _, size in sizes]) / error == pytest.approx(1.96 + 0.84, rel=0.2)


def test_what_cannot_be_compared():
    rng = np.random.default_rng(0)
    real, fake = Features(rng.normal(size=(30, 4))), Features(rng.normal(size=(30, 4)))
    kid, vendi = (make_metric(name).score(real, fake) for name in ("kid", "vendi"))
    with pytest.raises(ValueError, match="not one figure"):
        difference(kid, vendi)
    assert difference(kid, make_metric("kid", groups=0).score(real, fake)) is None
    assert difference(kid, make_metric("kid").score(real, fake.pick(range(3)))) is None
