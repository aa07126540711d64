"""Networks of timm against timm's own pipeline: its transform, its features."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from medtune.errors import ConfigError, Missing, ModelError
from medtune.evaluation.extractor import EXTRACTORS, make_extractor
from PIL import Image
from safetensors.torch import save_file

NETWORKS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet_gn.r160_in1k")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, randomise):
    """A function network -> (timm's own model with random weights, the file of all its tensors, classifier and all)."""
    folder, known = tmp_path_factory.mktemp("timm"), {}

    def save(name):
        if name not in known:
            model = randomise(timm.create_model(name, pretrained=False))
            save_file(model.state_dict(), folder / f"{name}.safetensors")
            known[name] = model, folder / f"{name}.safetensors"
        return known[name]

    return save


def expected(model, folder):
    """timm's own way from files to features."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))])
    with torch.no_grad():
        return model.forward_head(model.forward_features(images), pre_logits=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_timm(name, saved, pictures, read, record_property):
    model, path = saved(name)
    extractor = make_extractor("timm", network=name, weights=str(path), device="cpu")
    values, wanted = extractor.features(read(pictures)), expected(model, pictures)
    error = float((values - wanted).abs().max() / wanted.abs().max())
    record_property("measured", {f"timm {name} against timm": error})
    assert values.shape == wanted.shape and error < 1e-5 and wanted.std(0).mean() > 1e-3 * wanted.abs().max()
    assert f"{name}-" in extractor.id and extractor.about()["reading"]["input_size"] == [3, 160, 160]
    assert json.dumps(extractor.about()) and name in extractor.limits()[0]


def test_a_folder_of_the_hub_says_its_network(saved, pictures, read, tmp_path):
    name = NETWORKS[0]
    model, path = saved(name)
    timm.models.save_for_hf(model, tmp_path / "mine", safe_serialization=True)
    extractor = make_extractor("timm", weights=str(tmp_path / "mine"), device="cpu")
    by_file = make_extractor("timm", network=name, weights=str(path), device="cpu")
    assert torch.equal(extractor.features(read(pictures)), by_file.features(read(pictures))) and "test_resnet" in extractor.id
    (tmp_path / "mine" / "config.json").unlink()
    with pytest.raises(Missing, match=r"mine lacks config\.json"):
        make_extractor("timm", weights=str(tmp_path / "mine"))


def test_a_training_checkpoint_with_other_classes_and_without_any(saved, pictures, read, tmp_path):
    name = NETWORKS[0]
    model, path = saved(name)
    tensors = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    wanted = make_extractor("timm", network=name, weights=str(path), device="cpu").features(read(pictures))
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in
                                           {**tensors, "fc.weight": torch.zeros(7, 96), "fc.bias": torch.zeros(7)}.items()}},
               tmp_path / "tuned.pth")
    save_file(tensors, tmp_path / "bare.safetensors")
    for file in ("tuned.pth", "bare.safetensors"):
        extractor = make_extractor("timm", network=name, weights=str(tmp_path / file), device="cpu")
        assert torch.equal(extractor.features(read(pictures)), wanted)


def test_the_standard_place(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTUNE_WEIGHTS", str(tmp_path))
    name = NETWORKS[0]
    assert "resnet50.a1_in1k.safetensors or resnet50.a1_in1k into" in EXTRACTORS["timm"].missing()
    with pytest.raises(Missing, match=rf"put {name}\.safetensors.*huggingface\.co/timm/{name}"):
        make_extractor("timm", network=name)
    with pytest.raises(Missing, match=r"there are no weights at mine\.safetensors, nor below"):
        make_extractor("timm", network=name, weights="mine.safetensors")
    (tmp_path / f"{name}.safetensors").hardlink_to(saved(name)[1])
    first = make_extractor("timm", network=name).id
    assert first == make_extractor("timm", network=name, weights=f"{name}.safetensors").id


def test_wrong_names_and_wrong_weights_are_said(saved, tmp_path):
    path = str(saved(NETWORKS[0])[1])
    with pytest.raises(ConfigError, match=r"timm has no network 'test_resnett' \(did you mean 'test_resnet'\?\)"):
        make_extractor("timm", network="test_resnett", weights=path)
    with pytest.raises(ConfigError, match=r"no weights 'r16_in1k' of test_resnet \(did you mean 'r160_in1k'\?\)"):
        make_extractor("timm", network="test_resnet.r16_in1k", weights=path)
    with pytest.raises(ModelError, match=r"not the weights of timm's test_vit\.r160_in1k: \d+ tensors are missing \(\S+, \S+, "):
        make_extractor("timm", network=NETWORKS[1], weights=path)
    part = dict(list(saved(NETWORKS[0])[0].state_dict().items())[2:])
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match="2 tensors are missing"):
        make_extractor("timm", network=NETWORKS[0], weights=str(tmp_path / "part.safetensors"))
