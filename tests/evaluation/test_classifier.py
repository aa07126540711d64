"""The classifier: what it learns from, that it is made once, and that its weights follow from data and options."""

from __future__ import annotations

import json

import pytest
import torch
from medtune.data.image_set import ImageSet
from medtune.errors import ConfigError, DataError, ModelError
from medtune.evaluation.classifiers.in_domain import ClassifierOptions, load_classifier, train_classifier

QUICK = ClassifierOptions(size=64, steps=3, batch=4)


def draw(folder, count=20, splits=(None,), kinds=("Bright", "Dark")):
    """Noisy grey images with a bright or a dark middle."""
    generator, image_set = torch.Generator().manual_seed(0), ImageSet(folder)
    for index in range(count):
        image = 0.5 + 0.1 * torch.randn((1, 64, 64), generator=generator)
        kind = kinds[index % len(kinds)]
        image[:, 16:48, 16:48] += {"Bright": 0.3, "Dark": -0.3}.get(kind, 0)
        image_set.append(image.clamp(0, 1).expand(3, -1, -1), kind.lower(), (kind,), split=splits[index // 2 % len(splits)])
    return image_set.records


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    return train_classifier(records, QUICK, tmp_path_factory.mktemp("classifiers"))


def weights(folder):
    return json.loads((folder / "config.json").read_text())["weights"]


def test_it_learns_to_tell_its_labels_apart(records, tmp_path):
    folder = train_classifier(records, ClassifierOptions(size=64, steps=60, batch=8), tmp_path)
    about = json.loads((folder / "config.json").read_text())
    assert min(about["auroc"].values()) > 0.9 and about["n_train"] + about["n_held_out"] == 20 and about["n_held_out"] >= 4


def test_it_is_trained_once(records, trained):
    def never(done, total):
        raise AssertionError("trained again")

    assert train_classifier(records, QUICK, trained.parent, never) == trained


def test_same_data_and_seed_same_weights(records, trained, tmp_path):
    torch.manual_seed(12345)
    before = torch.random.get_rng_state()
    again = train_classifier(records, QUICK, tmp_path)
    assert weights(again) == weights(trained) and again.name == trained.name
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's random numbers were used
    other = train_classifier(records, ClassifierOptions(size=64, steps=3, batch=4, seed=1), tmp_path)
    assert weights(other) != weights(trained) and other.name != trained.name


def test_a_damaged_one_is_made_again(records, tmp_path):
    folder = train_classifier(records, QUICK, tmp_path)
    good = weights(folder)
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="train again"):
        load_classifier(folder)
    assert train_classifier(records, QUICK, tmp_path) == folder
    assert weights(folder) == good and load_classifier(folder).labels == ("Bright", "Dark")


def test_test_images_are_never_learned_from(tmp_path):
    records = draw(tmp_path / "images", 24, splits=("train", "val", "test"))
    about = json.loads((train_classifier(records, QUICK, tmp_path / "out") / "config.json").read_text())
    assert (about["n_train"], about["n_held_out"], len(about["seen"])) == (8, 8, 8)
    without = train_classifier([record for record in records if record.split != "test"], QUICK, tmp_path / "out")
    assert weights(without) == about["weights"]


def test_auroc_is_undefined_without_positives(tmp_path):
    records = draw(tmp_path / "images", 24, kinds=("Bright", "Dark", "Rare"))
    rare = [record for record in records if record.labels == ("Rare",)]
    records = [record for record in records if record not in rare[1:]]
    about = json.loads((train_classifier(records, QUICK, tmp_path / "out") / "config.json").read_text())
    assert about["auroc"].get("Rare") is None and about["auroc"]["Bright"] is not None


def test_it_can_be_trained_in_inference_mode(records, trained, tmp_path):
    with torch.inference_mode():
        folder = train_classifier(records, QUICK, tmp_path)
        assert load_classifier(folder).features(torch.rand(1, 3, 64, 64)).isfinite().all()
    assert weights(folder) == weights(trained)


@pytest.mark.parametrize("labels, words", [((), "none"), (("Same",), "Same")])
def test_without_two_kinds_there_is_nothing_to_learn(tmp_path, labels, words):
    image_set = ImageSet(tmp_path / "images")
    for _ in range(4):
        image_set.append(torch.rand(3, 32, 32), "x", labels)
    with pytest.raises(DataError, match=words):
        train_classifier(image_set.records, QUICK, tmp_path)


def test_unknown_networks_are_refused(records, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        train_classifier(records, ClassifierOptions(network="resnet-18"), tmp_path)


def test_features_have_a_fixed_scale(records, trained):
    from medtune.data.image import read_image

    model = load_classifier(trained)
    images = torch.stack([read_image(record.image, 512) for record in records])
    values = model.features(images)
    assert values.square().mean().sqrt().item() == pytest.approx(1, rel=0.2)
    assert torch.allclose(model.features(images[:3]), values[:3], atol=1e-4)  # evaluation mode: no neighbour has a say
