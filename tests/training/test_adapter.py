"""Adapter files: written whole, read with care, merged like stock loaders do."""

import datetime
import hashlib
import json

import pytest
import torch
from medtune import files
from medtune.config import to_json
from medtune.errors import MedTuneError, Missing, ModelError
from medtune.training.adapter import Adapter, apply_adapter, make_header, read_adapter, write_adapter
from medtune.training.base import base_from_tensors
from medtune.training.keys import UNET_PREFIX
from medtune.training.method import METHODS
from medtune.training.methods.lora import LoRAConfig
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file


@pytest.fixture
def header(random_base):
    return make_header(random_base, METHODS["lora"](), title="lungs", steps=20, lr=1e-4, images=24, data_hash="ab" * 32, size=512,
                       options={"steps": 40, "batch": 2, "seed": 5}, thumbnail=Image.new("RGB", (512, 300), "grey"))


def test_the_header(random_base, header):
    assert header["modelspec.sai_model_spec"] == "1.0.0" and header["modelspec.title"] == "lungs"
    assert header["modelspec.architecture"] == "medtune-embedded/lora" and header["modelspec.prediction_type"] == "epsilon"
    assert header["modelspec.resolution"] == "512x512"
    assert datetime.datetime.fromisoformat(header["modelspec.date"].replace("Z", "+00:00")).tzinfo
    assert header["modelspec.thumbnail"].startswith("data:image/jpeg;base64,/9j/")
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("8", "16.0")
    assert (header["ss_steps"], header["ss_max_train_steps"]) == ("20", "40")
    assert (header["ss_num_train_images"], header["ss_learning_rate"], header["ss_seed"]) == ("24", "0.0001", "5")
    assert header["ss_new_sd_model_hash"] == header["medtune.base_hash"] == random_base.hash
    assert json.loads(header["medtune.config"]) == to_json(LoRAConfig()) and LoRAConfig().rank == 8
    assert json.loads(header["medtune.options"])["batch"] == 2 and header["medtune.method"] == "lora"
    assert header["medtune.data_hash"] == "ab" * 32 and "embedded base" in header["medtune.notice"]
    assert all(isinstance(value, str) for value in header.values())


def test_write_and_read(random_base, header, tmp_path):
    tensors = {"lora_unet_conv_in.lora_down.weight": torch.randn(2, 4, 3, 3),
               "lora_unet_conv_in.lora_up.weight": torch.randn(32, 2, 1, 1),
               "lora_unet_conv_in.alpha": torch.tensor(2.0)}
    path = write_adapter(tmp_path / "new" / "a.safetensors", tensors, header)
    adapter = read_adapter(path)
    assert adapter.tensors.keys() == tensors.keys() and all(torch.equal(adapter.tensors[key], tensors[key]) for key in tensors)
    assert adapter.config() == json.loads(header["medtune.config"]) and header.items() <= adapter.header.items()
    assert adapter.header["ss_network_module"] == "networks.lora"
    content = path.read_bytes()
    digest = hashlib.sha256(content[int.from_bytes(content[:8], "little") + 8:]).hexdigest()
    assert adapter.header["modelspec.hash_sha256"] == "0x" + digest and adapter.header["sshs_model_hash"] == digest
    with safe_open(path, "pt") as file:  # the file is still a valid one
        assert set(file.keys()) == set(tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path, value):
    tensors = {"lora_unet_conv_in.diff_b": torch.full((32,), value)}
    with pytest.raises(ModelError, match=r"NaN or infinite values: lora_unet_conv_in\.diff_b"):
        write_adapter(tmp_path / "a.safetensors", tensors, {})
    assert not list(tmp_path.iterdir())
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match="NaN or infinite"):
        read_adapter(tmp_path / "b.safetensors")


def test_no_tensors(tmp_path):
    with pytest.raises(ModelError, match="no tensors"):
        write_adapter(tmp_path / "a.safetensors", {}, {})


def test_a_full_disk_leaves_the_former_file(tmp_path, monkeypatch):
    path = write_adapter(tmp_path / "a.safetensors", {"lora_unet_conv_in.diff_b": torch.ones(32)}, {})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(MedTuneError, match="No space left on device"):
        write_adapter(path, {"lora_unet_conv_in.diff_b": torch.zeros(32)}, {})
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"<html>", "web page"), (b"PK\x03\x04" + bytes(99), "pickle")])
def test_a_file_that_is_no_adapter(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_adapter(tmp_path / "a.safetensors")


def test_a_truncated_a_whole_and_a_missing_file(tmp_path, weights):
    path = write_adapter(tmp_path / "a.safetensors", {"lora_unet_conv_in.diff_b": torch.ones(32)}, {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match="truncated"):
        read_adapter(path)
    save_file({UNET_PREFIX + "input_blocks.0.0.weight": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match="is a Stable Diffusion checkpoint, not an adapter"):
        read_adapter(tmp_path / "b.safetensors")
    with pytest.raises(Missing, match="there is no file"):
        read_adapter(tmp_path / "c.safetensors")


def test_a_low_rank_update(random_base):
    """W + strength * alpha / rank * up @ down; without alpha, alpha is the rank."""
    name, ldm = "down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q", "input_blocks.5.1.transformer_blocks.0.attn1.to_q"
    up, down = torch.randn(128, 2), torch.randn(2, 128)
    weight = random_base.unet.get_parameter(f"{name}.weight").clone()
    apply_adapter(random_base, Adapter({f"lora_unet_{name.replace('.', '_')}.lora_up.weight": up,
                                 f"lora_unet_{name.replace('.', '_')}.lora_down.weight": down,
                                 f"lora_unet_{name.replace('.', '_')}.alpha": torch.tensor(4.0)}, {}), strength=0.5)
    torch.testing.assert_close(random_base.unet.get_parameter(f"{name}.weight"), weight + 0.5 * 2 * up @ down)
    back = Adapter({f"diffusion_model.{ldm}.lora_up.weight": up, f"diffusion_model.{ldm}.lora_down.weight": down}, {})
    apply_adapter(random_base, back, strength=-1)
    torch.testing.assert_close(random_base.unet.get_parameter(f"{name}.weight"), weight, atol=1e-5, rtol=1e-5)


def test_a_low_rank_update_of_a_convolution(random_base):
    """The same as running the two convolutions one after the other."""
    module = random_base.unet.get_submodule("down_blocks.0.resnets.0.conv1")
    channels = module.in_channels
    up, down = torch.randn(channels, 3, 1, 1), torch.randn(3, channels, 3, 3)
    images = torch.randn(1, channels, 8, 8)
    expected = module(images) + torch.nn.functional.conv2d(torch.nn.functional.conv2d(images, down, padding=1), up)
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    apply_adapter(random_base, Adapter({f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}, {}))
    torch.testing.assert_close(module(images), expected, atol=1e-4, rtol=1e-4)


def test_differences_of_weights_biases_and_norms(random_base):
    keys = {"lora_unet_conv_out.diff": "unet.conv_out.weight", "lora_unet_conv_out.diff_b": "unet.conv_out.bias",
            "diffusion_model.out.0.diff": "unet.conv_norm_out.weight",
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_norm2.diff_b":
                "unet.mid_block.attentions.0.transformer_blocks.0.norm2.bias",
            "lora_te_text_model_encoder_layers_1_mlp_fc1.diff": "text_encoder.encoder.layers.1.mlp.fc1.weight",
            "text_encoders.clip_l.transformer.text_model.final_layer_norm.diff_b": "text_encoder.final_layer_norm.bias",
            "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.diff":
                "text_encoder.embeddings.token_embedding.weight"}
    parameters = {f"{part}.{name.removeprefix('text_model.')}": parameter for part in ("unet", "text_encoder")
                  for name, parameter in getattr(random_base, part).named_parameters()}
    before = {name: parameter.clone() for name, parameter in parameters.items()}
    tensors = {key: torch.randn(parameters[name].shape) for key, name in keys.items()}
    assert apply_adapter(random_base, Adapter(tensors, {})) == []
    for key, name in keys.items():
        torch.testing.assert_close(parameters.pop(name), before[name] + tensors[key])
    assert all(torch.equal(parameter, before[name]) for name, parameter in parameters.items())  # and nothing else


@pytest.mark.parametrize(("tensors", "message"), [
    ({"lora_unet_nothing.diff": (1,)}, r"1 keys that this base has no weight for: lora_unet_nothing\.diff"),
    ({"lora_unet_conv_in.mystery": (1,)}, "conv_in.mystery"),
    ({"lora_unet_conv_in.hada_w1_a": (32, 2)}, "no hada_w1_b"),
    ({"lora_te_text_model_encoder_layers_0_layer_norm1.diff": (64,)}, "layer_norm1"),
    ({"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.diff_b": (128,)}, "to_q.diff_b"),  # it has no bias
    ({"lora_unet_conv_in.diff": (320, 4, 3, 3)}, r"conv_in\.weight \(\(320, 4, 3, 3\) for a weight of \(\d+, 4, 3, 3\)\)"),
    ({"lora_unet_conv_in.diff_b": (320,)}, r"unet\.conv_in\.bias"),
    ({"lora_unet_conv_in.lora_up.weight": (32, 2, 1, 1), "lora_unet_conv_in.lora_down.weight": (2, 9, 3, 3)}, "times"),
    ({"lora_unet_conv_in.lora_up.weight": (32, 2, 1, 1)}, "no lora_down"),
    ({"lora_unet_conv_in.alpha": ()}, "only alpha"),
    ({"lora_unet_conv_in.diff": (32, 4, 3, 3), "lora_unet_input_blocks_0_0.diff": (32, 4, 3, 3)}, "a second key"),
    ({"lora_unet_conv_in.diff": (32, 4, 3, 3), "lora_unet_conv_in.lora_up.weight": (32, 1, 1, 1),
      "lora_unet_conv_in.lora_down.weight": (1, 4, 3, 3)}, "stock loaders would use one"),
])
def test_keys_that_do_not_fit_change_nothing(random_base, tensors, message):
    before = {name: value.clone() for name, value in random_base.unet.state_dict().items()}
    good = {"lora_unet_conv_out.diff_b": torch.ones(4)}
    with pytest.raises(ModelError, match=message):
        apply_adapter(random_base, Adapter(good | {key: torch.ones(shape) for key, shape in tensors.items()},
                                    {"medtune.base": "another.safetensors"}, "tuned.safetensors"))
    assert all(torch.equal(value, before[name]) for name, value in random_base.unet.state_dict().items())


def test_an_adapter_of_another_base_of_the_same_shape_is_said(random_base):
    tensors = {"lora_unet_conv_out.diff_b": torch.ones(4)}
    assert apply_adapter(random_base, Adapter(tensors, {"medtune.base_hash": random_base.hash})) == []
    header = {"medtune.base_hash": "c" * 64, "medtune.base": "other.safetensors"}
    notices = apply_adapter(random_base, Adapter(tensors, header, "tuned"))
    assert len(notices) == 1 and "tuned was trained on other.safetensors" in notices[0] and random_base.hash[:12] in notices[0]


def test_a_base_without_text_encoder_refuses_text_keys(weights):
    base = base_from_tensors(weights[0], None, None, name="small")
    with pytest.raises(ModelError, match="lora_te_"):
        apply_adapter(base, Adapter({"lora_te_text_model_encoder_layers_1_mlp_fc1.diff": torch.zeros(256, 64)}, {}))


def test_reduced_precision_is_summed_in_full(weights):
    base = base_from_tensors(*weights, name="small", dtype=torch.bfloat16)
    weight = base.unet.conv_in.weight.clone()
    delta = torch.full(weight.shape, 0.001)
    apply_adapter(base, Adapter({"lora_unet_conv_in.diff": delta}, {}))
    assert torch.equal(base.unet.conv_in.weight, (weight.float() + delta).bfloat16())


def test_tensors_of_a_written_file_are_those_of_the_method(random_base, tmp_path):
    method = METHODS["bitfit"]()
    method.attach(random_base, torch.Generator())
    with torch.no_grad():
        random_base.unet.conv_in.bias.add_(1)
    tensors = method.export(random_base)
    write_adapter(tmp_path / "a.safetensors", tensors, {})
    assert load_file(tmp_path / "a.safetensors").keys() == tensors.keys()
