"""Which real images a share of the patients holds, and which trainings a study consists of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from medtune.data.record import Record
from medtune.errors import ConfigError
from medtune.evaluation.downstream.protocol import (
    MIXED,
    PROTOCOLS,
    REAL,
    SYNTHETIC,
    check_ratios,
    draw_count,
    draw_fraction,
    make_cells,
    read_fractions,
)


def records(patients=200, images=3, rare=0.1):
    return [Record(Path(f"{patient}-{image}.png"), "", ("Rare",) if patient < rare * patients else ("Common",), str(patient))
            for patient in range(patients) for image in range(images)]


@pytest.mark.parametrize("seed", range(3))
def test_smaller_parts_lie_within_larger_ones_and_hold_whole_patients(seed):
    everything, former = records(), set()
    for fraction in (0.01, 0.05, 0.1, 0.25, 1.0):
        drawn = draw_fraction(everything, fraction, seed)
        patients = Counter(everything[index].patient for index in drawn)
        assert len(patients) == round(200 * fraction) and set(patients.values()) == {3}
        assert former <= set(drawn) == set(draw_fraction(everything, fraction, seed))
        former = set(drawn)
    assert len(former) == 600


def test_a_part_holds_each_kind_of_patient_in_its_share():
    everything = records()
    for seed in range(20):
        rare = sum(everything[index].labels == ("Rare",) for index in draw_fraction(everything, 0.1, seed))
        assert rare == 2 * 3  # 2 of the 20 patients, as 20 of the 200
    assert draw_fraction(everything, 0.05, 0) != draw_fraction(everything, 0.05, 1)


def test_each_patient_is_as_likely_as_another():
    everything = records(40, 1, rare=0.3)
    drawn = Counter(index for seed in range(400) for index in draw_fraction(everything, 0.25, seed))
    assert len(drawn) == 40
    assert max(abs(count - 100) for count in drawn.values()) < 40  # 4.6 standard deviations of a binomial


def test_at_least_one_patient_is_drawn_and_images_without_one_stand_alone():
    assert len(draw_fraction(records(20), 0.001, 0)) == 3
    alone = [Record(Path(f"{index}.png"), "", ("A",)) for index in range(10)]
    assert len(draw_fraction(alone, 0.3, 0)) == 3 and len(draw_count(alone, 7, 0)) == 7
    assert draw_fraction([], 1.0, 0) == [] == draw_fraction(alone, 0.0, 0)


def test_a_study_is_every_protocol_with_every_set_ratio_fraction_and_seed():
    cells = make_cells(tuple(PROTOCOLS), ("lora", "full"), ratios=("1", "all"), fractions=(0.05, 1.0), seeds=3)
    found = Counter(cell.protocol for cell in cells)
    assert found[REAL] == 2 * 3 and found[SYNTHETIC] == 2 * 3 and found[MIXED] == 2 * 2 * 2 * 3
    assert len({(cell.contender, cell.fraction, cell.seed) for cell in cells}) == len(cells)
    assert {cell.contender for cell in cells if cell.protocol == MIXED} == {
        "real+synthetic 1:1 (lora)", "real+synthetic 1:1 (full)", "real+synthetic all (lora)", "real+synthetic all (full)"}


def test_percentages_and_ratios_are_read_or_refused():
    assert read_fractions(("100", "5 %", "0.5", "5")) == [0.005, 0.05, 1.0]
    assert check_ratios(("all", "2", "all")) == ["all", "2"]
    for words in (("0",), ("101",), ("some",), ("nan",), ()):
        with pytest.raises(ConfigError, match=r"percentages|above 0"):
            read_fractions(words)
    for words in (("0",), ("-1",), ("most",), ("nan",), ()):
        with pytest.raises(ConfigError, match="all"):
            check_ratios(words)
