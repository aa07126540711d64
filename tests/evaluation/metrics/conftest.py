"""What the tests of single metrics share: features as they might be, with records and captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medtune.data.record import Record
from medtune.evaluation.features import Features


def _normal(count: int, dims: int, seed: int, spread: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Correlated Gaussian features."""
    rng = np.random.default_rng(seed)
    return (spread * rng.normal(size=(count, dims)) @ rng.normal(size=(dims, dims)) / np.sqrt(dims) + shift).astype(np.float32)


def _captioned(count: int, captions: int, noise: float, seed: int, dims: int = 32) -> Features:
    """Images as their captions with noise, the captions taking turns."""
    texts = np.random.default_rng(99).normal(size=(captions, dims))[np.arange(count) % captions]
    values = 3 * texts + noise * np.random.default_rng(seed).normal(size=(count, dims))
    records = tuple(Record(Path(f"{index}.png"), f"caption {index % captions}", seed=index) for index in range(count))
    return Features(values.astype(np.float32), records, texts=texts.astype(np.float32))


@pytest.fixture(scope="session")
def normal():
    return _normal


@pytest.fixture(scope="session")
def captioned():
    return _captioned
