"""The benchmark itself: loops in processes of their own that take turns, and the tables that come of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import bench
import table

STEPS = [[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]]


@pytest.fixture(scope="module")
def rows(base_file, phantom_folder, tmp_path_factory):
    """Two rounds of two steps of the bare loop and of MedTune's own on one small image, and a loop that cannot run."""
    job = {"base": str(base_file), "data": str(phantom_folder), "images": 1, "batch": 1, "size": 64, "cache": "memory",
           "precision": "fp32", "compile": False, "config": {}, "device": "cpu", "threads": 1, "method": "bitfit"}
    rows = [bench.Row(loop, {**job, "loop": loop, **changes}, loop == "bare")
            for loop, changes in (("bare", {}), ("ours", {}), ("pressure", {"method": "no-such-method"}))]
    bench.measure(rows, 2, 2, tmp_path_factory.mktemp("bench"))
    return rows


def test_loops_take_turns_and_say_what_they_took(rows):
    for row in rows[:2]:
        assert not row.error and [len(steps) for steps in row.rounds] == [2, 2]
        assert all(0 < clock < 60 and 0 < processor < 60 for steps in row.rounds for clock, processor in steps)
        assert 2**27 < row.facts["peak"] < 2**35
    assert rows[0].facts["trained"] == rows[1].facts["trained"] > 0


def test_a_loop_that_fails_says_why_and_the_others_go_on(rows):
    assert "no-such-method" in rows[2].error and not rows[2].rounds
    failed = table.figures(rows)[2]
    assert "no-such-method" in failed["error"] and "seconds" not in failed


def arguments():
    return argparse.Namespace(base="embedded", rounds=2, block=3, threads=2, precision="fp32")


def row(title, rounds, reference=False):
    return bench.Row(title, {"batch": 4}, reference, rounds=rounds, facts={"peak": 2**30, "trained": 10})


def test_ratios_are_paired_by_round(tmp_path):
    slow_machine = [[10 * clock, 10 * processor] for clock, processor in STEPS]
    bare = row("bare", [STEPS, slow_machine, STEPS], True)
    ours = row("ours", [[[2 * clock, 2 * processor] for clock, processor in steps] for steps in bare.rounds])
    ours.rounds[2] = STEPS
    found = table.figures([bare, ours])
    assert found[0]["ratio"] == 1 and found[1]["ratio"] == 0.5
    assert found[0]["seconds"] == 3 and found[1]["images a second"] == pytest.approx(4 / found[1]["seconds"])
    text = table.markdown({**table_of(tmp_path, {"full": bench.Group("Full", [bare, ours])})["full"]})
    assert "| ours | 10 |" in text and "| 50.0% | 50.0% | 1,024 MiB |" in text


def table_of(folder, measured):
    table.write_results(folder, measured, ["full", "lora"], arguments())
    return json.loads((folder / "results.json").read_text())


def test_groups_that_are_not_measured_again_stay_in_their_order(tmp_path):
    table_of(tmp_path, {"lora": bench.Group("LoRA", [row("bare", [STEPS], True)])})
    results = table_of(tmp_path, {"full": bench.Group("Full", [row("bare", [STEPS], True)])})
    assert list(results) == ["full", "lora"]
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.index("## Full") < text.index("## LoRA") and "threads" in text
