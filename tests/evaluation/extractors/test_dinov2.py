"""DINOv2 and RAD-DINO against transformers' own pipeline, on a folder of the true layout with random weights."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from medtune.errors import Missing, ModelError
from medtune.evaluation.extractor import EXTRACTORS, make_extractor
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, BertConfig, BitImageProcessor, Dinov2Config, Dinov2Model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, randomise):
    """A DINOv2 of two layers, and the preprocessor as RAD-DINO has it but for its size."""
    folder = tmp_path_factory.mktemp("dino") / "model"
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14)
    randomise(Dinov2Model(config)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 80}, crop_size={"height": 70, "width": 70}, resample=3, image_mean=[0.5307] * 3,
                      image_std=[0.2583] * 3).save_pretrained(folder)
    return folder


def copy(folder, to):
    shutil.copytree(folder, to)
    return to


@pytest.mark.parametrize("name", ["dinov2", "rad-dino"])
def test_features_are_those_of_transformers(name, folder, pictures, read, record_property):
    images = [Image.open(path).convert("RGB") for path in sorted(pictures.glob("*.png"))]
    network = Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = network(**AutoImageProcessor.from_pretrained(folder)(images=images, return_tensors="pt")).pooler_output
    extractor = make_extractor(name, weights=str(folder), device="cpu")
    values = extractor.features(read(pictures))
    error = float((values - wanted).abs().max() / wanted.abs().max())
    record_property("measured", {f"{name} against transformers": error})
    assert values.shape == (3, 32) and error < 1e-5 and wanted.std(0).mean() > 1e-3
    assert extractor.id.startswith(f"{name}-") and extractor.about()["layers"] == 2 and json.dumps(extractor.about())
    assert ("CheXpert" in extractor.limits()[0]) == (name == "rad-dino")


def test_the_id_follows_weights_and_preprocessor(folder, tmp_path):
    first = make_extractor("dinov2", weights=str(folder)).id
    assert first == make_extractor("dinov2", weights=str(copy(folder, tmp_path / "same"))).id
    other = copy(folder, tmp_path / "other")
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}))
    assert first != make_extractor("dinov2", weights=str(other)).id


def test_the_standard_place(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTUNE_WEIGHTS", str(tmp_path))
    assert "put rad-dino into" in EXTRACTORS["rad-dino"].missing() and "microsoft/rad-dino" in EXTRACTORS["rad-dino"].missing()
    with pytest.raises(Missing, match=r"facebook/dinov2-large"):
        make_extractor("dinov2")
    copy(folder, tmp_path / "rad-dino")
    assert EXTRACTORS["rad-dino"].missing() is None and make_extractor("rad-dino").about()["folder"] == "rad-dino"


def test_what_is_wrong_with_a_folder_is_said(folder, tmp_path):
    def broken(name):
        return copy(folder, tmp_path / name)

    bare = broken("bare")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(Missing, match=r"bare lacks model\.safetensors.*medtune convert-weights pytorch_model\.bin"):
        make_extractor("dinov2", weights=str(bare))
    part = broken("part")
    tensors = load_file(part / "model.safetensors")
    del tensors["layernorm.weight"], tensors["encoder.layer.1.mlp.fc2.bias"]
    save_file({**tensors, "head.weight": torch.zeros(2)}, part / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"2 tensors are missing \(encoder\S+, layernorm\.weight\); 1 belong to something else"):
        make_extractor("dinov2", weights=str(part))
    cut = broken("cut")
    (cut / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ModelError, match="truncated or damaged"):
        make_extractor("dinov2", weights=str(cut))
    other = broken("other")
    BertConfig().save_pretrained(other)
    with pytest.raises(ModelError, match="of type 'bert'; it must be 'dinov2'"):
        make_extractor("dinov2", weights=str(other))
