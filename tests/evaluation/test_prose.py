"""The methods and limits paragraphs say what the facts say, all of it, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from medtune.data.record import Record
from medtune.evaluation.metric import Score
from medtune.evaluation.report.arm import Arm
from medtune.evaluation.report.limits import limits
from medtune.evaluation.report.number import figure
from medtune.evaluation.report.prose import methods, seeds, settings, shared
from medtune.evaluation.report.score_table import comparisons
from medtune.evaluation.run import Scores

BASE = {"ref": "sd15.safetensors", "kind": "sd1", "prediction": "epsilon", "hash": "b" * 64}
OPTIONS = {"steps": 150, "lr": 0.004, "seed": 3, "flips": False, "clip": 1.0, "sample_prompts": ""}
SAMPLING = {"sampler": "ddim", "steps": 16, "guidance": 2.5, "negative": "", "size": 512}
EXTRACTOR = {"id": "in-domain-abc-128px", "name": "in-domain", "title": "In-domain network", "paper": "none", "network": "resnet10t",
             "n_train": 100}
COMMON = {"least": 8, "groups": 20, "interval": "jackknife", "repeats": 2000}
SETTINGS = {"size": 512, "fit": "crop", "equal": False, "extractors": {"chosen": EXTRACTOR},
            "metrics": {"kid": {"space": "chosen", "options": COMMON},
                        "vendi": {"space": "chosen", "options": {**COMMON, "order": 2.0}}}}


def kid(value, low=1.0, high=9.0, **others):
    without = tuple(value + 0.1 * math.sin(i * value) for i in range(16))
    facts = {"n_real": 60, "n_fake": 16, "direction": "lower", "reason": None, "extractor": EXTRACTOR["id"], "interval": "jackknife"}
    return Score("kid", value, low, high, without_real=without, without_fake=without, real_key="r", fake_key="f", **(facts | others))


def vendi(value=None):
    reason = None if value else "2 generated images; at least 8 are needed"
    return Score("vendi", value, None, None, 60, 16, "higher", reason, EXTRACTOR["id"])


def arm(name, method=None, rank=8, *, seed=3, scores=None, records=()):
    adapter = {"method": method, "config": {"rank": rank, "text_encoder": False}, "options": {**OPTIONS, "seed": seed},
               "objective": {"snr_gamma": 5.0}, "data_hash": "d" * 64, "hash": "0x" + "a" * 64, "version": "0.1.0"} if method else None
    return Arm(name, Scores(scores or (kid(2.0), vendi(3.0)), 60, 16, EXTRACTOR, (), {"medtune": "0.1.0", "torch": "2.11"}, SETTINGS),
               records, {"base": BASE, "adapter": adapter, "options": SAMPLING})


def records(labels, patient="p"):
    return [Record(Path(f"{i}.png"), "x", (label,), patient=f"{patient}{i}" if patient else None, seed=i)
            for i, label in enumerate(labels)]


def test_every_setting_is_told():
    drawn = records("ab")
    arms = [arm("untuned", records=drawn), arm("LoRA", "lora", records=drawn), arm("DoRA", "dora", 16, records=drawn)]
    text = " ".join(methods(arms))
    for said in ("3 sets of generated images (untuned, LoRA and DoRA)", "16 images of each against 60 real images",
                 "sd15.safetensors (sd1, predicting epsilon, SHA-256 bbbbbbbbbbbb)",
                 "Training options of all adapters: steps 150, lr 0.004, seed 3, flips off, clip 1.",
                 "Objective of all adapters: snr gamma 5.",
                 "Training data: dddddddddddd (hash)", "LoRA: method lora (rank 8, text encoder off), adapter aaaaaaaaaaaa.",
                 "DoRA: method dora (rank 16, text encoder off)",
                 "Images were sampled with: sampler ddim, steps 16, guidance 2.5, size 512.",
                 "Seeds: 0 to 1, the same for every set.",
                 "In-domain network (none), in-domain-abc-128px (network resnet10t, n train 100)",
                 "read at 512 px (fit: crop)",
                 "KID (lower is better; Binkowski et al. 2018", "order 2)",
                 "Options of all metrics: least 8, groups 20, interval jackknife, repeats 2000.",
                 "delete-a-group jackknife over patients with Student's t (16 groups of real images and 16 groups of",
                 "Holm's correction over all pairs", "Software: medtune 0.1.0, torch 2.11.", "trained by MedTune 0.1.0"):
        assert said in text, said


def test_what_differs_is_told_of_each():
    other = arm("b", "lora", seed=4)
    other = replace(other, made_by={**other.made_by, "options": {**SAMPLING, "steps": 50}, "base": {**BASE, "hash": "c" * 64}},
                    scores=replace(other.scores, n_fake=32))
    text = " ".join(methods([arm("a", "lora"), other]))
    for said in ("a: method lora (rank 8, text encoder off, seed 3)", "b: method lora (rank 8, text encoder off, seed 4)",
                 "a was sampled with: steps 16.", "b was sampled with: steps 50.", "SHA-256 bbbbbbbbbbbb", "SHA-256 cccccccccccc",
                 "a: 16 generated against 60 real images; b: 32 generated against 60 real images"):
        assert said in text, said


def test_scores_of_unknown_making_still_give_methods():
    bare = Arm("alone", Scores((kid(2.0),), 60, 16, {}))
    text = " ".join(methods([bare]))
    assert "1 set of generated images (alone)" in text and "None" not in text and "adapter" not in text


def test_metrics_without_any_figure_are_not_said_to_be_computed():
    assert "Vendi" not in " ".join(methods([arm("a", scores=(kid(2.0), vendi()))]))


def test_options_as_text():
    assert settings({"rank": 8, "lr_unet": 1e-5, "on_it": True, "off_it": False, "none": None, "empty": "", "many": ["a", "b"]}) == \
        "rank 8, lr unet 1e-05, on it on, off it off, many a, b"
    assert shared([{"a": 1, "b": 2}, {"a": 1, "b": 3}]) == {"a": 1} and shared([]) == {}


@pytest.mark.parametrize("found, text", [([0, 1, 2, 3], "0 to 3"), ([7], "7"), ([1, 2, 5, 9], "1 to 2, 5 and 9"), ([], ""),
                                         (list(range(0, 40, 2)), "20 seeds between 0 and 38")])
def test_seeds_as_text(found, text):
    assert seeds(found) == text


def test_limits_follow_from_the_facts():
    arms = [arm("a", "lora", scores=(kid(2.0), vendi())), arm("b", "dora", scores=(kid(2.5, low=None, high=None), vendi()))]
    real = records("xxxy", patient=None)
    arms = [replace(one, records=records("yyyx")) for one in arms]
    said = limits(arms, real, comparisons(arms), ["made with a small base"])
    text = " ".join(said)
    assert said[0] == "Made with a small base."
    detectable = comparisons(arms)["kid", None].contrasts[0].difference.detectable
    assert f"KID {figure(detectable)} (a and b)" in text
    for part in ("2 of 4 figures cannot be had: 2 generated images; at least 8 are needed (2).", "trained once, with one seed",
                 "The real images name no patient", "a and b: x is on 75 % of the real and 25 % of the generated images",
                 "one feature space (In-domain network)", "no interval, which does not make the figure certain: KID of b.",
                 "No set of real images",
                 "never for diagnosis"):
        assert part in text, part


def test_limits_leave_out_what_is_not_so():
    """Several seeds, patients, labels alike, a reference, nothing missing."""
    real = records("xy")
    arms = [arm("a", "lora", seed=1, records=records("xy")), arm("b", "lora", seed=2, records=records("yx")),
            replace(arm("real", records=records("xy")), reference=True)]
    text = " ".join(limits(arms, real, comparisons(arms)))
    for part in ("cannot be had", "trained once", "name no patient", "not mixed", "the figure certain", "No set of real images"):
        assert part not in text, part


def test_unequal_numbers_and_many_metrics_are_limits():
    frechet = [replace(one, metric="frechet") for one in (kid(3.0), kid(4.0), kid(3.0, n_fake=12))]
    arms = [arm("a", scores=(kid(2.0), frechet[0])), arm("b", scores=(kid(2.2), frechet[2]))]
    text = " ".join(limits(arms, records("x"), comparisons(arms)))
    assert "Fréchet distance is not compared between sets: the figure depends on the number of images" in text
    assert "over 2 metrics" not in text
    arms = [arm("a", scores=(kid(2.0), frechet[0])), arm("b", scores=(kid(2.2), frechet[1]))]
    assert "over 2 metrics" in " ".join(limits(arms, records("x"), comparisons(arms)))


def test_studies_of_privacy_and_classifiers_are_told():
    privacy = {"n": {"fake": 16, "train": 40, "held_out": 30}, "extractor": {"title": "Thumbnails", "id": "thumbnail-32"},
               "options": {"false_alarms": 0.001}, "threshold": {"value": 0.87}, "notices": ["few images"], "figures": []}
    study = SimpleNamespace(labels=("A", "B"), mode="multi", contenders=("real", "real+synthetic"), notices=("one seed",),
                            counts={"n_real": 80, "real_patients": 40, "n_test": 60, "test_patients": 30, "n_validation": 20},
                            settings={"study": {"seeds": 5, "fractions": ["5", "100"]}, "learning": {"network": "test_vit"}})
    arms = [replace(arm("a"), privacy=privacy)]
    text = " ".join(methods(arms, study))
    for said in ("a: 16 generated, 40 training and 30 held-out images", "Thumbnails (thumbnail-32)", "at 0.870 or more",
                 "false alarms 0.001", "multi-label: A and B", "80 real images of 40 patients", "60 real images of 30 others",
                 "fractions 5, 100", "network test_vit", "real and real+synthetic"):
        assert said in text, said
    told = limits(arms, records("x"), comparisons(arms), (), study)
    assert "a: few images." in told and "One seed." in told
