"""A base of 4 channels widened to 9, and the checkpoint that its training makes."""

from __future__ import annotations

import pytest
import torch
from medtune.errors import ConfigError
from medtune.training.base import Base, base_from_tensors, load_base
from medtune.training.inflate import inflate, inflated_products, open_columns
from medtune.training.keys import UNET_PREFIX
from medtune.training.method import METHODS
from medtune.training.source import open_checkpoint


def output(base, channels):
    source = torch.Generator().manual_seed(0)
    latents, states = torch.randn(1, 9, 8, 8, generator=source), torch.randn(1, 77, 64, generator=source)
    with torch.no_grad():
        return base.unet(latents[:, :channels], torch.tensor([300]), encoder_hidden_states=states).sample


def test_an_inflated_base_draws_as_before_and_is_another(base):
    before, digest = output(base, 4), base.hash
    assert inflate(base) is base and base.channels == 9 and base.unet.config.in_channels == 9
    torch.testing.assert_close(output(base, 9), before)
    assert base.hash != digest and base.hash == inflate(load_base("embedded")).hash
    assert not any(weight.requires_grad for weight in base.unet.parameters())
    with pytest.raises(ConfigError, match="takes 9 channels already"):
        inflate(base)


def test_its_original_weights_are_those_of_the_wide_one(base):
    inflate(base)
    weight = base.original("unet")["conv_in.weight"]
    assert weight.shape[1] == 9 and weight[:, 4:].eq(0).all() and weight[:, :4].ne(0).any()
    again = Base(base.source, base.ref, "cpu", torch.float32)
    assert again.channels == 9
    torch.testing.assert_close(output(again, 9), output(base, 9))


def test_new_columns_alone_learn_beside_a_method_that_leaves_the_first_layer(base):
    inflate(base)
    METHODS["lora"]().attach(base, torch.Generator().manual_seed(0))
    opened = open_columns(base)
    assert list(opened) == ["inpainting.conv_in"]
    (weight,) = opened.values()
    base.unet(torch.randn(1, 9, 8, 8), torch.tensor([3]), encoder_hidden_states=torch.randn(1, 77, 64)).sample.sum().backward()
    assert weight.grad[:, :4].eq(0).all() and weight.grad[:, 4:].ne(0).any()


def test_a_method_that_trains_the_first_layer_needs_no_help(base):
    inflate(base)
    METHODS["full"]().attach(base, torch.Generator())
    assert open_columns(base) == {}


@pytest.mark.parametrize("name", ["lora", "full", "bitfit"])
def test_the_checkpoint_is_what_was_trained(base, name):
    inflate(base)
    method = METHODS[name]()
    method.attach(base, torch.Generator().manual_seed(0))
    opened = open_columns(base)
    with torch.no_grad():
        for number, weight in enumerate((*method.named(base).values(), *opened.values())):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.02)
    products = inflated_products(base, method.products(base), bool(opened))
    assert list(products) == ["model"]
    read = Base(open_checkpoint(products["model"], {}, "made"), "made", "cpu", torch.float32)
    assert read.channels == 9
    trained = output(base, 9)
    assert (output(read, 9) - trained).norm() / trained.norm() < 1e-5
    assert (trained - output(inflate(load_base("embedded")), 9)).norm() / trained.norm() > 1e-3


def test_parts_that_are_not_trained_are_the_bases_own(base):
    inflate(base)
    method = METHODS["bitfit"]()
    method.attach(base, torch.Generator())
    tensors = inflated_products(base, method.products(base), False)["model"]
    text = {key.removeprefix("cond_stage_model.transformer."): value for key, value in tensors.items() if "text_model" in key}
    vae = {key.removeprefix("first_stage_model."): value for key, value in tensors.items() if key.startswith("first_stage_model.")}
    unet = {key.removeprefix(UNET_PREFIX): value for key, value in tensors.items() if key.startswith(UNET_PREFIX)}
    read = base_from_tensors(unet, text, vae)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(read.encode_prompts(["a lung"]), base.encode_prompts(["a lung"]))
        torch.testing.assert_close(read.encode_images(image), base.encode_images(image))
