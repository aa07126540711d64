"""Networks of open_clip against open_clip's own pipeline: images, captions, folders, and a text network of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from medtune.errors import ConfigError, Missing, ModelError
from medtune.evaluation.extractor import EXTRACTORS, make_extractor
from medtune.evaluation.networks.clip import _text_network, load_folder
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

SMALL = {"embed_dim": 24, "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
         "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}}
CAPTIONS = ["a chest radiograph", "pleural effusion, left side"]
LONG = "a very long caption with many more words than this small network reads at once"
BERT = {"model_type": "bert", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 32}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "chest", "radiograph", "pleural", "effusion", ",", "left", "side", "very",
         "long", "caption", "with", "many", "more", "words", "than", "this"]


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """The name of a small network that open_clip knows like its own."""
    path = tmp_path_factory.mktemp("configs") / "medtune-small.json"
    path.write_text(json.dumps(SMALL))
    open_clip.add_model_config(path)
    return "medtune-small"


@pytest.fixture(scope="module")
def network(registered, randomise):
    """open_clip's own network of that name, with random weights."""
    return randomise(open_clip.create_model(registered))


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    """The same as a folder of the hub."""
    folder = tmp_path_factory.mktemp("clip") / "small"
    folder.mkdir()
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": preprocess}))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory, randomise):
    """A folder as BiomedCLIP's: images by timm, captions by a BERT of transformers with its own tokenizer, weights as a .bin file."""
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("clip") / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(BERT))
    config = {"embed_dim": 24,
              "vision_cfg": {"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear",
                             "image_size": 160},
              "text_cfg": {"hf_model_name": "medtune/none", "hf_tokenizer_name": "medtune/none", "hf_proj_type": "mlp",
                           "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 12}}
    here = {**config, "text_cfg": {**config["text_cfg"], "hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": here, "preprocess_cfg": {}}))
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False, pretrained_image=False)
    randomise(network)
    torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder, network


def theirs(network, transform, tokenizer, pictures):
    """open_clip's own way: (image features, caption features), not scaled."""
    images = torch.stack([transform(Image.open(path)) for path in sorted(pictures.glob("*.png"))])
    with torch.no_grad():
        return network.encode_image(images), network.encode_text(tokenizer(CAPTIONS))


def error(values, expected):
    return float((values - expected).abs().max() / expected.abs().max())


def test_a_folder_gives_what_open_clip_gives(folder, pictures, read, record_property):
    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    images, texts = theirs(network.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}"), pictures)
    raw = make_extractor("open-clip", weights=str(folder), normalise=False, device="cpu")
    errors = error(raw.features(read(pictures)), images), error(raw.text_features(CAPTIONS), texts)
    record_property("measured", {"open_clip images": errors[0], "open_clip captions": errors[1]})
    assert max(errors) < 1e-5 and images.std(0).mean() > 1e-3 and texts.std(0).mean() > 1e-3
    unit = make_extractor("open-clip", weights=str(folder), device="cpu")
    assert error(unit.features(read(pictures)), functional.normalize(images, dim=-1)) < 1e-5
    assert error(unit.text_features(CAPTIONS), functional.normalize(texts, dim=-1)) < 1e-5
    assert unit.id != raw.id and unit.reads_text and unit.logit_scale == pytest.approx(network.logit_scale.exp().item())


def test_a_file_with_a_name_gives_the_same_but_for_the_preprocessing(folder, registered, pictures, read):
    path = str(folder / "open_clip_model.safetensors")
    network, transform = open_clip.create_model_from_pretrained(registered, pretrained=path)
    images, texts = theirs(network.eval(), transform, open_clip.get_tokenizer(registered), pictures)
    extractor = make_extractor("open-clip", network=registered, weights=path, normalise=False, device="cpu")
    assert error(extractor.features(read(pictures)), images) < 1e-5 and error(extractor.text_features(CAPTIONS), texts) < 1e-5
    assert registered in extractor.id and json.dumps(extractor.about())


def test_a_text_network_of_transformers_needs_no_hub(bert, pictures, read):
    folder, network = bert
    _, transform, tokenizer = load_folder(folder)
    images, texts = theirs(network, transform, tokenizer, pictures)
    extractor = make_extractor("biomedclip", weights=str(folder), normalise=False, device="cpu")
    assert error(extractor.features(read(pictures)), images) < 1e-5 and error(extractor.text_features(CAPTIONS), texts) < 1e-5
    assert extractor.id.startswith("biomedclip-") and texts.std(0).mean() > 1e-3
    assert extractor.exceeds([CAPTIONS[1], LONG]) == [False, True]
    (folder / "config.json").rename(folder / "away.json")
    with pytest.raises(Missing, match=r"put config\.json of https://huggingface\.co/medtune/none into it"):
        make_extractor("biomedclip", weights=str(folder))
    (folder / "away.json").rename(folder / "config.json")


def test_biomedclips_text_network_needs_no_configuration(tmp_path):
    """It is of BERT's base shape."""
    with _text_network(tmp_path, {"hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"}) as folder:
        shape = json.loads((Path(folder) / "config.json").read_text())
    wanted = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
              "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    assert {name: shape[name] for name in wanted} == wanted and shape["model_type"] == "bert"


def test_a_caption_that_is_cut_is_known(folder):
    extractor = make_extractor("open-clip", weights=str(folder), device="cpu")
    fits = "a chest a chest a chest a chest a chest"  # ten words and two marks: the twelve tokens there are
    assert extractor.exceeds([fits, f"{fits} a", LONG]) == [False, True, True]


def test_wrong_requests_are_said(folder, registered, tmp_path, monkeypatch):
    path = str(folder / "open_clip_model.safetensors")
    monkeypatch.setenv("MEDTUNE_WEIGHTS", str(tmp_path))
    assert "vit_large_patch14_clip_336.openai" in EXTRACTORS["open-clip"].missing()
    with pytest.raises(Missing, match="BiomedCLIP-PubMedBERT_256"):
        make_extractor("biomedclip")
    with pytest.raises(ConfigError, match=r"network is 'ViT-B-33' \(did you mean 'ViT-B-32'\?\)"):
        make_extractor("open-clip", network="ViT-B-33", weights=path)
    with pytest.raises(ConfigError, match="leave network empty"):
        make_extractor("open-clip", network=registered, weights=str(folder))
    with pytest.raises(ConfigError, match="tokenizer of ViT-B-16-SigLIP is not part of open_clip"):
        make_extractor("open-clip", network="ViT-B-16-SigLIP", weights=path)


def test_wrong_weights_are_said(folder, network, registered, tmp_path):
    tensors = dict(network.state_dict())
    del tensors["ln_final.bias"]
    save_file({**tensors, "head.bias": torch.zeros(3)}, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match=r"open_clip's medtune-small: 1 tensors are missing \(ln_final\.bias\); 1 belong"):
        make_extractor("open-clip", network=registered, weights=str(tmp_path / "part.safetensors"))
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_model.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match="is no configuration of open_clip"):
        make_extractor("open-clip", weights=str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(ModelError, match="truncated or damaged"):
        make_extractor("open-clip", weights=str(tmp_path))
    with pytest.raises(Missing, match=r"lacks open_clip_model\.safetensors or"):
        (tmp_path / "open_clip_model.safetensors").unlink()
        make_extractor("open-clip", weights=str(tmp_path))
