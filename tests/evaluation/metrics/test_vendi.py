"""The Vendi score against its package and counts that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medtune.data.record import Record
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric
from medtune.evaluation.metrics.vendi import vendi_score
from medtune.evaluation.run import score_classes


@pytest.mark.parametrize("shape", [(40, 40), (64, 64), (200, 16)])
@pytest.mark.parametrize("order", [0.1, 0.5, 1.0, 2.0, 40.0, np.inf])
def test_vendi_equals_the_package(normal, shape, order):
    from vendi_score.vendi import score_dual

    values = normal(*shape, 1).astype(float)
    assert vendi_score(values, order) == pytest.approx(score_dual(values, q="inf" if order == np.inf else order), rel=1e-6)


def test_vendi_counts():
    assert vendi_score(np.eye(12)) == pytest.approx(12)
    assert vendi_score(np.repeat(np.eye(4), 5, axis=0)) == pytest.approx(4)
    assert vendi_score(np.ones((9, 3))) == pytest.approx(1)


def test_zero_features_are_a_reason_for_vendi(normal):
    values = normal(20, 4, 1)
    values[2] = 0
    score = make_metric("vendi").score(Features(values), Features(values))
    assert score.value is None and "1 images" in score.reason


def test_vendi_of_fewer_images_than_dimensions_is_that_of_their_cosines(normal):
    from vendi_score.vendi import score_X

    values = normal(40, 64, 1).astype(float)
    assert vendi_score(values) == pytest.approx(score_X(values), rel=1e-6)


@pytest.mark.parametrize("order", [0.1, 0.5, 1.0, 2.0, np.inf])
def test_every_order_counts_kinds_that_share_nothing(order):
    """Fewer kinds than images and than dimensions: what rounding leaves of the other eigenvalues counts for nothing."""
    assert vendi_score(np.repeat(np.eye(30)[:5], 8, axis=0), order) == pytest.approx(5, rel=1e-6)


def test_the_orders_weigh_rare_kinds():
    """Shares of 6/10, 3/10 and 1/10: at order infinity one over the largest, below it more."""
    values = np.repeat(np.eye(3), [6, 3, 1], axis=0).astype(np.float32)
    scores = [make_metric("vendi", order=order).score(Features(values), Features(values)).value for order in (0.1, 1.0, 2.0)]
    largest = make_metric("vendi", infinite=True).score(Features(values), Features(values)).value
    assert scores[0] > scores[1] > scores[2] > largest == pytest.approx(10 / 6)
    assert scores[2] == pytest.approx(1 / (0.36 + 0.09 + 0.01)) and scores[1] == pytest.approx(np.exp(-(0.6 * np.log(0.6) + 0.3
                                                                                               * np.log(0.3) + 0.1 * np.log(0.1))))


def test_vendi_by_class(normal):
    """Each class's own, of the images that have the label, and their mean."""
    values = np.concatenate([np.repeat(np.eye(8)[:2], 10, axis=0), np.repeat(np.eye(8)[4:], 5, axis=0)]).astype(np.float32)
    records = tuple(Record(Path(f"{index}.png"), "", ("A",) if index < 20 else ("B",)) for index in range(40))
    features = Features(values, records)
    scores = {score.label: score.value for score in score_classes(make_metric("vendi"), features, features)}
    assert scores["A"] == pytest.approx(2) and scores["B"] == pytest.approx(4) and scores["mean over labels"] == pytest.approx(3)
