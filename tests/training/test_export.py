"""Adapters in other worlds' forms: what each form gives is what base and adapter give."""

import json

import pytest
import torch
from medtune.errors import ConfigError, ModelError
from medtune.training import configs, layout
from medtune.training.adapter import Adapter, read_adapter, write_adapter
from medtune.training.base import Base, load_base
from medtune.training.checkpoint import keep_sign
from medtune.training.diffusers_folder import write_diffusers
from medtune.training.export import export, output_error
from medtune.training.keys import UNET_PREFIX
from medtune.training.source import V_SIGN, Source, find_prediction
from safetensors.torch import load_file

LORA = {"targets": "all", "rank": 3, "alpha": 2.0}
TEXT = {"targets": "attention", "rank": 2, "text_encoder": True}
FORMS = {"kohya": "a.safetensors", "peft": "a", "checkpoint": "a.safetensors", "diffusers": "a"}
ADAPTERS = [("lora", LORA), ("lora", TEXT), ("bitfit", {}), ("norm", {}), ("loha", {"rank": 2}), ("lokr", {"rank": 2}), ("dora", {}),
            ("full", {"parts": "text-encoder"})]
EACH = pytest.mark.parametrize("made", ADAPTERS, ids=str)


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


def assert_same(one, other, tolerance=1e-6):
    """Every weight of two bases' U-Nets and text encoders."""
    for part in ("unet", "text_encoder"):
        theirs = dict(getattr(other, part).named_parameters())
        for name, parameter in getattr(one, part).named_parameters():
            assert torch.allclose(parameter, theirs[name], atol=tolerance, rtol=1e-5), f"{part}.{name}"


@EACH
def test_kohya(trained_file, tuned, tmp_path, made):
    file = trained_file(made[0], **made[1])
    done = export(read_adapter(file), "embedded", "kohya", tmp_path / "a.safetensors")
    assert done.difference == 0 and done.output is None
    assert_same(tuned(tmp_path / "a.safetensors"), tuned(file))
    kept = {"lora": ".lora_up.weight", "loha": ".hada_w1_a", "lokr": ".lokr_w", "dora": ".diff"}.get(made[0], ".diff")
    assert any(kept in key for key in load_file(tmp_path / "a.safetensors"))


@EACH
def test_peft(trained_file, tuned, output_of, tmp_path, made):
    """peft itself loads the folder on a diffusers U-Net and on transformers' text encoder."""
    from peft import PeftModel

    name, settings = made
    file = trained_file(name, **settings)
    export(read_adapter(file), "embedded", "peft", tmp_path / "peft")
    expected, base = tuned(file), load_base("embedded")
    if (tmp_path / "peft" / "adapter_config.json").is_file():
        base.unet = PeftModel.from_pretrained(base.unet, tmp_path / "peft").eval()
    assert relative(output_of(base), output_of(expected)) < 1e-5
    folder = tmp_path / "peft" / "text_encoder"
    assert folder.is_dir() == bool(settings.get("text_encoder") or settings.get("parts"))
    if folder.is_dir():
        base.text_encoder = PeftModel.from_pretrained(base.text_encoder, folder).eval()
        with torch.no_grad():
            states, wanted = base.encode_prompts(["lungs"]), expected.encode_prompts(["lungs"])
        assert relative(states, wanted) < 1e-5
        assert relative(wanted, load_base("embedded").encode_prompts(["lungs"])) > 1e-4  # and it has an effect


def test_a_peft_folder_comes_back(trained_file, tuned, tmp_path):
    file = trained_file("lora", **LORA)
    export(read_adapter(file), "embedded", "peft", tmp_path / "peft")
    assert_same(tuned(tmp_path / "peft"), tuned(file))
    export(read_adapter(tmp_path / "peft"), "embedded", "kohya", tmp_path / "b.safetensors")
    assert_same(tuned(tmp_path / "b.safetensors"), tuned(file))


@EACH
def test_checkpoint(trained_file, tuned, base_file, tmp_path, made):
    file = trained_file(made[0], **made[1])
    done = export(read_adapter(file), "embedded", "checkpoint", tmp_path / "merged.safetensors")
    assert done.difference < 1e-3
    assert_same(load_base(tmp_path / "merged.safetensors"), tuned(file))
    written, stored = load_file(tmp_path / "merged.safetensors"), load_file(base_file)
    assert written.keys() == stored.keys()
    for key in stored:
        if key.startswith("first_stage_model."):
            assert torch.equal(written[key], stored[key].float())


def test_a_checkpoint_says_what_it_is(trained_file, tmp_path):
    file = trained_file("lora", **LORA)
    export(read_adapter(file), "embedded", "checkpoint", tmp_path / "merged.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "merged.safetensors", "pt") as opened:
        header = opened.metadata()
    assert json.loads(header["medtune.merged"])["adapter"] == "lora.safetensors"
    assert header["modelspec.architecture"] == "medtune-embedded" and header["modelspec.prediction_type"] == "epsilon"
    assert "medtune.product" not in header  # it is a base, and no product of a training


def test_diffusers(trained_file, tuned, output_of, tmp_path):
    from diffusers import StableDiffusionPipeline

    file = trained_file("lora", **TEXT)
    done = export(read_adapter(file), "embedded", "diffusers", tmp_path / "folder")
    expected, read = tuned(file), load_base(tmp_path / "folder")
    assert done.difference == 0
    assert_same(read, expected)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(read.encode_images(images), expected.encode_images(images))
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "folder", safety_checker=None)
    assert relative(output_of(pipeline.unet), output_of(expected)) < 1e-6
    prompt = "chest X-ray showing Edema, Pneumonia"
    ids = pipeline.tokenizer([prompt], padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(ids, expected.tokens([prompt])[0])
    image = pipeline(prompt, height=64, width=64, num_inference_steps=2, output_type="pt",
                     generator=torch.Generator().manual_seed(0)).images
    assert image.shape == (1, 3, 64, 64) and image.isfinite().all()


def test_a_folder_as_base(trained_file, tuned, tmp_path):
    """A diffusers folder becomes an LDM file, with an adapter merged."""
    file = trained_file("lora", **TEXT)
    write_diffusers(tmp_path / "folder", load_base("embedded"), torch.float32)
    export(read_adapter(file), str(tmp_path / "folder"), "checkpoint", tmp_path / "merged.safetensors")
    merged = load_base(tmp_path / "merged.safetensors")
    assert_same(merged, tuned(file))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(merged.encode_images(images), load_base("embedded").encode_images(images))


@pytest.mark.parametrize("form", [(target, dtype) for target in FORMS for dtype in ("float16", "bfloat16")], ids="-".join)
def test_the_loss_of_half_precision_is_told(trained_file, tuned, output_of, tmp_path, form):
    from peft import PeftModel

    file, (target, dtype) = trained_file("lora", moved=0.3, **LORA), form
    done = export(read_adapter(file), "embedded", target, tmp_path / FORMS[target], dtype)
    expected = tuned(file)
    read = {"kohya": lambda: tuned(done.path), "checkpoint": lambda: load_base(done.path), "diffusers": lambda: load_base(done.path),
            "peft": lambda: PeftModel.from_pretrained(load_base("embedded").unet, done.path)}[target]()
    found = relative(output_of(read), output_of(expected))
    low, high = (1e-5, 3e-3) if dtype == "float16" else (1e-4, 3e-2)
    assert low < done.output < high and low < found < high
    assert 0 < done.difference <= done.worst[1] and done.worst[0]
    one, other = dict(expected.unet.named_parameters()), load_base("embedded").original("unet")
    if target == "checkpoint":  # the same figure by other means
        written = dict(read.unet.named_parameters())
        names = [name for name in one if not torch.equal(one[name], other[name].float())]
        wanted = torch.cat([(one[name] - other[name].float()).flatten().double() for name in names])
        got = torch.cat([(written[name] - other[name].float()).flatten().double() for name in names])
        assert relative(got, wanted) == pytest.approx(done.difference, rel=1e-3)


def test_no_error_where_nothing_was_rounded(trained_file, tuned, tmp_path):
    file = trained_file("bitfit")
    done = export(read_adapter(file), "embedded", "checkpoint", tmp_path / "a.safetensors", measure=True)
    assert done.output < 1e-6
    assert output_error(lambda: load_base("embedded"), lambda: tuned(file)) > 1e-3  # the measure sees what there is


NARROW = {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 128, "attention_head_dim": (2, 2, 4, 4)}
SMALL_2 = layout.Layout(
    "sd2", configs.UNET_2 | NARROW,
    configs.TEXT_2 | {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
                      "projection_dim": 128},
    configs.VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}, configs.SCHEDULER)
SIGN = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"


@pytest.fixture
def second(monkeypatch, tmp_path):
    """A small Stable Diffusion 2 that predicts v, as a diffusers folder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    monkeypatch.setitem(layout.LAYOUTS, "sd2", SMALL_2)
    torch.manual_seed(0)
    networks = {"unet": UNet2DConditionModel(**SMALL_2.unet), "text_encoder": CLIPTextModel(CLIPTextConfig(**SMALL_2.text)),
                "vae": AutoencoderKL(**SMALL_2.vae)}
    with torch.no_grad():
        networks["unet"].get_parameter(SIGN).copy_(torch.linspace(-0.2, 0.2, 32))
    source = Source("second", "", SMALL_2, "v_prediction", lambda part: dict(networks[part].state_dict()))
    write_diffusers(tmp_path / "second", Base(source, "second", "cpu", torch.float32), torch.float32)
    return tmp_path / "second"


def test_stable_diffusion_2_in_open_clip_names(second, tmp_path):
    """Text encoder and autoencoder of a folder come back from the file, whose names are those of open_clip itself, which has one layer
    more than is used."""
    import open_clip

    stem = "text_encoders.clip_h.transformer.text_model.encoder.layers.1.self_attn."
    tensors = {f"{stem}{side}.diff": torch.randn(128, 128) * 0.02 for side in ("q_proj", "v_proj")}
    tensors |= {f"{stem}k_proj.diff_b": torch.randn(128), f"{stem[:-10]}layer_norm1.diff": torch.randn(128)}
    export(Adapter(tensors, {}), str(second), "checkpoint", tmp_path / "merged.safetensors")
    before, merged = load_base(second), load_base(tmp_path / "merged.safetensors")
    assert merged.prediction == before.prediction == "v_prediction"
    changed = {name for name, parameter in merged.text_encoder.named_parameters()
               if not torch.equal(parameter, before.text_encoder.get_parameter(name))}
    assert {name.split("layers.")[1] for name in changed} == {"1.self_attn.q_proj.weight", "1.self_attn.v_proj.weight",
                                                              "1.self_attn.k_proj.bias", "1.layer_norm1.weight"}
    name = next(name for name in changed if name.endswith("q_proj.weight"))
    torch.testing.assert_close(merged.text_encoder.get_parameter(name),
                               before.text_encoder.get_parameter(name) + tensors[f"{stem}q_proj.diff"])
    for part in ("unet", "vae"):
        theirs = dict(getattr(before, part).named_parameters())
        assert all(torch.equal(value, theirs[name]) for name, value in getattr(merged, part).named_parameters())
    clip = open_clip.CLIP(embed_dim=128, vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
                          text_cfg={"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3})
    own = {name: tuple(value.shape) for name, value in clip.state_dict().items()
           if not name.startswith("visual.") and name not in ("text_projection", "logit_scale", "logit_bias", "attn_mask")}
    written = {key.removeprefix("cond_stage_model.model."): tuple(value.shape)
               for key, value in load_file(tmp_path / "merged.safetensors").items() if key.startswith("cond_stage_model.")}
    assert written == own


@pytest.mark.parametrize(("factor", "moved"), [(0.9, False), (0.1, True)])
def test_comfyui_still_guesses_v(second, tmp_path, factor, moved):
    bias = load_base(second).unet.get_parameter(SIGN).detach()
    adapter = Adapter({"diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.diff_b": bias * (factor - 1)}, {})
    done = export(adapter, str(second), "checkpoint", tmp_path / "merged.safetensors", "float16")
    written = load_file(tmp_path / "merged.safetensors")
    assert find_prediction(SMALL_2, written, None, None) == "v_prediction"  # ComfyUI's rule, without what the header says
    assert written[UNET_PREFIX + V_SIGN].std(unbiased=False) > 0.09
    assert any("spread of output_blocks.11.1" in notice for notice in done.notices) == moved
    if not moved:
        torch.testing.assert_close(written[UNET_PREFIX + V_SIGN].float(), bias * factor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.0899, 0.0901, 0.3])
def test_the_sign_is_moved_only_where_it_must(prediction, spread):
    bias = torch.linspace(-1, 1, 320)
    bias = 0.01 + bias / bias.std(unbiased=False) * spread
    kept = keep_sign(bias, prediction)
    assert (kept.std(unbiased=False) > 0.09) == (prediction == "v_prediction")
    assert (kept is bias) == ((spread > 0.09) == (prediction == "v_prediction"))


def test_a_trained_autoencoder_is_merged(tmp_path):
    from medtune.training.vae_file import vae_tensors

    base = load_base("embedded")
    tensors = {name: value + 0.01 if value.ndim == 4 else value for name, value in vae_tensors(base).items()}
    file = write_adapter(tmp_path / "vae.safetensors", tensors, {"medtune.product": "vae"})
    export(read_adapter(file), "embedded", "checkpoint", tmp_path / "merged.safetensors")
    merged = load_base(tmp_path / "merged.safetensors")
    found = vae_tensors(merged)
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in tensors.items())
    assert_same(merged, base)
    with pytest.raises(ConfigError, match="VAE file already"):
        export(read_adapter(file), "embedded", "kohya", tmp_path / "x.safetensors")


def test_what_cannot_be_exported(trained_file, tmp_path):
    adapter = read_adapter(trained_file("bitfit"))
    with pytest.raises(ConfigError, match="no form 'onnx'; there are: kohya, peft"):
        export(adapter, "embedded", "onnx", tmp_path / "a")
    with pytest.raises(ConfigError, match="no type 'float8'"):
        export(adapter, "embedded", "kohya", tmp_path / "a", "float8")
    with pytest.raises(ConfigError, match="no adapter, and cannot be written as peft"):
        export(Adapter({"clip_l": torch.zeros(1, 64)}, {}, "word"), "embedded", "peft", tmp_path / "a")
    with pytest.raises(ModelError, match="nothing\\.diff"):
        export(Adapter({"lora_unet_nothing.diff": torch.zeros(1)}, {}), "embedded", "checkpoint", tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_values_that_a_type_cannot_hold_are_not_written(tmp_path):
    adapter = Adapter({"lora_unet_conv_out.diff_b": torch.full((4,), 1e6)}, {})
    with pytest.raises(ModelError, match="infinite values as F16"):
        export(adapter, "embedded", "checkpoint", tmp_path / "a.safetensors", "float16", measure=False)
    assert not list(tmp_path.iterdir())
