"""Metrics by name, as a command line or a node gives them."""

from __future__ import annotations

import pytest
from medtune.errors import ConfigError, UnknownName
from medtune.evaluation.metric import METRICS
from medtune.evaluation.selection import STANDARD, select_metrics


def test_names_in_their_order():
    assert [metric.name for metric in select_metrics()] == list(STANDARD)
    assert [metric.name for metric in select_metrics(" vendi,\nfrechet, vendi ")] == ["vendi", "frechet"]
    assert [metric.name for metric in select_metrics("all")] == list(METRICS)


def test_options_of_one_and_of_all():
    frechet, vendi = select_metrics("frechet, vendi", ["vendi.order=2", "groups=7"], least=9)
    assert vendi.config.order == 2 and {frechet.config.groups, vendi.config.groups} == {7}
    assert {frechet.config.least, vendi.config.least} == {9}


@pytest.mark.parametrize("names, options, error, said", [
    ("frechett", [], UnknownName, "did you mean 'frechet'"),
    ("frechet", ["vendi.order=2"], ConfigError, "the metrics are: frechet"),
    ("frechet", ["order=2"], ConfigError, "metric.order=2"),
    ("vendi", ["vendi.ordr=2"], ConfigError, "did you mean 'order'"),
    ("vendi", ["interval=student"], ConfigError, "jackknife, percentile, bca"),
])
def test_what_there_is_not(names, options, error, said):
    with pytest.raises(error, match=said):
        select_metrics(names, options)
