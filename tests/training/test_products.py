"""The files that a training makes besides an adapter: what they are taken for, and what they do to a base."""

import json
from dataclasses import replace

import pytest
import torch
from medtune.errors import ModelError
from medtune.training.adapter import Adapter, apply_adapter, read_adapter, write_adapter
from medtune.training.base import base_from_tensors, load_base
from medtune.training.embedded import architecture as small
from medtune.training.keys import UNET_PREFIX
from medtune.training.loop import train
from medtune.training.methods.bitfit import BitFit
from medtune.training.methods.full import CHOICES, Full, FullConfig
from medtune.training.methods.textual_inversion import TextualInversion, TextualInversionConfig
from medtune.training.options import TrainOptions
from medtune.training.products import kind_of, product_header
from medtune.training.sample import Prompt, SampleOptions, sample
from medtune.training.vae_file import vae_tensors
from safetensors.torch import load_file

QUICK = TrainOptions(steps=2, batch=2, size=64, lr=1e-3)


@pytest.fixture(scope="module")
def checkpoint():
    """The embedded base's layout with random weights, as its file has them."""
    torch.manual_seed(0)
    return {key: value.float() for key, value in small.to_ldm(*small.build()).items()}


@pytest.fixture
def base(checkpoint):
    unet = {key.removeprefix(UNET_PREFIX): value for key, value in checkpoint.items() if key.startswith(UNET_PREFIX)}
    text = {key.removeprefix("cond_stage_model.transformer."): value for key, value in checkpoint.items()
            if key.startswith(small.TEXT_PREFIX)}
    vae = {key.removeprefix(small.VAE_PREFIX): value for key, value in checkpoint.items() if key.startswith(small.VAE_PREFIX)}
    return base_from_tensors(unet, text, vae, name="small")


@pytest.mark.parametrize(("names", "kind"), [
    (["lora_unet_conv_in.diff_b"], "adapter"), (["text_encoders.clip_l.transformer.text_model.final_layer_norm.diff"], "adapter"),
    (["taesd_encoder.0.weight", "vae_scale"], "vae"), (["encoder.conv_in.weight", "quant_conv.bias"], "vae"),
    (["clip_l"], "embedding"), (["emb_params"], "embedding"), (["unet.weight"], None),
    ([UNET_PREFIX + "input_blocks.0.0.weight"], None),
])
def test_what_a_file_is_taken_for(names, kind):
    assert kind_of(names, {}) == kind


def test_only_a_checkpoint_of_a_training_is_a_product():
    assert kind_of([UNET_PREFIX + "input_blocks.0.0.weight"], {"medtune.product": "model"}) == "model"


@pytest.mark.parametrize(("kind", "end"), [("adapter", "/lora"), ("vae", "/vae"), ("embedding", "/textual-inversion"), ("model", "")])
def test_headers_of_products(kind, end):
    header = product_header({"modelspec.architecture": "stable-diffusion-v1/lora", "ss_network_dim": "8", "medtune.method": "x"}, kind)
    assert header["modelspec.architecture"] == "stable-diffusion-v1" + end and header["medtune.product"] == kind
    assert ("ss_network_dim" in header) == (kind == "adapter")


def test_an_autoencoder_takes_the_place_of_the_bases(base, tmp_path):
    before = vae_tensors(base)
    tensors = {key: value + 0.01 * torch.randn_like(value) if value.ndim else value for key, value in before.items()}
    path = write_adapter(tmp_path / "vae.safetensors", tensors, {})
    assert "ss_network_module" not in read_adapter(path).header
    assert apply_adapter(base, read_adapter(path)) == []
    assert all(torch.equal(value, tensors[key]) for key, value in vae_tensors(base).items())
    apply_adapter(base, Adapter(before, {}), strength=0.25)
    for key, value in vae_tensors(base).items():
        torch.testing.assert_close(value, tensors[key] + 0.25 * (before[key] - tensors[key]))


@pytest.mark.parametrize(("change", "message"), [
    ({"taesd_encoder.0.weight": torch.zeros(32, 3, 3, 3)}, r"another kind .*1 of another shape: taesd_encoder\.0\.weight"),
    ({"taesd_encoder.99.weight": torch.zeros(1)}, r"1 unknown: taesd_encoder\.99\.weight"),
    ({"vae_scale": torch.tensor(1.0)}, r"vae_scale 1, not 0\.18215"),
])
def test_an_autoencoder_of_another_kind_changes_nothing(base, change, message):
    before = vae_tensors(base)
    with pytest.raises(ModelError, match=message):
        apply_adapter(base, Adapter({**vae_tensors(base), **change}, {}, "vae.safetensors"))
    assert all(torch.equal(value, before[key]) for key, value in vae_tensors(base).items())


def test_a_checkpoint_takes_the_bases_place(base, checkpoint):
    """One of another shape: nine channels, for inpainting."""
    key = UNET_PREFIX + "input_blocks.0.0.weight"
    wide = torch.cat([checkpoint[key], torch.randn(len(checkpoint[key]), 5, 3, 3)], dim=1)
    header = {"medtune.product": "model", "modelspec.prediction_type": "v"}
    apply_adapter(base, Adapter({**checkpoint, key: wide}, header))
    assert base.channels == 9 and base.prediction == "v_prediction" and torch.equal(base.unet.conv_in.weight, wide)


@pytest.mark.parametrize("parts", CHOICES)
def test_rates_of_the_parts(base, parts):
    """The paper's; in its proportion to the run's; or a part's own."""
    def rates(lr, **settings):
        method = Full(FullConfig(parts=parts, **settings))
        method.attach(base, torch.Generator())
        run = lr or method.facts.lr
        return {group["name"]: group.get("lr", run * group.get("lr_scale", 1)) for group in method.parameters(base)}

    chosen = [part.replace("-", "_") for part in parts.split("+")]
    paper = {"unet": 1e-5, "text_encoder": 1e-6 if len(chosen) > 1 else 5e-6, "vae": 1e-6}
    assert rates(0) == pytest.approx({part: paper[part] for part in chosen})
    assert rates(3e-4) == pytest.approx({part: 3e-4 * paper[part] / paper[chosen[0]] for part in chosen})
    own = {part: 0.01 * (place + 1) for place, part in enumerate(chosen)}
    assert rates(3e-4, **{f"lr_{part}": rate for part, rate in own.items()}) == pytest.approx(own)


def test_every_part_is_written_to_the_file_that_holds_it(phantoms, tmp_path):
    options = replace(QUICK, ema=0.5, sample_every=2, sample_steps=1)
    settings = FullConfig(parts="unet+text-encoder+vae", lr_text_encoder=1e-3, lr_vae=1e-3)

    def go(base=None):
        return train(base or load_base("embedded"), Full(settings), phantoms[:4], options, runs=tmp_path, device="cpu")

    base = load_base("embedded")
    result = go(base)
    assert result.products == {"adapter": result.run / "adapter.safetensors", "vae": result.run / "vae.safetensors"}
    assert result.adapter == result.products["adapter"]
    assert json.loads((result.run / "run.json").read_text())["products"] == ["adapter", "vae"]
    fresh = load_base("embedded")
    for path in result.products.values():
        assert apply_adapter(fresh, read_adapter(path)) == []
    untuned = load_base("embedded")
    for part in ("unet", "text_encoder", "vae"):
        held, before = getattr(fresh, part).state_dict(), getattr(untuned, part).state_dict()
        for name, value in getattr(base, part).state_dict().items():
            torch.testing.assert_close(held[name], value, atol=1e-6, rtol=1e-4)
        assert any(not torch.equal(value, before[name]) for name, value in held.items()), part
    again = go()
    assert again.reused and again.products == result.products
    result.products["vae"].unlink()
    anew = go()
    assert not anew.reused and anew.products["vae"].exists()


def test_an_autoencoder_alone_is_the_principal_file(phantoms, tmp_path):
    result = train(load_base("embedded"), Full(FullConfig(parts="vae")), phantoms[:4], QUICK, runs=tmp_path, device="cpu")
    assert result.adapter == result.products["vae"] == result.run / "vae.safetensors"
    assert not (result.run / "adapter.safetensors").exists()
    assert read_adapter(result.adapter).header["modelspec.architecture"] == "medtune-embedded/vae"


def test_a_word_is_trained_and_used(phantoms, tmp_path):
    method = TextualInversion(TextualInversionConfig(token="my-film", vectors=2))
    base = load_base("embedded")
    result = train(base, method, phantoms[:4], replace(QUICK, sample_every=2, sample_steps=1), runs=tmp_path, device="cpu")
    assert list(result.products) == ["embedding"] and load_file(result.adapter).keys() == {"clip_l"}
    fresh = load_base("embedded")
    states = fresh.encode_prompts(["Edema, my-film"])
    assert apply_adapter(fresh, read_adapter(result.adapter)) == [
        "prompts use the embedding of embedding.safetensors by the word my-film"]
    tuned = fresh.encode_prompts(["Edema, my-film"])
    assert torch.equal(tuned, base.encode_prompts(["Edema, embedding:my-film"])) and not torch.equal(tuned, states)
    images = sample(fresh, [Prompt("Edema, my-film")], tmp_path / "images", SampleOptions(steps=1, size=64))
    assert len(images.records) == 1


def test_an_adapter_is_still_the_only_file_of_other_methods(phantoms, tmp_path):
    result = train(load_base("embedded"), BitFit(), phantoms[:4], QUICK, runs=tmp_path, device="cpu")
    assert result.products == {"adapter": result.adapter}
