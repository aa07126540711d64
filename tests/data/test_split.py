"""Patient-disjoint parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from medtune.data.record import Record
from medtune.data.split import FRACTIONS, check_split, select, split, split_name
from medtune.errors import ConfigError, DataError


def some_records(count: int = 400) -> list[Record]:
    """Patients with one to six images; one finding is common, one rare."""
    rng = np.random.default_rng(0)
    patients = np.sort(rng.choice(count // 3, count))
    odds = {"A": 0.5, "B": 0.06}
    return [Record(Path(f"{i}.png"), "", tuple(label for label in odds if rng.random() < odds[label]), f"p{patient}")
            for i, patient in enumerate(patients)]


def test_no_patient_is_in_two_parts_and_labels_are_spread():
    records = split(some_records(), FRACTIONS, seed=3)
    check_split(records)
    sizes = Counter(record.split for record in records)
    for name, fraction in FRACTIONS.items():
        assert sizes[name] == pytest.approx(fraction * 400, abs=8)
        for label in "AB":
            total = sum(label in record.labels for record in records)
            assert sum(label in record.labels for record in records if record.split == name) == pytest.approx(fraction * total, abs=3)


def test_the_seed_decides_and_nothing_else_changes():
    before = some_records()
    one, two, other = split(before, seed=1), split(before, seed=1), split(before, seed=2)
    assert one == two != other
    assert [record.image for record in one] == [record.image for record in before]


def test_records_without_a_patient_are_their_own():
    records = [Record(Path(f"{i}.png"), "", ("A",)) for i in range(20)]
    assert Counter(record.split for record in split(records)) == {"train": 16, "val": 2, "test": 2}


def test_few_patients_still_fill_each_part():
    records = [Record(Path(f"{i}.png"), "", ("A",), f"p{i}") for i in range(3)]
    assert {record.split for record in split(records)} == set(FRACTIONS)
    with pytest.raises(DataError, match=r"1 patients \(1 images\) cannot fill 3 parts"):
        split(records[:1])
    assert split(records[:1], {"train": 1.0})[0].split == "train"


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": float("nan"), "test": 1.0}])
def test_fractions_that_are_not(fractions):
    with pytest.raises(ConfigError, match="add up to 1"):
        split(some_records(30), fractions)


def test_a_patient_in_two_splits_is_refused_by_name_and_count():
    placed = [("anna", "train"), ("anna", "test"), ("anna", "test"), ("bo", "train"), ("cy", "test"), (None, "train"), (None, "test"),
              ("bo", None)]
    records = [Record(Path(f"{i}.png"), "", (), patient, name) for i, (patient, name) in enumerate(placed)]
    with pytest.raises(DataError, match=r"1 patients with 3 images.*anna in test and train"):
        check_split(records)
    check_split(records[2:])


def test_select_lists_the_splits_that_there_are():
    records = split(some_records(60))
    assert all(record.split == "val" for record in select(records, "val"))
    with pytest.raises(DataError, match=r"'dev'.*test \(\d+\), train \(\d+\), val \(\d+\)"):
        select(records, "dev")


def test_names_of_splits():
    names = {"Train": "train", "valid": "val", "validation": "val", "TEST": "test", "fold 3": "fold 3"}
    assert {name: split_name(name) for name in names} == names
