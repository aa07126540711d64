"""Methods that train parameters of the base: which ones, by the networks' structure, and what their files say in formulas."""

import pytest
import torch
from medtune.errors import ConfigError, ModelError
from medtune.training.base import base_from_tensors
from medtune.training.method import METHODS
from medtune.training.methods.delta import Delta
from medtune.training.methods.difffit import DiffFit, DiffFitConfig
from medtune.training.methods.full import Full, FullConfig
from medtune.training.optimiser import build_optimizer
from medtune.training.options import TrainOptions
from medtune.training.words import teach
from torch import nn

LAYER = "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_out.0"


def attached(base, name, **settings):
    method = METHODS[name](METHODS[name].Config(**settings))
    method.attach(base, torch.Generator().manual_seed(0))
    return method


@pytest.mark.parametrize(("name", "layers", "ends"), [
    ("attention", {"attn1", "attn2"}, {"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"}),
    ("cross-attention", {"attn2"}, {"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"}),
    ("cross-kv", {"attn2"}, {"to_k.weight", "to_v.weight"}),
])
def test_layers_of_attention(random_base, name, layers, ends):
    found = {tuple(name.rpartition("attn")[0::2]) for name in attached(random_base, name).named(random_base)}
    blocks = {path.removesuffix(".attn1") + "." for path, _ in random_base.unet.named_modules() if path.endswith(".attn1")}
    assert found == {(block, f"{layer.removeprefix('attn')}.{end}") for block in blocks for layer in layers for end in ends}


def test_biases_and_norms_of_both_parts(random_base):
    biases = attached(random_base, "bitfit", text_encoder=True).named(random_base)
    expected = [name for name, _ in random_base.unet.named_parameters() if name.endswith("bias")]
    expected += [f"text_encoder.{name}" for name, _ in random_base.text_encoder.named_parameters() if name.endswith("bias")]
    assert list(biases) == expected
    norms = attached(random_base, "norm", text_encoder=True).named(random_base)
    modules = [*random_base.unet.modules(), *random_base.text_encoder.modules()]
    assert sum(value.numel() for value in norms.values()) == sum(
        2 * module.weight.numel() for module in modules if isinstance(module, (nn.GroupNorm, nn.LayerNorm)))


def test_difffit_scales_outputs_with_the_bias(random_base):
    layer = random_base.unet.get_submodule(LAYER)
    inputs = torch.randn(3, layer.in_features)
    before = layer(inputs)
    method = attached(random_base, "difffit")
    assert torch.equal(layer(inputs), before)
    gamma = torch.linspace(-1, 2, layer.out_features)
    with torch.no_grad():
        layer.gamma.copy_(gamma)
        layer.bias.add_(0.5)
    torch.testing.assert_close(layer(inputs), (before + 0.5) * gamma)
    assert len([name for name in method.named(random_base) if name.endswith("gamma")]) == 3 * sum(
        path.endswith(".attn1") for path, _ in random_base.unet.named_modules())


def test_difffits_file_is_a_scale_of_rows(random_base):
    """By the stock loader's formula: each row times dora_scale over its norm."""
    method, layer = attached(random_base, "difffit"), random_base.unet.get_submodule(LAYER)
    weight, bias = layer.weight.clone(), layer.bias.clone()
    gamma = torch.rand(layer.out_features) + 0.5
    with torch.no_grad():
        layer.gamma.copy_(gamma)
        layer.bias.add_(0.5)
    tensors, stem = method.export(random_base), "lora_unet_" + LAYER.replace(".", "_")
    assert not tensors[f"{stem}.lora_up.weight"].any() and not tensors[f"{stem}.lora_down.weight"].any()
    scale = tensors[f"{stem}.dora_scale"]
    assert scale.shape == (layer.out_features, 1)
    torch.testing.assert_close(weight * (scale / weight.norm(dim=1, keepdim=True)), gamma[:, None] * weight)
    torch.testing.assert_close(bias + tensors[f"{stem}.diff_b"], gamma * (bias + 0.5))


def test_difffits_file_is_small(random_base):
    tensors = attached(random_base, "difffit").export(random_base)
    assert sum(value.numel() for value in tensors.values()) < 0.02 * sum(value.numel() for value in random_base.unet.parameters())


def test_the_text_encoders_scales(random_base):
    method = DiffFit(DiffFitConfig(text_encoder=True))
    method.attach(random_base, torch.Generator())
    scales = {name for name in method.named(random_base) if name.startswith("text_encoder.") and name.endswith("gamma")}
    ends = ("self_attn.out_proj", "mlp.fc2")
    assert {name.split(".layers.")[1] for name in scales} == {f"{i}.{end}.gamma" for i in (0, 1) for end in ends}
    assert "text_encoders.clip_l.transformer.text_model.encoder.layers.1.mlp.fc2.dora_scale" in method.export(random_base)


def test_weight_decay_draws_a_delta_to_zero_and_not_the_weight(random_base):
    method, layer = Delta(), random_base.unet.conv_in
    method.attach(random_base, torch.Generator())
    weight = layer.weight.clone()
    with torch.no_grad():
        layer.delta.fill_(1.0)
    optimizer = torch.optim.AdamW(method.parameters(random_base), lr=0.1, weight_decay=0.5)
    for parameter in method.named(random_base).values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(layer.weight, weight) and torch.allclose(layer.delta, torch.tensor(0.95))


def test_delta_is_on_every_linear_layer_and_convolution(random_base):
    method = Delta()
    method.attach(random_base, torch.Generator())
    layers = [path for path, module in random_base.unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    assert sorted(method.named(random_base)) == sorted(f"{path}.delta" for path in layers)


@pytest.mark.parametrize(("name", "settings", "part"), [
    ("full", {"parts": "unet+vae"}, "vae"), ("full", {"parts": "text-encoder"}, "text encoder"),
    ("bitfit", {"text_encoder": True}, "text encoder"), ("difffit", {"text_encoder": True}, "text encoder"),
    ("delta", {"text_encoder": True}, "text encoder")])
def test_a_part_that_the_base_was_made_without(weights, name, settings, part):
    base = base_from_tensors(weights[0], None, None, name="small")
    with pytest.raises(ModelError, match=f"method '{name}' .* trains the {part}, and the base small was made without. Connect it"):
        attached(base, name, **settings)
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())


def test_parts_that_are_not():
    with pytest.raises(ConfigError, match=r"FullConfig\.parts is 'unet\+text'.*one of: unet, text-encoder, vae, unet\+text-encoder"):
        Full(FullConfig(parts="unet+text"))


def test_a_taught_word_is_no_weight_of_the_text_encoder(random_base):
    teach(random_base, "my-film", torch.randn(2, 64))
    method = Full(FullConfig(parts="text-encoder"))
    method.attach(random_base, torch.Generator())
    known = [parameter.numel() for name, parameter in random_base.text_encoder.named_parameters() if "word:" not in name]
    assert method.count(random_base) == sum(known)
    assert not any(value.any() for value in method.export(random_base).values())
    method.load(random_base, method.export(random_base))


def test_rates_reach_the_optimiser(random_base):
    method = Full(FullConfig(parts="unet+text-encoder", lr_text_encoder=3e-4))
    method.attach(random_base, torch.Generator())
    optimizer = build_optimizer(method.parameters(random_base), TrainOptions(), 2e-5)
    assert [(group["name"], group["lr"]) for group in optimizer.param_groups] == [("unet", 2e-5), ("text_encoder", 3e-4)]
