"""Extraction and its cache."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.image import read_image, save_image
from medtune.data.image_set import ImageSet
from medtune.data.record import Record
from medtune.errors import DataError
from medtune.evaluation.extractor import Extractor, ExtractorFacts
from medtune.evaluation.features import Features, extract


class Patches(Extractor):
    """Mean grey of the four quarters; counts the images that it sees."""

    name, facts, Config = "patches", ExtractorFacts("Patches", "greys", "none", "nothing"), None

    def __init__(self, version="1"):
        self.version, self.seen_images = version, 0

    @classmethod
    def prepare(cls, config, records, folder=None, on_progress=None):
        return cls()

    @property
    def id(self):
        return f"patches-{self.version}"

    def features(self, images):
        self.seen_images += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images.mean(1), 2).flatten(1)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    image_set = ImageSet(tmp_path_factory.mktemp("images"))
    for index in range(6):
        image_set.append(torch.rand((3, 40, 40), generator=torch.Generator().manual_seed(index)), "x", patient=f"p{index // 2}")
    return image_set.records


def database(cache: Path) -> Path:
    return next(cache.glob("*.sqlite"))


def test_features_follow_the_records(records, tmp_path):
    calls = []
    found = extract(records, Patches(), tmp_path, size=64, batch=4, on_progress=lambda *call: calls.append(call))
    assert found.values.shape == (6, 4) and found.values.dtype == np.float32 and found.extractor_id == "patches-1"
    assert calls == [(4, 6), (6, 6)]
    expected = Patches().features(torch.stack([read_image(record.image, 64) for record in records[::-1]])).numpy()
    assert np.allclose(extract(records[::-1], Patches(), size=64).values, expected, atol=1e-6)


def test_each_image_is_computed_once(records, tmp_path):
    first = extract(records, Patches(), tmp_path)
    extractor = Patches()
    again = extract(records[::-1], extractor, tmp_path)
    assert extractor.seen_images == 0 and np.array_equal(again.values, first.values[::-1])
    copies = extract([*records, records[0]], extractor := Patches(), None)
    assert extractor.seen_images == 6 and np.array_equal(copies.values[0], copies.values[6])


def test_everything_that_matters_is_in_the_key(records, tmp_path):
    extract(records, Patches(), tmp_path)
    for extractor, settings in ((Patches("2"), {}), (Patches(), {"size": 256}), (Patches(), {"fit": "pad"})):
        extract(records, extractor, tmp_path, **settings)
        assert extractor.seen_images == 6


def test_a_changed_image_is_computed_again(records, tmp_path):
    path = tmp_path / "image.png"
    save_image(torch.zeros(3, 32, 32), path)
    before = extract([Record(path, "")], Patches(), tmp_path / "cache").values
    save_image(torch.ones(3, 32, 32), path)
    assert (extract([Record(path, "")], Patches(), tmp_path / "cache").values - before == 1).all()


def test_a_damaged_entry_is_made_again(records, tmp_path):
    good = extract(records, Patches(), tmp_path).values
    with sqlite3.connect(database(tmp_path)) as connection:
        connection.execute("UPDATE features SET vector = zeroblob(16) WHERE rowid = 2")
    connection.close()
    extractor = Patches()
    assert np.array_equal(extract(records, extractor, tmp_path).values, good) and extractor.seen_images == 1
    assert np.array_equal(extract(records, extractor, tmp_path).values, good) and extractor.seen_images == 1


@pytest.mark.parametrize("damage", [lambda data: b"no database at all" * 50, lambda data: data[: len(data) // 2], lambda data: b"",
                                    lambda data: data[:2000] + b"\xff" * (len(data) - 2000),
                                    lambda data: data[:4096] + b"\xff" * (len(data) - 4096)])
def test_a_damaged_file_is_made_again(records, tmp_path, damage):
    good = extract(records, Patches(), tmp_path).values
    path = database(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(extract(records, Patches(), tmp_path).values, good)
    extractor = Patches()
    assert np.array_equal(extract(records, extractor, tmp_path).values, good) and extractor.seen_images == 0


def test_a_damaged_file_takes_new_images(records, tmp_path):
    extract(records[:5], Patches(), tmp_path)
    path = database(tmp_path)
    pages = path.read_bytes()
    path.write_bytes(pages[:4096] + b"\xff" * 4096 + pages[8192:])  # the table itself; the index is whole
    assert extract(records[5:], Patches(), tmp_path).values.shape == (1, 4)


def test_a_full_disk_is_said(records, tmp_path):
    code = ("import resource, sys; sys.path.insert(0, sys.argv[1]); from test_features import Patches; "
            "from medtune.data.image_set import ImageSet; from medtune.evaluation.features import extract; "
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); extract(ImageSet(sys.argv[2]).records, Patches(), sys.argv[3])")
    done = run_python(code, records[0].image.parent, tmp_path / "cache")
    assert done.returncode == 1 and "MedTuneError: cannot keep features" in done.stderr and "Free some space" in done.stderr
    assert np.array_equal(extract(records, Patches(), tmp_path / "cache").values, extract(records, Patches()).values)


def run_python(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(sys.modules["medtune"].__path__[0]).parent)}
    return subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), *map(str, arguments)], env=environment,
                          capture_output=True, text=True, check=False)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_features import Patches
from medtune.data.image_set import ImageSet
from medtune.evaluation.features import extract
def stop(done, total):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
extract(ImageSet(sys.argv[2]).records, Patches(), sys.argv[3], batch=2, on_progress=stop)
"""


def test_kill_during_extraction_keeps_what_was_done(records, tmp_path):
    done = run_python(KILLED, records[0].image.parent, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    extractor = Patches()
    found = extract(records, extractor, tmp_path)
    assert extractor.seen_images == 2 and np.array_equal(found.values, extract(records, Patches()).values)


def test_stored_size_makes_no_difference(records, tmp_path):
    """Real images are stored large, generated ones at the common size: both reach the extractor by the same way."""
    small = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, (1000, 800), mode="bicubic")
    save_image(large[0].clamp(0, 1), tmp_path / "real.png")
    save_image(read_image(tmp_path / "real.png", 512), tmp_path / "fake.png")
    values = extract([Record(tmp_path / "real.png", ""), Record(tmp_path / "fake.png", "")], Patches()).values
    assert np.allclose(values[0], values[1], atol=2e-3)


def test_features_that_are_not_finite_name_their_images(records, tmp_path):
    class Broken(Patches):
        def features(self, images):
            values = super().features(images)
            values[1] = float("nan")
            return values

    with pytest.raises(DataError, match=r"1 images: .*000001\.png"):
        extract(records, Broken(), tmp_path)


def test_no_images_and_unreadable_images_are_refused(records, tmp_path):
    with pytest.raises(DataError, match="no images"):
        extract([], Patches())
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match=r"text\.png"):
        extract([*records, dataclasses.replace(records[0], image=tmp_path / "text.png")], Patches())


def test_patients_and_picking():
    records = (Record(Path("a"), "", patient="p"), Record(Path("b"), "", patient="p"), Record(Path("c"), ""))
    features = Features(np.arange(6.0).reshape(3, 2), records)
    assert len(set(features.units())) == 2 and len(set(Features(np.zeros((3, 2))).units())) == 3
    assert features.pick([2, 0]).values.tolist() == [[4, 5], [0, 1]] and features.pick([2]).records == records[2:]
