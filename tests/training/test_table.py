"""Label tables and the prompts made from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from medtune.data.classes import EYES, RETINOPATHY
from medtune.data.record import Record
from medtune.errors import DataError, UnknownName
from medtune.training.table import balanced_table, prompts_from_records, prompts_from_table, read_table, table_from_records

TABLE = "labels,count\nEdema|Cardiomegaly,2\n,3\n\nPneumonia,1\n"
ROWS = [(("Cardiomegaly", "Edema"), 2), ((), 3), (("Pneumonia",), 1)]


def records(*label_sets: tuple[str, ...]) -> list[Record]:
    return [Record(Path(f"{index}.png"), f"caption {index}", labels) for index, labels in enumerate(label_sets)]


def test_read_from_text_and_from_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\ufeff" + TABLE, encoding="utf-8")
    assert read_table(TABLE) == ROWS
    assert read_table(path) == read_table(str(path)) == ROWS


@pytest.mark.parametrize("text, words", [
    ("finding,count\nEdema,1\n", ("finding, count", "labels,count")),
    ("labels,count\nEdema,1\nEdema,2,3\n", ("row 3", "3 cells")),
    ("labels,count\nEdema,-1\nPneumonia,1.5\nNodule,0\n", ("3 rows", "'-1'", "'1.5'", "'0'")),
    ("labels,count\nEdema|Nodule,1\nNodule|Edema,2\n", ("row 3", "row 2 again")),
    ("labels,count\n\n", ("no rows",)),
])
def test_unusable_tables_are_refused(text, words):
    with pytest.raises(DataError) as error:
        read_table(text)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_table(tmp_path / "nowhere.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_table(tmp_path / "image.csv")


def test_prompts_take_turns_and_count_up():
    prompts = prompts_from_table(ROWS, seed=7)
    assert Counter(prompt.labels for prompt in prompts) == dict(ROWS)
    assert [prompt.seed for prompt in prompts] == list(range(7, 13))
    assert len({prompt.labels for prompt in prompts[:3]}) == 3
    assert "edema" in prompts[0].text.lower() and "cardiomegaly" in prompts[0].text.lower()


def test_a_table_from_records_balances_the_classes():
    data = records(*[("A",)] * 50, *[("B",)] * 5, *[("B", "C")] * 5, ())
    table = table_from_records(data, 40)
    totals = Counter()
    for labels, count in table:
        totals.update(dict.fromkeys(labels or ("none",), count))
    assert sum(count for _, count in table) == 40
    assert totals["A"] == totals["none"] and abs(totals["A"] - totals["C"]) <= 1
    assert {labels for labels, _ in table} <= {record.labels for record in data}


def test_tables_of_closed_lists():
    prompts = prompts_from_table(balanced_table("isic", 3), "isic")
    assert len(prompts) == 24 and set(Counter(prompt.labels for prompt in prompts).values()) == {3}
    assert {prompt.text for prompt in prompts[:8]} == {prompt.text for prompt in prompts}  # in turn
    assert "a dermoscopic image with dermatofibroma (DF)" in {prompt.text for prompt in prompts}
    prompts = prompts_from_table(balanced_table("retinopathy", 2), "retinopathy")
    totals = Counter(label for prompt in prompts for label in prompt.labels)
    assert totals == dict.fromkeys(RETINOPATHY, 4) | dict.fromkeys(EYES.values(), 10)
    with pytest.raises(UnknownName, match=r"closed list of classes 'chest-xray'; there are: isic, retinopathy"):
        balanced_table("chest-xray", 1)
    with pytest.raises(DataError, match="0 images of each class"):
        balanced_table("isic", 0)


def test_levels_are_balanced_whatever_their_share_in_the_data():
    shares = dict(zip(RETINOPATHY, (60, 8, 20, 4, 2), strict=True))
    data = records(*[tuple(sorted((level, eye))) for level, share in shares.items() for eye in EYES.values() for _ in range(share)])
    totals = Counter()
    for labels, count in table_from_records(data, 100):
        totals.update(dict.fromkeys(labels, count))
    assert max(totals[level] for level in RETINOPATHY) - min(totals[level] for level in RETINOPATHY) <= 1
    assert abs(totals["left eye"] - totals["right eye"]) <= 5


def test_a_table_needs_records_and_a_count():
    with pytest.raises(DataError, match="at least 1"):
        table_from_records(records(("A",)), 0)
    with pytest.raises(DataError, match="no records"):
        table_from_records([], 3)


def test_prompts_from_records_use_their_captions():
    prompts = prompts_from_records(records(("A",), ("A",), ("B",)), 6)
    assert Counter(prompt.text[-1] for prompt in prompts) == {"0": 2, "1": 1, "2": 3}
    assert [prompt.seed for prompt in prompts] == list(range(6))
