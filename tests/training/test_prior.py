"""Prior preservation: images of the class are drawn once, by the untuned base, and used by every training of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from medtune.data.image import read_image
from medtune.errors import ConfigError
from medtune.training import sample as sample_module
from medtune.training.base import load_base
from medtune.training.objective import ObjectiveOptions
from medtune.training.prior import check_class, class_records
from medtune.training.sample import Prompt, sample
from medtune.training.sampler import SampleOptions

CLASS = ObjectiveOptions(prior_weight=1.0, class_prompt="a chest X-ray", class_images=3, class_steps=1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def drawn(monkeypatch):
    """How many images each call draws."""
    counts, draw = [], sample_module._draw
    monkeypatch.setattr(sample_module, "_draw", lambda base, prompts, *rest: counts.append(len(prompts)) or draw(base, prompts, *rest))
    return counts


def test_images_of_the_class_are_what_the_base_draws(base, tmp_path):
    done = []
    records = class_records(base, CLASS, 64, lambda *progress: done.append(progress))
    assert [record.caption for record in records] == ["a chest X-ray"] * 3 and done == [(1, 3), (2, 3), (3, 3)]
    expected = sample(load_base("embedded"), [Prompt("a chest X-ray")] * 3, tmp_path / "expected", SampleOptions(steps=1, size=64))
    for record, other in zip(records, expected.records, strict=True):
        assert torch.equal(read_image(record.image, 64), read_image(other.image, 64))
    assert all(record.image.is_relative_to(tmp_path / "cache" / "prior") for record in records)


def test_they_are_drawn_once_and_more_only_where_more_are_wanted(base, drawn):
    first = class_records(base, CLASS, 64)
    assert class_records(load_base("embedded"), CLASS, 64) == first and drawn == [3]
    more = class_records(base, replace(CLASS, class_images=5), 64)
    assert more[:3] == first and drawn == [3, 2]
    assert class_records(base, replace(CLASS, class_images=2), 64) == first[:2] and drawn == [3, 2]


@pytest.mark.parametrize("changed", [{"class_prompt": "a hand X-ray"}, {"class_steps": 2}, {"class_cfg": 1.0}])
def test_another_request_has_other_images(base, changed):
    assert class_records(base, CLASS, 64)[0].image != class_records(base, replace(CLASS, **changed), 64)[0].image


def test_another_base_or_size_has_other_images(base):
    first = class_records(base, CLASS, 64)[0].image
    assert class_records(base, CLASS, 128)[0].image != first
    base.hash = "another"
    assert class_records(base, CLASS, 64)[0].image != first


def test_what_a_kill_left_is_gone_on_with(base, drawn, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        class_records(base, CLASS, 64, kill)
    assert len(class_records(base, CLASS, 64)) == 3 and drawn == [3, 1]


def test_nothing_is_drawn_without_prior_preservation(base, drawn):
    assert class_records(base, ObjectiveOptions(), 64) == [] and drawn == []


def test_a_weight_without_a_class_prompt_and_the_other_way_round():
    with pytest.raises(ConfigError, match=r"prior_weight is 1 and class_prompt is empty.*Give one, or set prior_weight to 0"):
        check_class(ObjectiveOptions(prior_weight=1.0, class_prompt="  "))
    with pytest.raises(ConfigError, match=r"class_prompt is 'a lung' and prior_weight is 0"):
        check_class(ObjectiveOptions(class_prompt="a lung"))
    check_class(CLASS)
    check_class(ObjectiveOptions())
