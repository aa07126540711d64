"""Adapters added with weights: the base with the sum is the base with each, times its weight."""

import json

import pytest
import torch
from medtune.errors import ConfigError, ModelError
from medtune.training.adapter import Adapter, read_adapter
from medtune.training.base import load_base
from medtune.training.merge import merge

PAIRS = [(("lora", {"targets": "all", "rank": 3}), ("lora", {"targets": "attention", "rank": 2, "text_encoder": True})),
         (("lora", {"targets": "all", "rank": 3}), ("bitfit", {})), (("loha", {"rank": 2}), ("lora", {"targets": "all", "rank": 3})),
         (("dora", {}), ("full", {"parts": "text-encoder"}))]


def weights_of(base):
    return {f"{part}.{name}": parameter.detach().clone() for part in ("unet", "text_encoder")
            for name, parameter in getattr(base, part).named_parameters()}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0][0]}+{pair[1][0]}")
def test_the_sum_is_that_of_the_parts(trained_file, tuned, tmp_path, pair):
    files = [trained_file(name, **settings) for name, settings in pair]
    merged = merge([read_adapter(file) for file in files], [0.7, -0.3], tmp_path / "sum.safetensors")
    base, one, two = (weights_of(model) for model in (load_base("embedded"), tuned(files[0]), tuned(files[1])))
    found = weights_of(tuned(tmp_path / "sum.safetensors"))
    changed = 0
    for name, weight in base.items():
        wanted = weight + 0.7 * (one[name] - weight) - 0.3 * (two[name] - weight)
        assert torch.allclose(found[name], wanted, atol=1e-5), name
        changed += not torch.equal(found[name], weight)
    assert changed == merged.low_rank + merged.whole and not merged.notices


def test_loras_stay_loras(trained_file, tmp_path):
    """Ranks lie side by side, and a layer that only one has keeps its own."""
    files = [trained_file("lora", targets="all", rank=3), trained_file("lora", targets="attention", rank=2, text_encoder=True)]
    merged = merge([read_adapter(file) for file in files], [1.0, 1.0], tmp_path / "sum.safetensors")
    tensors = read_adapter(tmp_path / "sum.safetensors").tensors
    assert merged.whole == 0 and not any(key.endswith(".diff") for key in tensors)
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    assert tensors[f"{stem}.lora_down.weight"].shape[0] == 5 and tensors[f"{stem}.alpha"] == 5
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].shape[0] == 3
    assert tensors["lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"].shape == (64, 2)


def test_a_sum_larger_than_its_weight_is_a_difference(tmp_path):
    stem = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_0_attn2_to_k"  # (128, 64): a rank of 43 is larger

    def adapter(rank):
        return Adapter({f"{stem}.lora_up.weight": torch.randn(128, rank), f"{stem}.lora_down.weight": torch.randn(rank, 64)}, {})

    assert merge([adapter(21), adapter(21)], [1, 1], tmp_path / "a.safetensors").low_rank == 1
    assert merge([adapter(21), adapter(22)], [1, 1], tmp_path / "b.safetensors").whole == 1


def test_the_header_says_what_was_added(trained_file, tmp_path):
    files = [trained_file("lora", targets="all", rank=3), trained_file("bitfit")]
    merge([read_adapter(file) for file in files], [0.5, 2], tmp_path / "sum.safetensors")
    header = read_adapter(tmp_path / "sum.safetensors").header
    made = json.loads(header["medtune.merged"])
    assert [(one["file"], one["method"], one["weight"]) for one in made] == [("lora.safetensors", "lora", 0.5),
                                                                             ("bitfit.safetensors", "bitfit", 2)]
    assert all(len(one["hash"]) >= 64 for one in made)
    assert header["medtune.base_hash"] == load_base("embedded").hash and "medtune.method" not in header


def test_adapters_of_different_bases(tmp_path):
    def adapter(name, digest):
        header = {"medtune.base_hash": digest, "medtune.base": f"{name}.safetensors",
                  "modelspec.architecture": "medtune-embedded/lora"}
        return Adapter({"lora_unet_conv_out.diff_b": torch.ones(4)}, header, name)

    one, other = adapter("one", "a" * 64), adapter("other", "b" * 64)
    with pytest.raises(ModelError, match=r"different bases: one on one\.safetensors \(SHA-256 a{12}\); other on other.*--force"):
        merge([one, other], [1, 1], tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    merged = merge([one, other], [1, 1], tmp_path / "a.safetensors", force=True)
    assert merged.notices[0].startswith("FORCED: adapters of different bases")
    silent = Adapter(other.tensors, {}, "silent")
    assert merge([one, silent], [1, 1], tmp_path / "b.safetensors").notices == ["silent does not say which base it was trained on"]


def test_adapters_of_different_kinds_of_base(tmp_path):
    def adapter(width, name):
        stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
        return Adapter({f"{stem}.lora_up.weight": torch.ones(1280, 1), f"{stem}.lora_down.weight": torch.ones(1, width)}, {}, name)

    with pytest.raises(ModelError, match=r"different kinds of base.*one for sd1, two for sd2"):
        merge([adapter(768, "one"), adapter(1024, "two")], [1, 1], tmp_path / "a.safetensors", force=True)
    with pytest.raises(ModelError, match="larger does not tell which base it is for"):
        merge([adapter(2048, "larger"), adapter(2048, "larger")], [1, 1], tmp_path / "a.safetensors")


def test_a_change_that_depends_on_the_weight_needs_the_base(tmp_path, tuned):
    blocks = torch.randn(32, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    header = {"modelspec.architecture": "medtune-embedded/lora"}
    turned = Adapter({"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.oft_blocks": blocks}, header, "turned")
    bias = Adapter({"lora_unet_conv_out.diff_b": torch.ones(4)}, header, "bias")
    with pytest.raises(ModelError, match=r"what turned adds to unet\.mid_block.*\(OFT\) depends on the base's own weight"):
        merge([turned, bias], [1, 1], tmp_path / "a.safetensors")
    merge([turned, bias], [1, 0.5], tmp_path / "a.safetensors", "embedded")
    from medtune.training.adapter import apply_adapter

    base = load_base("embedded")
    apply_adapter(base, turned)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    found = tuned(tmp_path / "a.safetensors")
    torch.testing.assert_close(found.unet.get_parameter(name), base.unet.get_parameter(name), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.unet.conv_out.bias, base.unet.conv_out.bias + 0.5)


@pytest.mark.parametrize(("count", "weights", "message"), [
    (1, [1.0], "there is 1 adapter to merge"), (2, [1.0], "1 weights for 2 adapters"), (2, [1.0, float("nan")], "a weight is nan")])
def test_wrong_weights(tmp_path, count, weights, message):
    adapters = [Adapter({"lora_unet_conv_out.diff_b": torch.ones(4)}, {})] * count
    with pytest.raises(ConfigError, match=message):
        merge(adapters, weights, tmp_path / "a.safetensors", "embedded")


def test_what_is_no_adapter(tmp_path):
    word = Adapter({"clip_l": torch.zeros(1, 64)}, {}, "word.safetensors")
    with pytest.raises(ConfigError, match=r"word\.safetensors is no adapter"):
        merge([word, word], [1, 1], tmp_path / "a.safetensors", "embedded")


def test_keys_that_do_not_fit(tmp_path):
    adapter = Adapter({"lora_unet_nothing.diff": torch.zeros(1)}, {}, "odd")
    with pytest.raises(ModelError, match=r"odd.*nothing\.diff"):
        merge([adapter, adapter], [1, 1], tmp_path / "a.safetensors", "embedded")
