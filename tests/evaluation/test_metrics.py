"""What all metrics owe a reader, whatever features they are computed in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.image import save_image
from medtune.data.record import Record
from medtune.errors import ConfigError, DataError, UnknownName
from medtune.evaluation.extractor import EXTRACTORS
from medtune.evaluation.features import Features
from medtune.evaluation.metric import CAPTIONS, CHOSEN, LABELS, METRICS, Metric, make_metric

FINDINGS = ("A", "B", "C")
PAIRED = [name for name in METRICS if METRICS[name].facts.uses_real]
ANY_SPACE = [name for name in METRICS if METRICS[name].facts.space == CHOSEN and name != "ms-ssim"]
FREE = [name for name in METRICS if METRICS[name].facts.space in (CHOSEN, CAPTIONS)]  # of the meaning of single features


class Said:
    """A labeller whose word is known."""

    name, id, labels = "said", "said-1", FINDINGS


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """By metric: real features; good, from other draws of the same kind; and worse ones, each in the way that the metric is for."""
    folder = tmp_path_factory.mktemp("pictures")
    return {name: _arms(name, folder) for name in METRICS}


def _arms(name: str, folder: Path) -> tuple[Features, Features, list[Features]]:
    if name == "ms-ssim":
        return _pictures(folder, 4, 1.0), _pictures(folder, 5, 1.0), [_pictures(folder, 6, 0.2)]
    space = METRICS[name].facts.space
    return {CAPTIONS: _captioned, LABELS: _judged, "intensity": _histograms, "spectrum": _spectra}.get(space, _chosen)(name)


def _chosen(name: str) -> tuple[Features, Features, list[Features]]:
    """Eight kinds of images; collapsed to copies of a few, of other kinds, or too much alike."""
    rng = np.random.default_rng(1)
    centres = 3 * rng.normal(size=(8, 16))
    values = (centres[np.arange(240) % 8] + rng.normal(size=(240, 16))).astype(np.float32)
    broken, collapsed = values[120:] * 0.2 + 6, np.repeat(values[120:124], 30, axis=0)
    fidelity, diversity = name in ("precision", "density"), name in ("vendi", "recall", "coverage")
    worse = [broken] if fidelity else [collapsed] if diversity else [collapsed, broken]
    records = [Record(Path(f"{index}.png"), f"caption {index}", seed=index) for index in range(240)]
    return (Features(values[:120], tuple(records[:120])), Features(values[120:], tuple(records[120:])),
            [Features(one, tuple(records[120:])) for one in worse])


def _captioned(name: str) -> tuple[Features, Features, list[Features]]:
    """Images as their captions with noise; the worse ones with so much noise that little else is left."""
    def draw(seed, noise):
        texts = np.random.default_rng(9).normal(size=(8, 24))[np.arange(120) % 8]
        values = 3 * texts + noise * np.random.default_rng(seed).normal(size=texts.shape)
        records = tuple(Record(Path(f"{index}.png"), f"caption {index % 8}", seed=index) for index in range(120))
        return Features(values.astype(np.float32), records, texts=texts.astype(np.float32))

    return draw(1, 2.0), draw(2, 2.0), [draw(3, 30.0)]


def _judged(name: str) -> tuple[Features, Features, list[Features]]:
    """Probabilities that tell the prompts' findings well, and hardly."""
    def draw(seed, skill):
        rng = np.random.default_rng(seed)
        truth = rng.random((120, 3)) < 0.4
        asked = (tuple(label for label, has in zip(FINDINGS, row) if has) for row in truth)
        records = tuple(Record(Path(f"{index}.png"), "", labels, seed=index) for index, labels in enumerate(asked))
        said = 1 / (1 + np.exp(skill * (1 - 2 * truth) - rng.normal(size=truth.shape)))
        return Features(said.astype(np.float32), records, Said())

    return draw(1, 2.0), draw(2, 2.0), [draw(3, 0.1)]


def _histograms(name: str) -> tuple[Features, Features, list[Features]]:
    def draw(seed, shift):
        levels = np.random.default_rng(seed).normal(100 + shift, 20, size=(120, 500)).clip(0, 255).astype(int)
        return Features(np.stack([np.bincount(row, minlength=256) / 500 for row in levels]).astype(np.float32))

    return draw(1, 0), draw(2, 0), [draw(3, 30), draw(4, -30)]


def _spectra(name: str) -> tuple[Features, Features, list[Features]]:
    def draw(seed, slope):
        return Features((np.random.default_rng(seed).normal(size=(120, 64)) - slope * np.arange(64)).astype(np.float32))

    return draw(1, 0.5), draw(2, 0.5), [draw(3, 0.7), draw(4, 0.3)]


def _pictures(folder: Path, seed: int, spread: float) -> Features:
    """Twelve pictures of three captions, by how much they differ from one another."""
    generator, records = torch.Generator().manual_seed(seed), []
    for index in range(12):
        coarse = 0.5 + spread * (torch.rand((1, 1, 12, 12), generator=generator) - 0.5)
        path = folder / f"{seed}-{index}.png"
        save_image(torch.nn.functional.interpolate(coarse, (176, 176), mode="bilinear")[0], path)
        records.append(Record(path, f"caption {index % 3}", seed=index))
    return Features(np.zeros((12, 2), np.float32), tuple(records), size=176)


def test_every_metric_has_a_space_that_there_is():
    assert {METRICS[name].facts.space for name in METRICS} <= {CHOSEN, CAPTIONS, LABELS, *EXTRACTORS}
    for space in {METRICS[name].facts.space for name in METRICS} - {CHOSEN, CAPTIONS, LABELS}:
        assert EXTRACTORS[space].facts.needs == "nothing" and EXTRACTORS[space].missing() is None


def ends(score) -> tuple[float, float]:
    """The interval, or the figure itself where leaving out no group moves it, which gives none."""
    if score.low is None:
        assert score.without_fake and np.ptp([*score.without_real, *score.without_fake]) < 1e-9
        return score.value, score.value
    return score.low, score.high


@pytest.mark.parametrize("name", METRICS)
def test_the_direction_is_the_stated_one(name, arms):
    """Good images are other draws of the real distribution; the worse ones are told from them by their intervals."""
    real, good, worse = arms[name]
    metric = make_metric(name)
    better_score = metric.score(real, good)
    assert ends(better_score)[0] <= better_score.value <= ends(better_score)[1]
    for one in worse:
        worse_score = metric.score(real, one)
        first, second = (better_score, worse_score) if metric.facts.direction == "lower" else (worse_score, better_score)
        assert first.value < second.value and ends(first)[1] < ends(second)[0]


@pytest.mark.parametrize("name", METRICS)
def test_figures_lie_within_the_stated_bounds(name, arms):
    real, good, worse = arms[name]
    facts = METRICS[name].facts
    for fake in (real, good, *worse):
        score = make_metric(name).score(real, fake)
        for figure in (score.value, *ends(score)):
            assert (facts.low is None or figure >= facts.low) and (facts.high is None or figure <= facts.high)


@pytest.mark.parametrize("name", METRICS)
def test_identical_sets(name, arms):
    """As good as it gets: no distance, all within; of unbiased distances not even that, as only one side has pairs of the same."""
    real, *_ = arms[name]
    score = make_metric(name).score(real, real)
    if name in ("frechet", "fjd", "intensity", "spectrum"):
        assert 0 <= score.value < 1e-9 * np.square(real.values).sum()
    if name in ("kid", "cmmd"):
        assert score.value <= 0
    if name in ("precision", "recall", "coverage"):
        assert score.value == 1
    assert ends(score)[0] <= score.value <= ends(score)[1] or score.value == pytest.approx(ends(score)[0], abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_images_says_nothing(name, arms):
    real, good, _ = arms[name]
    if name in ("fd-infinity", "ms-ssim"):  # the one draws subsets; the other has pairs, here all of them
        real, good = (features.pick(np.argsort(features.units(), kind="stable")) for features in (real, good))
    mixed = [features.pick(np.random.default_rng(0).permutation(len(features))) for features in (real, good)]
    tolerance = 1 if name == "fd-infinity" else 1e-6
    assert make_metric(name).figure(*mixed) == pytest.approx(make_metric(name).figure(real, good), rel=tolerance, abs=1e-9)


@pytest.mark.parametrize("name", PAIRED)
def test_one_sided_metrics_look_at_the_generated_images_alone(name, arms):
    """Those that look at the real ones give another figure for other real ones."""
    real, good, worse = arms[name]
    assert make_metric(name).figure(real, good) != make_metric(name).figure(worse[0], good)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_images_are_a_reason(name, count, arms):
    real, good, _ = arms[name]
    score = make_metric(name).score(real, good.pick(range(count)))
    assert score.value is score.low is score.high is None
    assert score.reason == f"{count} generated images; at least 8 are needed"
    assert (score.n_real, score.n_fake) == (len(real), count)


@pytest.mark.parametrize("name", METRICS)
def test_sets_of_different_size_have_a_figure(name, arms):
    real, good, _ = arms[name]
    score = make_metric(name).score(real, good.pick(range(2 * len(good) // 3)))
    assert score.value is not None and np.isfinite(score.value)


@pytest.mark.parametrize("name", METRICS)
def test_features_that_are_not_finite_are_a_reason(name, arms):
    real, good, _ = arms[name]
    broken = good.values.copy()
    broken[3, 1], broken[5, 0] = np.nan, np.inf
    score = make_metric(name).score(real, dataclasses.replace(good, values=broken))
    assert score.value is None and f"2 of {len(good)} generated images" in score.reason


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("both", [False, True])
def test_features_that_are_all_equal_have_a_figure_or_a_reason(name, both, arms):
    """One image over and over, generated or on both sides: nothing breaks, nothing is made up."""
    real, good, _ = arms[name]
    alike = dataclasses.replace(good, values=np.repeat(good.values[:1], len(good), axis=0))
    real = dataclasses.replace(real, values=np.repeat(good.values[:1], len(real), axis=0)) if both else real
    score = make_metric(name).score(real, alike)
    assert (score.value is None) == bool(score.reason)
    facts = METRICS[name].facts
    if both and score.value is not None and facts.uses_real:  # copies of what there is: a distance of 0, or all within
        assert score.value == pytest.approx(0, abs=1e-5) if facts.direction == "lower" else score.value >= 1
    if name == "vendi":
        assert score.value == pytest.approx(1)
    if not both and name in ("recall", "coverage"):
        assert score.value < 0.1


@pytest.mark.parametrize("name", METRICS)
def test_features_that_are_all_zero_have_a_figure_or_a_reason(name, arms):
    real, good, _ = arms[name]
    real, good = (dataclasses.replace(features, values=np.zeros_like(features.values)) for features in (real, good))
    score = make_metric(name).score(real, good)
    assert (score.value is None) == bool(score.reason)


@pytest.mark.parametrize("name", FREE)
def test_a_feature_that_is_constant_changes_no_kind_of_figure(name, arms):
    real, good, _ = arms[name]
    real, good = (dataclasses.replace(features, values=np.pad(features.values, ((0, 0), (0, 1)), constant_values=0.5),
                                      texts=None if features.texts is None else np.pad(features.texts, ((0, 0), (0, 1))))
                  for features in (real, good))
    score = make_metric(name).score(real, good)
    assert score.value is not None and np.isfinite([score.value, *ends(score)]).all()


@pytest.mark.parametrize("name", ANY_SPACE)
def test_fewer_images_than_dimensions_have_a_figure_or_a_reason(name):
    rng = np.random.default_rng(0)
    score = make_metric(name).score(*(Features(rng.normal(size=(20, 200)).astype(np.float32)) for _ in range(2)))
    assert (score.value is None) == (name == "fd-infinity") == bool(score.reason)


@pytest.mark.parametrize("name", METRICS)
def test_features_of_two_spaces_are_refused(name, arms):
    real, good, _ = arms[name]
    with pytest.raises(DataError, match="dimensions"):
        make_metric(name).score(real, dataclasses.replace(good, values=good.values[:, :-1]))


@pytest.mark.parametrize("name", METRICS)
def test_no_interval_when_none_is_wanted_or_can_be_had(name, arms):
    real, good, _ = arms[name]
    for metric in (make_metric(name, groups=0), make_metric(name, groups=3)):
        score = metric.score(real, good)
        assert score.value is not None and score.low is None and score.high is None


@pytest.mark.parametrize("name", METRICS)
def test_figures_without_a_group_are_figures_of_the_others(name, arms):
    """However a metric makes them, they are those of the sets that are left."""
    real, good, _ = arms[name]
    metric, groups = make_metric(name), [np.arange(len(features)) % 4 for features in (real, good)]
    without_real, without_fake = metric.without(real, good, *groups)
    expected = [metric.figure(real, good.pick(np.flatnonzero(groups[1] != group))) for group in range(4)]
    assert without_fake == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert len(without_real) == (4 if metric.facts.uses_real else 0)
    if without_real:
        assert without_real[1] == pytest.approx(metric.figure(real.pick(np.flatnonzero(groups[0] != 1)), good), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_weights_of_one_and_zero_are_sets(name, arms):
    real, good, _ = arms[name]
    metric = make_metric(name)
    figure = metric.weighted(real, good)
    if figure is None:  # it has no meaning with images that count twice
        assert name in ("frechet", "fd-infinity", "fjd", "vendi", "precision", "recall", "density", "coverage")
        return
    half = np.arange(len(good)) // 8 % 2 == 0
    weights = np.ones((2, len(real))), np.stack([np.ones(len(good)), half]).astype(float)
    expected = [metric.figure(real, good), metric.figure(real, good.pick(np.flatnonzero(half)))]
    assert figure(*weights) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_facts_are_complete(name):
    kind = METRICS[name]
    assert issubclass(kind, Metric) and kind.name == name
    assert kind.facts.direction in ("lower", "higher") and kind.facts.title and kind.facts.says
    assert any(character.isdigit() for character in kind.facts.paper)  # its year


def test_unknown_names_and_options_are_refused():
    with pytest.raises(UnknownName, match="frechet"):
        make_metric("fid")
    with pytest.raises(ConfigError, match="least"):
        make_metric("kid", leats=3)
    with pytest.raises(ConfigError, match="at least 2"):
        make_metric("kid", least=1)
