"""inspect, export and merge as a user meets them: tables, JSON, notes on stderr, exit status."""

from __future__ import annotations

import json

import pytest
import torch
from medtune.__main__ import main
from medtune.training.base import load_base
from safetensors.torch import load_file, save_file

Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def lora(tmp_path):
    """A function (name, header) -> a LoRA of one layer."""

    def write(name, **header):
        generator = torch.Generator().manual_seed(len(name))
        tensors = {f"{Q}.lora_up.weight": torch.randn(128, 2, generator=generator) * 0.1,
                   f"{Q}.lora_down.weight": torch.randn(2, 128, generator=generator), f"{Q}.alpha": torch.tensor(1.0)}
        save_file(tensors, tmp_path / name, metadata={"modelspec.architecture": "medtune-embedded/lora", **header})
        return str(tmp_path / name)

    return write


def test_inspect(lora, capsys):
    file = lora("a.safetensors", **{"ss_steps": "12", "medtune.config": '{"rank": 2}', "modelspec.title": "lungs"})
    assert main(["inspect", file]) == 0
    page = capsys.readouterr().out
    rows = dict(line.split("  ", 1) for line in page.splitlines() if "  " in line)
    for name, wanted in (("kind", "LoRA (1 layers)"), ("rank", "2"), ("alpha", "1"), ("LoraLoader", "exact"), ("unknown keys", "none"),
                         ("targets", "self-attention")):
        assert rows[name].strip() == wanted, page
    assert "ss_steps" in page and "rank=2" in page and "mid_block" in page
    assert main(["inspect", file, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["kind"] == "LoRA" and value["ranks"] == {"2": 1} and value["settings"]["medtune.config"] == {"rank": 2}


def test_a_bad_file_is_1(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(b"")
    for words in (["inspect", "{}"], ["export", "{}", "--to", "kohya", "--out", "x.safetensors"], ["merge", "{}", "{}", "--out", "x"]):
        assert main([word.format(tmp_path / "a.safetensors") for word in words]) == 1
        assert "a.safetensors is empty" in capsys.readouterr().err


def test_export(lora, tmp_path, capsys):
    file = lora("a.safetensors", **{"medtune.base_hash": "c" * 64, "medtune.base": "other.safetensors"})
    out = tmp_path / "m.safetensors"
    assert main(["export", file, "--to", "checkpoint", "--out", str(out), "--dtype", "float16", "--json"]) == 0
    text = capsys.readouterr()
    value = json.loads(text.out)
    assert "was trained on other.safetensors" in text.err
    assert value["relative_error"]["worst"]["parameter"].endswith("attn1.to_q.weight")
    assert 0 < value["relative_error"]["differences"] < 1e-2 and 0 < value["relative_error"]["output"] < 1e-2
    weight = load_base(out).unet.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight")
    tensors = load_file(file)
    wanted = load_base("embedded").unet.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight") \
        + 0.5 * tensors[f"{Q}.lora_up.weight"] @ tensors[f"{Q}.lora_down.weight"]
    assert torch.allclose(weight, wanted, atol=1e-3)
    assert main(["export", file, "--to", "kohya", "--out", str(tmp_path / "k.safetensors")]) == 0
    assert "relative error of the differences 0.00e+00" in capsys.readouterr().out


def test_wrong_usage_is_2(lora, tmp_path, capsys):
    file = lora("a.safetensors")
    for words, message in ((["export", file], "give a file, --to and --out"), (["export", "--kohya", str(tmp_path)], "by --data"),
                           (["merge", file, "--out", "x"], "there is 1 adapter"),
                           (["merge", file, file, "--weights", "1", "--out", "x"], "1 --weights for 2 files"),
                           (["export", file, "--kohya", str(tmp_path), "--data", str(tmp_path)], "does not say how it was trained")):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_merge(lora, tmp_path, capsys):
    one, two = lora("one.safetensors", **{"medtune.base_hash": "a" * 64}), lora("other.safetensors", **{"medtune.base_hash": "b" * 64})
    out = tmp_path / "sum.safetensors"
    assert main(["merge", one, two, "--weights", "0.7", "0.3", "--out", str(out)]) == 1
    assert "different bases" in capsys.readouterr().err and not out.exists()
    assert main(["merge", one, two, "--weights", "0.7", "0.3", "--out", str(out), "--force"]) == 0
    text = capsys.readouterr()
    assert "FORCED" in text.err and "1 layers as LoRA, 0 weights and biases" in text.out
    assert load_file(out)[f"{Q}.lora_down.weight"].shape == (4, 128)


def test_a_training_for_sd_scripts(phantom_folder, tmp_path, capsys, monkeypatch):
    """By flags, for a base of Stable Diffusion 1's layout and small."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from medtune.training import configs, layout
    from medtune.training.base import Base
    from medtune.training.diffusers_folder import write_diffusers
    from medtune.training.source import Source
    from transformers import CLIPTextConfig, CLIPTextModel

    small = layout.Layout("sd1", configs.UNET_1 | {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 48},
                          configs.TEXT_1 | {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
                                            "num_attention_heads": 4},
                          configs.VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}, configs.SCHEDULER)
    monkeypatch.setitem(layout.LAYOUTS, "sd1", small)
    networks = {"unet": UNet2DConditionModel(**small.unet), "text_encoder": CLIPTextModel(CLIPTextConfig(**small.text)),
                "vae": AutoencoderKL(**small.vae)}
    source = Source("small", "", small, "epsilon", lambda part: dict(networks[part].state_dict()))
    write_diffusers(tmp_path / "small", Base(source, "small", "cpu", torch.float32), torch.float32)
    words = ["export", "--kohya", str(tmp_path / "out"), "--data", str(phantom_folder), "--steps", "9",
             "--base", str(tmp_path / "small"), "--set", "rank=4", "--size", "64", "--json"]
    assert main(words) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["images"] == len(list((tmp_path / "out").rglob("*.png"))) > 0
    command = value["command"]
    assert command[command.index("--network_dim") + 1] == "4" and command[command.index("--max_train_steps") + 1] == "9"
    assert command[command.index("--pretrained_model_name_or_path") + 1] == str(tmp_path / "small")
