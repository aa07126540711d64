"""A downstream study from records to its result: what it finds again, what it refuses, and what it says where a figure is lacking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from medtune.data.identity import hash_records
from medtune.data.image import read_image, save_image
from medtune.data.image_set import ImageSet
from medtune.errors import ConfigError, DataError
from medtune.evaluation.classifiers.examination import examine
from medtune.evaluation.classifiers.network import LearningOptions
from medtune.evaluation.downstream.protocol import MIXED, PROTOCOLS, REAL, SYNTHETIC, TUNED
from medtune.evaluation.downstream.result import Downstream, downstream
from medtune.evaluation.downstream.study import StudyOptions
from medtune.evaluation.extractor import EXTRACTORS
from medtune.evaluation.macro import MACRO
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

QUICK = LearningOptions(network="test_vit", size=32, steps=4, batch=8, lr=1e-3)
KINDS = (("Bright",), ("Dark",))


def study(**values):
    quick = {"fractions": ("10", "100"), "seeds": 2, "repeats": 100, "unchecked_generator": True, "pictures": False}
    return StudyOptions(**{**quick, **values})


def draw(folder, count, name, kinds=KINDS, **facts):
    """Noisy grey images whose middle is bright or dark, two of a patient; of a synthetic set without patients."""
    generator, image_set = torch.Generator().manual_seed(sum(map(ord, name))), ImageSet(folder / name)
    for index in range(count):
        labels = kinds[index // 2 % len(kinds)] if name != "synthetic" else kinds[index % len(kinds)]
        image = 0.5 + 0.15 * torch.randn((1, 40, 40), generator=generator)
        image[:, 10:30, 10:30] += 0.1 * (("Bright" in labels) - ("Dark" in labels))
        image_set.append(image.clamp(0, 1).expand(3, -1, -1), " ".join(labels), labels, seed=index if name == "synthetic" else None,
                         patient=None if name == "synthetic" else f"{name}-{index // 2}", **facts)
    return image_set.records


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """(real, synthetic, test) records."""
    folder = tmp_path_factory.mktemp("images")
    return draw(folder, 48, "real"), draw(folder, 24, "synthetic"), draw(folder, 40, "test")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(scope="module")
def result(images, out):
    return downstream(*images, study(), QUICK, out=out)


def without_folders(result):
    values = result.to_json()
    return {**values, "trials": [{**trial, "folder": Path(trial["folder"]).name} for trial in values["trials"]]}


def test_every_protocol_is_tested_at_every_fraction_and_seed(result):
    assert result.contenders == (REAL, SYNTHETIC, "real+synthetic all", TUNED)
    assert len(result.trials) == 2 * (2 + 1 + 2 + 2) and result.mode == "single" and result.labels == ("Bright", "Dark")
    counts = {(trial["protocol"], trial["fraction"]): (trial["n_real"], trial["n_synthetic"], trial["patients"])
              for trial in result.trials if trial["seed"] == 0}
    train = result.counts["n_real"]
    assert (train, result.counts["n_validation"]) == (38, 10) or train + result.counts["n_validation"] == 48
    assert counts[REAL, 0.1] == (4, 0, 2) and counts[SYNTHETIC, 0.0] == (0, 24, 0) and counts[MIXED, 0.1] == (4, 24, 2)
    assert counts[TUNED, 1.0] == (train, 24, train // 2)
    assert {sum(stage["steps"] for stage in trial["learnt"]) for trial in result.trials} == {4}  # the same work for all


def test_figures_are_those_of_the_answers(result, images):
    truth = [record.labels == ("Bright",) for record in images[2]]
    for trial in result.trials:
        answers = load_file(Path(trial["folder"]) / "answers.safetensors")["test"]
        found = {(row["label"], row["figure"]): row["value"] for row in trial["figures"]}
        assert found["Bright", "auroc"] == pytest.approx(roc_auc_score(truth, answers[:, 0]), abs=1e-9)
    point = result.point(REAL, 0.1, "auroc", "Bright")
    assert point["value"] == pytest.approx(sum(point["values"]) / 2) and point["n_real"] == [4, 4]
    assert result.point(SYNTHETIC, 0.0)["n_real"] == [0, 0] and result.point(SYNTHETIC, 0.1) is None


def test_the_result_is_json(result, tmp_path):
    result.write(tmp_path / "downstream.json")
    assert Downstream.read(tmp_path / "downstream.json").to_json() == json.loads(json.dumps(result.to_json()))
    (tmp_path / "other.json").write_text('{"scores": []}')
    with pytest.raises(DataError, match="classify again"):
        Downstream.read(tmp_path / "other.json")


def test_what_is_there_is_not_trained_again(images, out, result):
    def never(step, steps):
        raise AssertionError("trained again")

    assert downstream(*images, study(), QUICK, out=out, on_step=never).to_json() == result.to_json()


def test_pre_training_is_shared_by_the_fractions(out, result):
    assert len([folder for folder in out.iterdir() if folder.name.startswith("pretraining-")]) == 2  # one a seed


def test_it_goes_on_after_a_kill_and_comes_to_the_same(images, result, tmp_path):
    options = study(protocols=(REAL, TUNED), seeds=1)
    done = []

    def stop(step, steps):
        done.append(step)
        if len(done) == 4 + 4 + 3:  # within the fine-tuning of the third trial
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downstream(*images, options, QUICK, out=tmp_path, on_step=stop)
    names = sorted(folder.name for folder in tmp_path.iterdir())
    assert [name.rsplit("-", 1)[0] for name in names] == ["pretraining", "real-only-100pc-seed0", "real-only-10pc-seed0"]
    (tmp_path / names[1] / "answers.safetensors").write_bytes(b"torn")
    torch.manual_seed(99)
    again = downstream(*images, options, QUICK, out=tmp_path)
    whole = {Path(trial["folder"]).name: trial["figures"] for trial in result.trials}
    assert len(again.trials) == 4
    for trial in again.trials:
        assert trial["figures"] == whole[Path(trial["folder"]).name]


def test_a_trained_network_is_an_extractor_and_a_labeller(result, images):
    trial = result.trials[0]
    kind = EXTRACTORS["classifier"]
    extractor = kind.prepare(kind.Config(folder=trial["folder"]), ())
    pictures = torch.stack([read_image(record.image, 512) for record in images[2][:4]])
    answers = load_file(Path(trial["folder"]) / "answers.safetensors")["test"]
    labeller = extractor.labeller()
    assert labeller.labels == result.labels and labeller.thresholds == trial["thresholds"]
    assert labeller.features(pictures).numpy() == pytest.approx(answers[:4], abs=0.02)  # bytes against floats
    values = extractor.features(pictures)
    assert values.shape[0] == 4 and values.isfinite().all() and 0.3 < values.square().mean().sqrt() < 3
    assert len(extractor.seen()) == trial["n_real"] and extractor.id.startswith("classifier-test_vit-")
    assert kind.prepare(kind.Config(folder=result.trials[1]["folder"]), ()).id != extractor.id


def test_a_trained_network_can_be_tested_again_on_images_that_it_did_not_learn_from(result, images):
    kind = EXTRACTORS["classifier"]
    trial = result.trials[0]
    labeller = kind.prepare(kind.Config(folder=trial["folder"]), ()).labeller()
    found = examine(labeller, images[2])
    figures = {(row["label"], row["figure"]): row["value"] for row in found["figures"]}
    for row in trial["figures"]:
        if row["figure"] in ("auroc", "brier"):
            assert figures[row["label"], row["figure"]] == pytest.approx(row["value"], abs=0.03)  # bytes against floats
    with pytest.raises(DataError, match=f"learnt from {trial['n_real']} of the 48 test images"):
        examine(labeller, images[0])
    other = [type(record)(record.image, "", ("Round",)) for record in images[2][:4]]
    with pytest.raises(DataError, match="no test image has any of the classifier's labels Bright, Dark; they have: Round"):
        examine(labeller, other)


def test_several_labels_an_image_and_early_stopping(tmp_path):
    kinds = (("Bright",), ("Bright", "Wide"), (), ("Wide",))
    real, test = draw(tmp_path, 48, "real", kinds), draw(tmp_path, 24, "test", kinds)
    learning = LearningOptions(network="test_vit", size=32, steps=6, batch=8, lr=1e-3, patience=1, check_every=2, balance="loss")
    options = study(protocols=(REAL,), fractions=("100",), seeds=1, keep=False)
    result = downstream(real, {}, test, options, learning, out=tmp_path / "out")
    assert (result.mode, result.labels) == ("multi", ("Bright", "Wide"))
    (trial,) = result.trials
    assert trial["learnt"][0]["validation_loss"] is not None
    assert not (Path(trial["folder"]) / "model.safetensors").exists()
    with pytest.raises(DataError, match="36 of 72 images do not have exactly one"):
        downstream(real, {}, test, study(protocols=(REAL,), mode="single"), QUICK, out=tmp_path / "out")


def test_scaled_validation_takes_no_more_real_images_than_the_fraction(images, tmp_path):
    options = study(protocols=(SYNTHETIC, REAL), fractions=("25",), seeds=1, validation="scaled")
    result = downstream(*images, options, QUICK, out=tmp_path)
    of = {trial["protocol"]: trial for trial in result.trials}
    assert of[REAL]["n_validation"] < result.counts["n_validation"]
    assert of[SYNTHETIC]["n_synthetic"] + of[SYNTHETIC]["n_validation"] == 24 and of[SYNTHETIC]["n_validation"] == 5


# Leaks.


def saved_anew(record, folder, patient):
    """The same picture in another file, as JPEG."""
    from PIL import Image

    folder.mkdir()
    Image.open(record.image).save(folder / "again.jpg", quality=90)
    return [type(record)(folder / "again.jpg", record.caption, record.labels, patient)]


@pytest.mark.parametrize("where", ["real", "synthetic", "generator"])
@pytest.mark.parametrize("kind", ["patient", "file", "picture"])
def test_leaks_are_refused_with_the_count(images, tmp_path, where, kind):
    real, synthetic, test = images[0][:16], images[1][:8], images[2][:8]
    if kind == "patient":
        leaked, words = [type(test[0])(real[0].image, "", test[0].labels, test[0].patient)], "1 patients with 2 images of the test set"
    elif kind == "file":
        leaked, words = [type(test[0])(test[0].image, "", test[0].labels, "someone")], "1 files"
    else:
        leaked, words = saved_anew(test[0], tmp_path / "again", "someone"), "1 images that were saved anew"
    given = {"real": real, "synthetic": synthetic, "generator": real}
    given[where] = [*given[where], *leaked]
    with pytest.raises(DataError, match=words) as error:
        downstream(given["real"], given["synthetic"], test, study(pictures=kind == "picture"), QUICK, out=tmp_path / "out",
                   generator=given["generator"])
    assert where in str(error.value) and not (tmp_path / "out").exists()


def test_sets_that_share_nothing_are_taken_and_what_was_not_looked_at_is_said(images, tmp_path, result):
    options = study(protocols=(REAL,), fractions=("100",), seeds=1, pictures=True)
    looked = downstream(images[0][:16], {}, images[2][:8], options, QUICK, out=tmp_path)
    assert not any("saved anew" in notice for notice in looked.notices)
    assert any("saved anew was NOT checked" in notice for notice in result.notices)


def test_it_must_be_known_what_the_generator_learnt_from(images, tmp_path):
    real, _, test = images
    drawn = draw(tmp_path, 8, "synthetic")
    strict = study(unchecked_generator=False, protocols=(SYNTHETIC,), seeds=1)

    def run(**more):
        return downstream(real, drawn, test, strict, QUICK, out=tmp_path / "out", **more).notices[0]

    with pytest.raises(DataError, match="the set does not say"):
        run()
    assert "learnt from the 10 images given; no test patient or image is among them" in run(generator=real[:10])
    info = {"made_by": "medtune sample", "base": {"notice": ""}, "adapter": {"hash": "x", "data_hash": "0" * 64}}
    ImageSet(drawn[0].image.parent).write_info(info)
    with pytest.raises(DataError, match="its adapter's data are not the real training images"):
        run()
    ImageSet(drawn[0].image.parent).write_info({**info, "adapter": {"data_hash": hash_records(real)}})
    assert "real training images of this study" in run()
    assert "the very images that its adapter names" in run(generator=real)
    ImageSet(drawn[0].image.parent).write_info({**info, "adapter": None, "base": {"notice": "the embedded base is for trying"}})
    assert "the base as it came" in run()


# Bad input.


def test_labels_spelled_otherwise_are_refused_with_the_near_name(images, tmp_path):
    real, synthetic, test = images
    other = draw(tmp_path, 4, "synthetic", (("Brigth",), ("Dark",)))
    with pytest.raises(DataError, match=r"2 of 4 synthetic images .* 'Brigth' \(did you mean 'Bright'\?\)"):
        downstream(real, other, test, study(), QUICK, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"2 of 4 synthetic \(lora\) images .* 'Brigth'"):
        downstream(real, {"full": synthetic, "lora": other}, test, study(), QUICK, out=tmp_path / "out")
    strange = draw(tmp_path, 4, "test", (("Round",), ("Square",)))
    with pytest.raises(DataError, match="4 of 4 test images have labels that no real training image has: 'Round', 'Square'"):
        downstream(real, synthetic, strange, study(), QUICK, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"no real training image has the label 'Birght' \(did you mean 'Bright'\?\)"):
        downstream(real, synthetic, test, study(labels=("Birght", "Dark")), QUICK, out=tmp_path / "out")


def test_a_class_without_positives_among_the_test_images_has_no_figure(images, tmp_path):
    real, _, test = images
    bright = [record for record in test if record.labels == ("Bright",)]
    result = downstream(real, {}, bright, study(protocols=(REAL,), fractions=("100",), seeds=1), QUICK, out=tmp_path)
    point = result.point(REAL, 1.0, "auroc", "Dark")
    assert point["value"] is None and "of the 20 test images none has Dark" in point["reason"]
    assert result.point(REAL, 1.0, "auroc", MACRO)["value"] is None and result.point(REAL, 1.0, "brier", "Dark")["value"] is not None


def test_a_fraction_without_a_class_says_so(tmp_path, images):
    kinds = (*[("Dark",)] * 11, ("Bright",))
    real = draw(tmp_path, 48, "real", kinds)
    result = downstream(real, {}, images[2], study(protocols=(REAL,), fractions=("1", "100"), seeds=1), QUICK, out=tmp_path / "out")
    trial = next(trial for trial in result.trials if trial["fraction"] == 0.01)
    assert trial["n_real"] == 2 and "none has Bright" in trial["reason"] and "all have Dark" in trial["reason"]
    assert trial["folder"] is None and all(row["value"] is None and row["reason"] == trial["reason"] for row in trial["figures"])
    assert result.point(REAL, 1.0)["value"] is not None


def test_more_synthetic_images_than_there_are_is_a_reason(images, tmp_path):
    result = downstream(*images, study(protocols=(MIXED,), ratios=("1", "5"), fractions=("10", "100"), seeds=1), QUICK, out=tmp_path)
    assert [trial["n_synthetic"] for trial in result.trials if trial["ratio"] == "1" and trial["fraction"] == 0.1] == [4]
    point = result.point("real+synthetic 1:5", 1.0)
    assert point["value"] is None and "asks for" in point["reason"] and "there are 24" in point["reason"]


@pytest.mark.parametrize(("change", "words"), [
    (lambda real, synthetic, test: (real[:1], synthetic, test), "have labels that no real training image has: 'Dark'"),
    (lambda real, synthetic, test: (real[:1], {}, test[:2]), "needs synthetic images"),
    (lambda real, synthetic, test: (real, [], test), "the synthetic set holds no images"),
    (lambda real, synthetic, test: (real, {}, test), "needs synthetic images, and no set was given"),
    (lambda real, synthetic, test: (real, synthetic, []), "there are no test images"),
    (lambda real, synthetic, test: ([], synthetic, test), "there are no real training images")])
def test_sets_that_do_not_suffice_are_refused(images, tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        downstream(*change(*images), study(), QUICK, out=tmp_path)


def test_settings_outside_of_what_is_allowed_are_refused(images, tmp_path):
    for values, words in (({"protocols": ("real",)}, "did you mean 'real-only'"), ({"protocols": ()}, ", ".join(PROTOCOLS)),
                          ({"fractions": ("0",)}, "at most 100"), ({"ratios": ("x",)}, "neither all")):
        with pytest.raises(ConfigError, match=words.replace("+", r"\+")):
            downstream(*images, study(**values), QUICK, out=tmp_path)


def test_one_image_of_one_kind_says_what_is_missing(tmp_path):
    save_image(torch.rand(1, 40, 40), tmp_path / "one.png")
    record = draw(tmp_path, 2, "real")[0]
    one = [type(record)(tmp_path / "one.png", "", ("Bright",))]
    with pytest.raises(DataError, match="the 1 real training images have the labels Bright: a classifier needs at least two kinds"):
        downstream(one, {}, draw(tmp_path, 4, "test", (("Bright",),)), study(protocols=(REAL,)), QUICK, out=tmp_path / "out")
