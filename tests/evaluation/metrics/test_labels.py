"""Agreement of a labeller with the prompts' labels, against scikit-learn; findings that it does not know or nobody has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from medtune.data.record import Record
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric
from medtune.evaluation.run import score_classes

LABELS = ("Cardiomegaly", "Edema", "Pneumonia")


class Said:
    """A labeller whose word is known: the features are what it says."""

    name, id, labels = "said", "said-1", LABELS


def said(count, seed, skill=1.0, labels=LABELS, rates=(0.5, 0.3, 0.2)):
    """Images that a labeller of some skill has judged."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, len(labels))) < rates
    logits = skill * (2.0 * truth - 1) + rng.normal(size=truth.shape)
    records = tuple(Record(Path(f"{index}.png"), "", tuple(label for label, has in zip(labels, row) if has) or ("No Finding",),
                           seed=index) for index, row in enumerate(truth))
    return Features((1 / (1 + np.exp(-logits))).astype(np.float32), records, Said()), truth


def test_they_equal_scikit_learn():
    from sklearn.metrics import f1_score, roc_auc_score

    fake, truth = said(150, 1)
    auroc = np.mean([roc_auc_score(truth[:, i], fake.values[:, i]) for i in range(3)])
    assert make_metric("label-agreement").score(fake, fake).value == pytest.approx(auroc, abs=1e-9)
    for threshold in (0.3, 0.5):
        f1 = f1_score(truth, fake.values >= threshold, average="macro")
        assert make_metric("label-f1", threshold=threshold).score(fake, fake).value == pytest.approx(f1, abs=1e-9)


def test_ties_count_half():
    fake, _ = said(60, 2)
    flat = Features(np.full_like(fake.values, 0.7), fake.records, fake.extractor)
    assert make_metric("label-agreement").score(flat, flat).value == 0.5


@pytest.mark.parametrize("name", ["label-agreement", "label-f1"])
def test_by_class_each_finding_has_its_own(name):
    """Of all images, with the finding and without; the mean over findings is the figure of all."""
    from sklearn.metrics import f1_score, roc_auc_score

    fake, truth = said(150, 3)
    scores = {score.label: score for score in score_classes(make_metric(name), fake, fake)}
    for index, label in enumerate(LABELS):
        one = truth[:, index], fake.values[:, index]
        expected = roc_auc_score(*one) if name == "label-agreement" else f1_score(one[0], one[1] >= 0.5)
        assert scores[label].value == pytest.approx(expected, abs=1e-9)
        assert scores[label].low < expected < scores[label].high and scores[label].n_fake == 150
    assert scores[None].value == pytest.approx(np.mean([scores[label].value for label in LABELS]))


@pytest.mark.parametrize("name", ["label-agreement", "label-f1"])
def test_a_finding_without_positives_has_no_figure(name):
    fake, _ = said(80, 4, rates=(0.5, 0.5, 0.0))
    scores = {score.label: score for score in score_classes(make_metric(name), *[fake] * 2)}
    others = np.mean([scores[label].value for label in LABELS[:2]])
    assert scores[None].value == pytest.approx(others)  # a mean over those that there are
    alone = make_metric(name, findings=("Pneumonia",)).score(fake, fake)
    assert alone.value is None and alone.reason == "Pneumonia: none of 80 images have it"
    all_ill, _ = said(80, 5, labels=LABELS[:1], rates=(1.0,))
    assert "Cardiomegaly: all of 80" in make_metric(name).score(all_ill, all_ill).reason


@pytest.mark.parametrize("name", ["label-agreement", "label-f1"])
def test_labels_that_the_labeller_does_not_know_are_a_reason(name):
    fake, _ = said(80, 6, labels=("Cardiomegally", "Edema", "Fracture"))
    score = make_metric(name).score(fake, fake)
    assert score.value is None and "'Cardiomegally' (did you mean 'Cardiomegaly'?), 'Fracture'" in score.reason
    assert make_metric(name, findings=("Edema",)).score(fake, fake).value is not None


@pytest.mark.parametrize("asked, known", [("Effusion", "Pleural Effusion"), ("Pleural Effusion", "Effusion")])
def test_a_finding_of_two_names_is_one(asked, known):
    """NIH's reports say Effusion, CheXpert's Pleural Effusion."""
    fake, _ = said(60, 4, labels=(asked, "Edema"), rates=(0.5, 0.3))
    there = dataclasses.replace(fake, extractor=SimpleNamespace(name="said", id="said-1", labels=(known, "Edema"), reads_text=False))
    same = dataclasses.replace(fake, extractor=SimpleNamespace(name="said", id="said-1", labels=(asked, "Edema"), reads_text=False))
    metric = make_metric("label-agreement")
    assert metric.score(there, there).value == metric.score(same, same).value


def test_features_of_no_labeller_are_a_reason(normal):
    values = normal(30, 4, 1)
    assert "labeller" in make_metric("label-agreement").score(Features(values), Features(values)).reason
    bare, _ = said(30, 7)
    assert "labeller" in make_metric("label-f1").score(*[Features(bare.values, (), bare.extractor)] * 2).reason


@pytest.mark.parametrize("name", ["label-agreement", "label-f1"])
@pytest.mark.parametrize("interval", ["jackknife", "percentile", "bca"])
def test_a_better_labeller_or_better_images_agree_more(name, interval):
    low, high = (make_metric(name, interval=interval).score(*[said(200, 8, skill)[0]] * 2) for skill in (0.2, 1.5))
    assert low.high < high.low and low.interval == interval


@pytest.mark.parametrize("name", ["label-agreement", "label-f1"])
def test_weights_count_images(name):
    """An image of weight 2 is an image that is there twice; without those of weight 0 it is the others'."""
    fake, _ = said(60, 9)
    figure, weights = make_metric(name).weighted(fake, fake), np.random.default_rng(0).integers(0, 3, (1, 60))
    twice = fake.pick(np.repeat(np.arange(60), weights[0]))
    assert figure(np.ones((1, 60)), weights.astype(float))[0] == pytest.approx(make_metric(name).figure(twice, twice), abs=1e-9)
