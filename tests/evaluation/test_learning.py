"""How a downstream network starts, learns and is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from medtune.errors import ConfigError, Missing, ModelError
from medtune.evaluation.classifiers.learning import Lesson, _Order, find_loss, learn, loss_weights, predict
from medtune.evaluation.classifiers.network import MULTI, SINGLE, LearningOptions, Network, load_network, new_network, write_network
from medtune.evaluation.networks.weights import read_tensors
from medtune.files import hash_file
from safetensors.torch import save_file
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

TINY = {"network": "test_vit", "size": 64}


class Noise:
    """Noisy images of two tones, by index, with no file behind them."""

    def __init__(self, count=40, apart=0.2):
        generator = torch.Generator().manual_seed(0)
        self.targets = functional.one_hot(torch.arange(count) % 2, 2).float()
        tones = apart * (self.targets[:, :1, None, None] - 0.5)
        self.images = 0.5 + tones + 0.1 * torch.randn((count, 1, 64, 64), generator=generator)

    def __call__(self, indices):
        return self.images[list(indices)]


def lesson(pictures, options, steps=None, validation=range(30, 40)):
    return Lesson(pictures, pictures.targets, range(30), validation, steps or options.steps, options.lr)


@pytest.mark.parametrize("mode", [SINGLE, MULTI])
def test_it_learns(mode):
    torch.manual_seed(0)
    options, pictures = LearningOptions(**TINY, steps=12, batch=8, lr=1e-3), Noise()
    model = new_network(options, ("A", "B"), mode)
    steps = []
    assert learn(model, lesson(pictures, options), lambda step, total: steps.append((step, total))).steps == 12
    found = predict(model, pictures, range(30, 40))
    assert (found[:, 0] > found[:, 1]).tolist() == pictures.targets[30:, 0].bool().tolist()
    assert steps[-1] == (12, 12) and not model.training
    assert torch.allclose(found.sum(1), torch.ones(10), atol=1e-5) == (mode == SINGLE)


def test_it_stops_early_and_takes_the_best_state():
    torch.manual_seed(0)
    options = LearningOptions(**TINY, steps=60, batch=8, lr=1e-3, patience=2, check_every=2)
    pictures = Noise()
    pictures.targets[30:] = 1 - pictures.targets[30:]  # what is learnt from the training images is wrong of these
    model = new_network(options, ("A", "B"), SINGLE)
    taken = lesson(pictures, options)
    learnt = learn(model, taken)
    assert learnt.steps < 60 and learnt.best_step <= learnt.steps - 4
    inputs = model.normalise(pictures(range(30, 40)))
    assert find_loss(model, inputs, pictures.targets[30:], torch.ones(2)).item() == pytest.approx(learnt.validation_loss, rel=1e-4)


def test_rare_findings_weigh_what_makes_up_for_their_number():
    targets = torch.tensor([[1.0, 0]] * 30 + [[0.0, 1]] * 10)
    pictures = Noise()
    taken = Lesson(pictures, targets, range(40), (), 1, 1e-3)
    single = Network(LearningOptions(**TINY, balance="loss"), ("A", "B"), SINGLE)
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=targets.argmax(1).numpy())
    assert loss_weights(taken, single).tolist() == pytest.approx(expected.tolist())
    assert loss_weights(taken, Network(single.options, ("A", "B"), MULTI)).tolist() == pytest.approx([10 / 30, 3])
    assert loss_weights(taken, Network(LearningOptions(**TINY), ("A", "B"), MULTI)).tolist() == [1, 1]


def test_rare_findings_are_shown_more_often():
    torch.manual_seed(0)
    targets = torch.tensor([[1.0, 0]] * 90 + [[0.0, 1]] * 10)
    taken = Lesson(Noise(), targets, range(100), (), 1, 1e-3)
    shown = _Order(taken, LearningOptions(**TINY, balance="sampling")).take(4000)
    assert targets[shown, 1].mean().item() == pytest.approx(0.5, abs=0.05)
    plain = _Order(taken, LearningOptions(**TINY)).take(200)
    assert sorted(plain[:100]) == list(range(100)) == sorted(plain[100:])


@pytest.mark.parametrize("colour", [True, False])
def test_published_weights_are_taken_but_for_the_last_layer(tmp_path, colour):
    torch.manual_seed(1)
    published = timm.create_model("test_vit", num_classes=1000)
    save_file(published.state_dict(), tmp_path / "published.safetensors")
    options = LearningOptions(network="test_vit", size=160, colour=colour, weights=str(tmp_path / "published.safetensors"))
    model = new_network(options, ("A", "B", "C"), MULTI)
    first, wanted = model.network.patch_embed.proj.weight, published.patch_embed.proj.weight
    assert torch.allclose(first, wanted if colour else wanted.sum(1, keepdim=True), atol=1e-6)
    assert torch.equal(model.network.blocks[0].attn.qkv.weight, published.blocks[0].attn.qkv.weight)
    assert model.network.head.weight.shape == (3, published.head.weight.shape[1])
    mean, deviation = model.normalisation
    given = [published.pretrained_cfg[name] for name in ("mean", "std")]
    wanted = given if colour else [[sum(values) / 3] for values in given]
    assert [mean, deviation] == [pytest.approx(values) for values in wanted]


@pytest.mark.parametrize(("name", "content", "error", "words"), [
    ("nowhere.safetensors", None, Missing, "nowhere.safetensors"),
    ("cut.safetensors", b"\x90\x00\x00\x00\x00\x00\x00\x00{}", ModelError, "truncated"),
    ("page.pth", b"<html>", ModelError, "web page")])
def test_weights_that_cannot_be_used_are_refused(tmp_path, name, content, error, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        new_network(LearningOptions(**TINY, weights=str(tmp_path / name)), ("A", "B"), SINGLE)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="does not hold the weights of timm's test_vit"):
        new_network(LearningOptions(**TINY, weights=str(tmp_path / "other.safetensors")), ("A", "B"), SINGLE)
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        new_network(LearningOptions(network="resnet-18"), ("A", "B"), SINGLE)


def test_a_network_is_kept_whole(tmp_path):
    torch.manual_seed(0)
    model = new_network(LearningOptions(**TINY), ("A", "B"), MULTI).eval()
    model.normalise_by(((0.4,), (0.3,)))
    write_network(tmp_path, model, {"seen": []})
    again, images = load_network(tmp_path), torch.rand(2, 3, 90, 80)
    assert torch.equal(again.probabilities(again.prepare(images)), model.probabilities(model.prepare(images)))
    assert (again.labels, again.mode, again.about["seen"]) == (("A", "B"), MULTI, [])
    assert all(key in read_tensors(tmp_path / "model.safetensors") for key in again.state_dict())
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="train it again"):
        load_network(tmp_path)


def test_the_in_domain_network_is_told_from_a_classifier(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"weights": hash_file(tmp_path / "model.safetensors"), "options": {}}))
    with pytest.raises(ModelError, match="another kind"):
        load_network(tmp_path)
