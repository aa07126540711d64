"""Metrics in the space of images and captions, against scikit-learn, scipy and closed forms; captions that are missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric
from medtune.evaluation.uncertainty.interval import assign_groups

NAMES = ["cmmd", "fjd", "alignment", "clip-score", "retrieval-r1", "retrieval-r5"]
WITH_TEXTS = NAMES[1:]


def test_cmmd_is_the_unbiased_mmd_of_scikit_learns_kernel(normal):
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.preprocessing import normalize

    real, fake = normal(50, 16, 1), normal(40, 16, 2, 1, 0.5)
    x, y = normalize(real.astype(float)), normalize(fake.astype(float))
    within = [(gram.sum() - np.trace(gram)) / (len(gram) * (len(gram) - 1)) for gram in (rbf_kernel(v, gamma=1 / 200) for v in (x, y))]
    expected = 1000 * (sum(within) - 2 * rbf_kernel(x, y, gamma=1 / 200).mean())
    assert make_metric("cmmd").score(Features(real), Features(fake)).value == pytest.approx(expected, rel=1e-6)
    assert make_metric("cmmd").figure(Features(3 * real), Features(fake)) == pytest.approx(expected, rel=1e-4)  # length says nothing


def test_cmmd_is_unbiased():
    rng = np.random.default_rng(0)
    values = [make_metric("cmmd").figure(*(Features(rng.normal(size=(12, 6))) for _ in range(2))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_cmmd_in_blocks_and_by_weights_is_cmmd(normal):
    real, fake = Features(normal(30, 8, 1)), Features(normal(20, 8, 2, 1, 0.5))
    metric, a, b = make_metric("cmmd"), *(assign_groups([str(i) for i in range(count)], 5) for count in (30, 20))
    without_real, without_fake = metric.without(real, fake, a, b)
    assert without_real[2] == pytest.approx(metric.figure(real.pick(np.flatnonzero(a != 2)), fake), rel=1e-9)
    assert without_fake[3] == pytest.approx(metric.figure(real, fake.pick(np.flatnonzero(b != 3))), rel=1e-9)
    weights = (a != 2).astype(float)[None], np.ones((1, 20))
    assert metric.weighted(real, fake)(*weights)[0] == pytest.approx(without_real[2], rel=1e-9)


def test_fjd_is_the_frechet_distance_of_both_together(captioned):
    import scipy.linalg

    real, fake = captioned(300, 12, 1.0, 1, dims=6), captioned(200, 12, 2.0, 2, dims=6)
    scale = np.linalg.norm(real.values, axis=1).mean() / np.linalg.norm(real.texts, axis=1).mean()
    x, y = (np.concatenate([one.values, scale * one.texts], axis=1).astype(float) for one in (real, fake))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert make_metric("fjd").score(real, fake).value == pytest.approx(expected, rel=1e-6)


def test_fjd_sees_captions_that_went_to_other_images(captioned):
    """The images and the captions are those of the good set, but do not go together: the Frechet distance is blind to that."""
    real, good = captioned(120, 6, 0.5, 1, dims=8), captioned(120, 6, 0.5, 2, dims=8)
    mixed = dataclasses.replace(good, texts=np.roll(good.texts, 1, axis=0))
    frechet = [make_metric("frechet").figure(real, fake) for fake in (good, mixed)]
    joint = [make_metric("fjd").figure(real, fake) for fake in (good, mixed)]
    assert frechet[0] == frechet[1] and joint[1] > 5 * joint[0]


def test_alignment_and_clip_score_equal_scikit_learns_cosine(captioned):
    from sklearn.metrics.pairwise import cosine_similarity

    fake = captioned(40, 6, 8.0, 1)
    fake = dataclasses.replace(fake, values=fake.values * np.where(np.arange(40) % 4, 1, -1)[:, None].astype(np.float32))
    cosines = np.diag(cosine_similarity(fake.values.astype(float), fake.texts.astype(float)))
    assert (cosines < 0).any()
    assert make_metric("alignment").score(fake, fake).value == pytest.approx(cosines.mean(), abs=1e-9)
    assert make_metric("clip-score").score(fake, fake).value == pytest.approx(np.maximum(2.5 * cosines, 0).mean(), abs=1e-9)


@pytest.mark.parametrize("k", [1, 5])
def test_retrieval_equals_a_sort(captioned, k):
    from sklearn.metrics import top_k_accuracy_score

    fake = captioned(60, 10, 14.0, 3)
    images, texts = fake.values / np.linalg.norm(fake.values, axis=1, keepdims=True), fake.texts[:10]
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    expected = top_k_accuracy_score(np.arange(60) % 10, images @ texts.T, k=k, labels=range(10))
    value = make_metric(f"retrieval-r{k}").score(fake, fake).value
    assert value == pytest.approx(expected) and k / 10 < value < 1


def test_retrieval_among_too_few_captions_is_a_reason(captioned):
    fake = captioned(40, 5, 0.1, 1)
    assert "5 distinct captions" in make_metric("retrieval-r5").score(fake, fake).reason
    assert make_metric("retrieval-r1").score(fake, fake).value == 1
    one = captioned(40, 1, 0.1, 1)
    assert "1 distinct captions" in make_metric("retrieval-r1").score(one, one).reason


def test_a_tie_is_no_hit(captioned):
    fake = captioned(40, 4, 0.1, 1)
    same = dataclasses.replace(fake, texts=np.ones_like(fake.texts))
    assert make_metric("retrieval-r1").score(same, same).value == 0


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_captions_that_are_missing_are_a_reason(captioned, name):
    real, fake = captioned(30, 8, 1.0, 1), captioned(30, 8, 1.0, 2)
    metric = make_metric(name)
    assert metric.score(real, fake).value is not None
    blank = dataclasses.replace(fake, records=tuple(dataclasses.replace(record, caption=" ") if index < 3 else record
                                                    for index, record in enumerate(fake.records)))
    assert metric.score(real, blank).reason == "3 of 30 generated images have no caption"
    assert "have no features" in metric.score(real, dataclasses.replace(fake, texts=None)).reason
    texts = fake.texts.copy()
    texts[4, 2] = np.nan
    assert "captions of 1 of 30" in metric.score(real, dataclasses.replace(fake, texts=texts)).reason


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fjd"])
def test_features_without_a_direction_are_a_reason(captioned, name):
    real, fake = captioned(30, 8, 1.0, 1), captioned(30, 8, 1.0, 2)
    fake.values[5] = 0
    assert "1 images are all zero" in make_metric(name).score(real, fake).reason


@pytest.mark.parametrize("name", ["alignment", "clip-score", "retrieval-r1"])
@pytest.mark.parametrize("interval", ["jackknife", "percentile", "bca"])
def test_means_over_images_have_every_interval(captioned, name, interval):
    """Near the normal one of a mean, whichever way it is made."""
    fake = captioned(120, 12, 14.0, 4)
    metric = make_metric(name, interval=interval)
    score = metric.score(fake, fake)
    values = metric.values(fake)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert score.interval == interval and score.value == pytest.approx(values.mean())
    assert (score.high - score.low) / 2 == pytest.approx(half, rel=0.35)
