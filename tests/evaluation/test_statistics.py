"""Statistics of large sets: shards give what the whole gives, with bounded memory, and files are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.image_set import ImageSet
from medtune.errors import ConfigError, DataError
from medtune.evaluation.extractor import Extractor, ExtractorFacts
from medtune.evaluation.features import extract
from medtune.evaluation.metric import make_metric
from medtune.evaluation.moments import Moments, merged
from medtune.evaluation.statistics import Statistics, gather, shard
from medtune.evaluation.statistics_score import score_all, score_statistics


class Quarters(Extractor):
    """Mean grey of the image's sixteenths, with a large common offset."""

    name, facts, Config, id = "quarters", ExtractorFacts("Quarters", "greys", "none", "nothing"), None, "quarters-1"

    @classmethod
    def prepare(cls, config, records, folder=None, on_progress=None):
        return cls()

    def features(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.mean(1), 4).flatten(1) + 100


def draw(folder: Path, count: int, seed: int, spread: float = 0.4, generated: bool = False) -> list:
    image_set, generator = ImageSet(folder), torch.Generator().manual_seed(seed)
    for index in range(count):
        greys = 0.5 + spread * (torch.rand((1, 1, 4, 4), generator=generator) - 0.5)
        image = torch.nn.functional.interpolate(greys, (16, 16))[0].expand(3, -1, -1)
        who = {"seed": index} if generated else {"patient": f"{seed}-{index // 2}"}
        image_set.append(image, "x", ("A",), **who)
    return image_set.records


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return draw(folder / "real", 90, 1), draw(folder / "fake", 70, 2, 0.3, generated=True)


READ = {"size": 16, "batch": 32}


def test_moments_are_numpys_whatever_the_offset():
    values = np.random.default_rng(0).normal(size=(300, 5)) @ np.diag([1, 2, 3, 1e-3, 50]) + [0, 1e6, -5, 3, 7]
    found = merged([Moments.of(values[:7]), Moments.none(5), Moments.of(values[7:8]), Moments.of(values[8:])])
    assert found.n == 300
    assert found.mean == pytest.approx(values.mean(0), rel=1e-13)
    assert found.covariance == pytest.approx(np.cov(values, rowvar=False), rel=1e-9, abs=1e-9)
    rows = values / np.linalg.norm(values, axis=1, keepdims=True)
    assert found.cosine == pytest.approx(rows.T @ rows, rel=1e-12)


@pytest.mark.parametrize("name", ["frechet", "vendi", "kid"])
def test_the_whole_set_at_once_gives_the_same(sets, name):
    real, fake = sets
    metric = make_metric(name)
    whole = metric.score(*(extract(records, Quarters(), **READ) for records in sets))
    kept = score_statistics(gather(real, Quarters(), **READ), gather(fake, Quarters(), **READ), metric)
    assert kept.value == pytest.approx(whole.value, rel=1e-6)
    assert (kept.n_real, kept.n_fake, kept.extractor) == (90, 70, "quarters-1")
    assert kept.low <= kept.value <= kept.high
    assert kept.high - kept.low == pytest.approx(whole.high - whole.low, rel=0.8)  # ten uneven groups for twenty even ones


@pytest.mark.parametrize("name", ["frechet", "vendi", "kid"])
def test_shards_in_any_order_give_the_same(sets, name, tmp_path):
    real, fake = sets
    metric = make_metric(name)
    parts = [gather(shard(real, index, 4), Quarters(), keep=50, **READ) for index in (3, 1, 4, 2)]
    for index, part in enumerate(parts):
        part.write(tmp_path / f"{index}.safetensors")
    parts = [Statistics.read(tmp_path / f"{index}.safetensors") for index in range(4)]
    joined = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))
    whole, other = gather(real, Quarters(), keep=50, **READ), gather(fake, Quarters(), keep=50, **READ)
    assert joined.hashes == whole.hashes and np.array_equal(joined.sample, whole.sample) and len(joined.hashes) == 50
    one, two = (score_statistics(statistics, other, metric) for statistics in (joined, whole))
    assert one.value == pytest.approx(two.value, rel=1e-12)
    assert (one.low, one.high) == pytest.approx((two.low, two.high), rel=1e-12) and one.real_key == two.real_key


def test_a_sample_is_said(sets):
    real, fake = (gather(records, Quarters(), keep=20, **READ) for records in sets)
    scores = score_all(real, fake, [make_metric("frechet"), make_metric("kid")])
    assert scores.notices == ("kid: of a sample of 20 real and 20 generated images out of 90 and 70",)
    assert scores.find("kid").n_fake == 20 and scores.find("frechet").n_fake == 70


def test_memory_does_not_grow_with_the_set(sets, monkeypatch):
    """What is kept of a set ten times as large is as large."""
    from medtune.evaluation import statistics

    monkeypatch.setattr(statistics, "CHUNK", 8)
    sizes = []
    for count in (20, 90):
        found = gather(sets[0][:count], Quarters(), keep=10, **READ)
        sizes.append(found.sample.nbytes + sum(group.scatter.nbytes + group.cosine.nbytes for group in found.groups))
    assert sizes[0] == sizes[1]


def test_what_does_not_belong_together(sets):
    real, fake = sets
    one = gather(real[:20], Quarters(), **READ)
    with pytest.raises(DataError, match="20 images are in both"):
        one.merge(one)
    with pytest.raises(DataError, match="cannot be merged"):
        one.merge(gather(fake, Quarters(), keep=10, **READ))
    with pytest.raises(DataError, match="size 16, generated ones 32"):
        score_statistics(one, gather(fake, Quarters(), size=32), make_metric("frechet"))
    with pytest.raises(ConfigError, match="5/4"):
        shard(real, 5, 4)
    few = score_statistics(one, gather(fake[:3], Quarters(), **READ), make_metric("frechet"))
    assert few.value is None and "3 generated images" in few.reason


@pytest.mark.parametrize("spoil", ["empty", "cut", "other"])
def test_a_damaged_file(sets, tmp_path, spoil):
    path = tmp_path / "s.safetensors"
    gather(sets[0], Quarters(), **READ).write(path)
    content = path.read_bytes()
    if spoil == "other":
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(2)}, path)
    else:
        path.write_bytes(b"" if spoil == "empty" else content[: len(content) // 2])
    with pytest.raises(DataError, match="medtune statistics"):
        Statistics.read(path)
