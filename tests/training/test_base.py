"""Bases from LDM files, diffusers folders and tensors. The checkpoints are small ones of the true layouts, written by other means:
the U-Net's and autoencoder's names by a table here, Stable Diffusion 2's text encoder by open_clip itself."""

import json
import re

import pytest
import torch
from medtune.errors import ConfigError, Missing, ModelError
from medtune.training import base as bases
from medtune.training import configs, layout
from medtune.training.base import base_from_tensors, load_base
from medtune.training.embedded import architecture as small
from medtune.training.keys import UNET_PREFIX, unet_keys
from safetensors.torch import load_file, save_file

NARROW = {"block_out_channels": (32, 32, 64, 64)}
VAE = configs.VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
TEXT_1 = configs.TEXT_1 | {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT_2 = configs.TEXT_2 | {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
                           "projection_dim": 128}
LAYOUTS = {
    "sd1": layout.Layout("sd1", configs.UNET_1 | NARROW | {"cross_attention_dim": 48}, TEXT_1, VAE, configs.SCHEDULER),
    "sd2": layout.Layout("sd2", configs.UNET_2 | NARROW | {"cross_attention_dim": 128, "attention_head_dim": (2, 2, 4, 4)},
                         TEXT_2, VAE, configs.SCHEDULER),
}


@pytest.fixture(autouse=True)
def small_layouts(monkeypatch):
    """Stable Diffusion 1 and 2 at a size for tests, beside the embedded base."""
    for kind, one in LAYOUTS.items():
        monkeypatch.setitem(layout.LAYOUTS, kind, one)


def vae_ldm_name(name):
    """LDM's name of an AutoencoderKL tensor."""
    name = re.sub(r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block", name)
    name = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample", name)
    name = re.sub(r"decoder\.up_blocks\.(\d)\.resnets", lambda m: f"decoder.up.{3 - int(m[1])}.block", name)
    name = re.sub(r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{3 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    for theirs, ours in (("mid_block.attentions.0.", "mid.attn_1."), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
                         ("to_v", "v"), ("to_out.0", "proj_out"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out")):
        name = name.replace(theirs, ours)
    return name


def randomise(network, seed):
    """Every tensor its own values, so that no two can be taken for each other."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return network.requires_grad_(False).eval()


def networks(one):
    """The networks of a layout, with random weights: (U-Net, text encoder, autoencoder)."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    return (randomise(UNet2DConditionModel(**one.unet), 1), randomise(CLIPTextModel(CLIPTextConfig(**one.text)), 2),
            randomise(AutoencoderKL(**one.vae), 3))


def unet_and_vae_ldm(one, unet, vae):
    """The tensors of an LDM file but for the text encoder."""
    names = unet_keys(one.unet)
    tensors = {UNET_PREFIX + names[key]: value for key, value in unet.state_dict().items()}
    for key, value in vae.state_dict().items():
        conv = "mid_block.attentions" in key and key.endswith("weight") and value.ndim == 2
        tensors["first_stage_model." + vae_ldm_name(key)] = value[:, :, None, None] if conv else value
    return tensors


def text_ldm(text_encoder):
    """CLIP's text encoder as Stable Diffusion 1 files have it."""
    return {"cond_stage_model.transformer.text_model." + key.removeprefix("text_model."): value
            for key, value in text_encoder.state_dict().items()}


def save(tensors, path, metadata=None):
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    """(file, networks) of a small Stable Diffusion 1."""
    unet, text_encoder, vae = networks(LAYOUTS["sd1"])
    tensors = unet_and_vae_ldm(LAYOUTS["sd1"], unet, vae) | text_ldm(text_encoder)
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["alphas_cumprod"] = torch.ones(1000)
    return save(tensors, tmp_path_factory.mktemp("sd1") / "sd1.safetensors"), (unet, text_encoder, vae)


@pytest.fixture(scope="module")
def sd2(tmp_path_factory):
    """(file, U-Net, open_clip's model) of a small Stable Diffusion 2, whose text encoder has one layer more than is used."""
    import open_clip

    one = LAYOUTS["sd2"]
    unet, _, vae = networks(one)
    torch.manual_seed(4)
    clip = open_clip.CLIP(embed_dim=128, vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
                          text_cfg={"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3})
    randomise(clip, 5)
    tensors = unet_and_vae_ldm(one, unet, vae)
    tensors |= {f"cond_stage_model.model.{key}": value for key, value in clip.state_dict().items() if not key.startswith("visual.")}
    return save(tensors, tmp_path_factory.mktemp("sd2") / "sd2.safetensors"), unet, clip


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """(file, networks) in the embedded base's layout, with random weights."""
    torch.manual_seed(0)
    built = [randomise(network, i) for i, network in enumerate(small.build())]
    return save(small.to_ldm(*built), tmp_path_factory.mktemp("small") / "small.safetensors"), built


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def run(unet, states, channels=4):
    with torch.no_grad():
        return unet(noise(1, channels, 8, 8), torch.tensor([400]), states[:1]).sample


def test_a_stable_diffusion_1_file(sd1):
    file, (unet, text_encoder, vae) = sd1
    base = load_base(file)
    assert (base.kind, base.prediction, base.channels, base.notice) == ("sd1", "epsilon", 4, None)
    states = base.encode_prompts(["chest x-ray", ""])
    with torch.no_grad():
        expected = text_encoder(base.tokens(["chest x-ray", ""])[0]).last_hidden_state
    assert torch.equal(states, expected) and states.shape == (2, 77, 48)
    assert torch.equal(run(base.unet, states), run(unet, states))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    encoded = vae.encode(images * 2 - 1).latent_dist
    mean, deviation = base.posterior(images)
    torch.testing.assert_close(mean, encoded.mean * 0.18215)
    torch.testing.assert_close(deviation, encoded.std * 0.18215)
    torch.testing.assert_close(base.encode_images(images), encoded.mean * 0.18215)
    drawn = base.encode_images(images, torch.Generator().manual_seed(7), sample=True)
    torch.testing.assert_close(drawn, mean + deviation * torch.randn(mean.shape, generator=torch.Generator().manual_seed(7)))
    decoded = base.decode_latents(noise(1, 4, 8, 8) * 0.18215)
    torch.testing.assert_close(decoded, (vae.decode(noise(1, 4, 8, 8)).sample / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=1e-5)


def test_networks_are_frozen_and_in_evaluation_mode(sd1):
    base = load_base(sd1[0])
    for network in (base.unet, base.text_encoder, base.vae):
        assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
        assert not any(value.is_meta for value in (*network.parameters(), *network.buffers()))


def test_a_stable_diffusion_2_file_has_open_clips_text_states(sd2):
    file, unet, clip = sd2
    base = load_base(file)
    assert (base.kind, base.tokenizer.pad) == ("sd2", 0)
    prompts = ["chest x-ray showing edema", ""]
    ids, _ = base.tokens(prompts)
    with torch.no_grad():
        hidden = clip.token_embedding(ids) + clip.positional_embedding
        for block in clip.transformer.resblocks[:-1]:
            hidden = block(hidden, attn_mask=clip.attn_mask)
        expected = clip.ln_final(hidden)
    torch.testing.assert_close(base.encode_prompts(prompts), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(run(base.unet, expected), run(unet, expected))


def test_the_embedded_layout(embedded):
    file, (unet, text_encoder, vae) = embedded
    base = load_base(file)
    assert base.kind == "embedded" and "embedded base" in base.notice
    states = base.encode_prompts(["a circle"])
    with torch.no_grad():  # the file is float16
        torch.testing.assert_close(states, text_encoder(base.tokens(["a circle"])[0]).last_hidden_state, atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(run(base.unet, states), run(unet, states), atol=2e-2, rtol=2e-2)
        images = torch.rand(1, 3, 64, 64)
        mean, deviation = base.posterior(images)
        torch.testing.assert_close(mean, vae.encode(images * 2 - 1).latents, atol=2e-2, rtol=2e-2)
        assert not deviation.any()
        expected = (vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(base.decode_latents(mean), expected, atol=2e-2, rtol=2e-2)


def test_the_scale_that_a_tiny_autoencoder_carries(embedded, tmp_path):
    tensors = load_file(embedded[0])
    tensors["first_stage_model.vae_scale"], tensors["first_stage_model.vae_shift"] = torch.tensor(0.5), torch.tensor(0.25)
    scaled = load_base(save(tensors, tmp_path / "scaled.safetensors"))
    images = torch.rand(1, 3, 32, 32)
    raw = load_base(embedded[0]).encode_images(images)  # the networks are the same: latents of scale 1
    torch.testing.assert_close(scaled.encode_images(images), (raw / 0.5 + 0.25) * 0.18215)  # ComfyUI's formula and latent scale
    torch.testing.assert_close(scaled.decode_latents(scaled.encode_images(images)), load_base(embedded[0]).decode_latents(raw))


def test_an_inpainting_file(sd1, tmp_path):
    tensors = load_file(sd1[0])
    first = UNET_PREFIX + "input_blocks.0.0.weight"
    tensors[first] = torch.cat([tensors[first], torch.zeros(32, 5, 3, 3)], 1)
    base = load_base(save(tensors, tmp_path / "inpainting.safetensors"))
    states = base.encode_prompts([""])
    assert base.channels == 9 and run(base.unet, states, 9).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(("spread", "metadata", "chosen", "expected"), [
    (0.05, None, None, "epsilon"),
    (0.15, None, None, "v_prediction"),
    (0.05, {"modelspec.prediction_type": "v"}, None, "v_prediction"),
    (0.15, {"modelspec.prediction_type": "epsilon"}, None, "epsilon"),
    (0.15, None, "epsilon", "epsilon"),
    (0.05, {"modelspec.prediction_type": "epsilon"}, "v_prediction", "v_prediction"),
])
def test_prediction_type(sd2, tmp_path, *, spread, metadata, chosen, expected):
    tensors = load_file(sd2[0])
    name = UNET_PREFIX + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
    values = torch.linspace(-1, 1, tensors[name].numel())
    tensors[name] = values / values.std(unbiased=False) * spread
    base = load_base(save(tensors, tmp_path / "model.safetensors", metadata), prediction=chosen)
    assert base.prediction == base.scheduler_config["prediction_type"] == expected


def test_a_diffusers_folder(sd1, tmp_path):
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    unet, text_encoder, vae = sd1[1]
    assert isinstance(text_encoder, CLIPTextModel)
    StableDiffusionPipeline(vae=vae, text_encoder=text_encoder, tokenizer=None, unet=unet, safety_checker=None, feature_extractor=None,
                            scheduler=DDIMScheduler(**configs.SCHEDULER | {"prediction_type": "v_prediction"}),
                            requires_safety_checker=False).save_pretrained(tmp_path / "folder")
    base, single = load_base(tmp_path / "folder"), load_base(sd1[0])
    assert (base.kind, base.prediction, base.channels) == ("sd1", "v_prediction", 4) and base.hash != single.hash
    states = single.encode_prompts(["x"])
    assert torch.equal(base.encode_prompts(["x"]), states)
    assert torch.equal(run(base.unet, states), run(single.unet, states))
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(base.encode_images(images), single.encode_images(images))
    assert base.original("unet").keys() == single.original("unet").keys()


@pytest.mark.parametrize("kind", ["sd1", "sd2", "embedded"])
def test_tensors_out_of_a_graph(request, kind):
    fixture = request.getfixturevalue(kind)
    file = load_base(fixture[0])
    tensors = load_file(fixture[0])
    unet = {key.removeprefix(UNET_PREFIX): value for key, value in tensors.items() if key.startswith(UNET_PREFIX)}
    vae = {key.removeprefix("first_stage_model."): value for key, value in tensors.items() if key.startswith("first_stage_model.")}
    text = {"text_model." + key.removeprefix("text_model."): value for key, value in file.original("text_encoder").items()}
    base = base_from_tensors(unet, text, vae, kind, "a graph")
    states = file.encode_prompts(["x"])
    assert base.kind == kind and torch.equal(base.encode_prompts(["x"]), states)
    assert torch.equal(run(base.unet, states), run(file.unet, states))
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(base.encode_images(images), file.encode_images(images))
    assert len(base.hash) == 64 and base.hash == base_from_tensors(unet, text, vae, kind, "again").hash
    with torch.no_grad():
        base.unet.conv_in.weight.zero_()
    assert base.original("unet")["conv_in.weight"].any() and unet["input_blocks.0.0.weight"].any()
    with pytest.raises(ModelError, match="its weights are those of"):
        base_from_tensors(unet, text, vae, "another")


def test_tensors_without_an_autoencoder(embedded):
    tensors = load_file(embedded[0])
    base = base_from_tensors({key.removeprefix(UNET_PREFIX): value for key, value in tensors.items() if key.startswith(UNET_PREFIX)},
                             None, None)
    assert base.vae is None and base.text_encoder is None
    with pytest.raises(ModelError, match="without its vae"):
        base.decode_latents(torch.zeros(1, 4, 8, 8))


def test_original_weights_stay_as_they_were(sd1):
    base = load_base(sd1[0])
    for part in ("unet", "text_encoder", "vae"):
        network = getattr(base, part)
        original = base.original(part)
        assert original.keys() == network.state_dict().keys()
        assert all(torch.equal(original[key], value) for key, value in network.state_dict().items())
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        again = base.original(part)
        assert all(torch.equal(again[key], original[key]) for key in original) and all(again[key].any() for key in again)


def test_the_hash_is_of_the_bytes_and_is_remembered(sd1, monkeypatch):
    from medtune.files import hash_file
    from medtune.training import source

    expected = hash_file(sd1[0])
    assert load_base(sd1[0]).hash == expected
    monkeypatch.setattr(source, "hash_file", lambda path: pytest.fail("hashed twice"))
    assert load_base(sd1[0]).hash == expected


def test_half_precision_and_moving(embedded):
    base = load_base(embedded[0], dtype=torch.bfloat16)
    assert base.encode_prompts(["x"]).dtype == torch.bfloat16
    assert base.to(dtype=torch.float32) is base and base.unet.conv_in.weight.dtype == torch.float32
    assert base.encode_images(torch.rand(1, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 60, 64)])
def test_images_of_a_wrong_shape(embedded, shape):
    with pytest.raises(ConfigError, match="multiples of 8"):
        load_base(embedded[0]).encode_images(torch.rand(shape))


def header_only(names, path):
    """A whole safetensors file of one-value tensors with these names."""
    return save({name: torch.zeros(1) for name in names}, path)


OTHERS = {
    "Stable Diffusion XL": ["conditioner.embedders.1.model.ln_final.bias", "model.diffusion_model.label_emb.0.0.weight",
                            "model.diffusion_model.input_blocks.0.0.weight"],
    "Stable Diffusion 3": ["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"],
    "Flux": ["model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale"],
    "ControlNet": ["control_model.input_blocks.0.0.weight", "model.diffusion_model.input_blocks.0.0.weight"],
    "unCLIP": ["model.diffusion_model.label_emb.0.0.weight", "model.diffusion_model.input_blocks.0.0.weight"],
    "another diffusion model": ["model.diffusion_model.blocks.0.attn.qkv_x.weight"],
    "LoRA": ["lora_unet_conv_in.lora_up.weight", "lora_unet_conv_in.lora_down.weight"],
    "LoRA or another adapter": ["lora_unet_conv_in.diff_b"],
    "U-Net alone": ["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"],
    "autoencoder (VAE) alone": ["encoder.conv_in.weight", "decoder.conv_in.weight"],
    "text encoder alone": ["text_model.embeddings.token_embedding.weight"],
    "textual inversion": ["emb_params"],
    "not a checkpoint of a known kind": ["linear.weight"],
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_file_of_another_kind_is_named(tmp_path, what):
    with pytest.raises(ModelError, match=re.escape(what)) as error:
        load_base(header_only(OTHERS[what], tmp_path / "model.safetensors"))
    assert "model.safetensors" in str(error.value)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "empty"),
    (b"<!DOCTYPE html><html>Not found</html>", "web page"),
    (b"PK\x03\x04" + bytes(100), "pickle"),
    (b"\x80\x02}q\x00" + bytes(100), "pickle"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "Git LFS pointer"),
    (b"GGUF" + bytes(100), "GGUF"),
    ((10**12).to_bytes(8, "little") + b"{" + bytes(100), "header would be"),
    ((1000).to_bytes(8, "little") + b'{"a"', "truncated"),
    ((9).to_bytes(8, "little") + b'{"a": 1}}', "not a safetensors file"),
    (b"hello, this is a text file", "not a safetensors file"),
    ((2).to_bytes(8, "little") + b"{}", "no tensors"),
])
def test_a_file_that_is_not_safetensors_is_named(tmp_path, content, message):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_base(tmp_path / "model.ckpt")


def test_a_truncated_file(sd1, tmp_path):
    content = sd1[0].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-1000])
    with pytest.raises(ModelError, match="truncated"):
        load_base(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("lost", [
    ["model.diffusion_model.out.2.bias", "model.diffusion_model.input_blocks.1.1.proj_in.weight"],
    ["cond_stage_model.transformer.text_model.final_layer_norm.weight"],
    ["first_stage_model.decoder.conv_in.weight", "first_stage_model.quant_conv.bias"],
])
def test_every_missing_tensor_is_named(sd1, tmp_path, lost):
    tensors = load_file(sd1[0])
    for name in lost:
        del tensors[name]
    with pytest.raises(ModelError, match=f"{len(lost)} missing") as error:
        load_base(save(tensors, tmp_path / "model.safetensors"))
    for name in lost:
        assert name.removeprefix("first_stage_model.").removeprefix("cond_stage_model.transformer.") in str(error.value)


def test_a_file_without_text_encoder(sd1, tmp_path):
    tensors = {name: value for name, value in load_file(sd1[0]).items() if not name.startswith("cond_stage_model.")}
    with pytest.raises(ModelError, match=r"text encoder of .* missing"):
        load_base(save(tensors, tmp_path / "model.safetensors"))


def test_an_unknown_and_a_misshapen_tensor_are_named(sd1, tmp_path):
    tensors = load_file(sd1[0])
    extra = tensors | {"model.diffusion_model.input_blocks.1.0.mystery.weight": torch.zeros(2)}
    with pytest.raises(ModelError, match=r"1 unknown: model\.diffusion_model\.input_blocks\.1\.0\.mystery\.weight"):
        load_base(save(extra, tmp_path / "extra.safetensors"))
    wrong = tensors | {"model.diffusion_model.out.2.bias": torch.zeros(7)}
    with pytest.raises(ModelError, match=re.escape("conv_out.bias (7,), not (4,)")):
        load_base(save(wrong, tmp_path / "wrong.safetensors"))


def test_another_size_and_other_channels(sd1, tmp_path):
    tensors = load_file(sd1[0])
    for shape, message in (((64, 4, 3, 3), "64 channels wide"), ((32, 8, 3, 3), "InstructPix2Pix"), ((32, 6, 3, 3), "6 channels")):
        tensors[UNET_PREFIX + "input_blocks.0.0.weight"] = torch.zeros(shape)
        with pytest.raises(ModelError, match=message):
            load_base(save(tensors, tmp_path / "model.safetensors"))


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(Missing, match="embedded"):
        load_base(tmp_path / "nothing.safetensors")
    monkeypatch.setattr(bases.embedded, "FILE", tmp_path / "medtune-embedded.safetensors")
    with pytest.raises(Missing, match="MEDTUNE_EMBEDDED_BASE"):
        load_base("embedded")
    with pytest.raises(Missing, match=r"model_index\.json"):
        load_base(tmp_path)


def test_folders_of_another_kind_or_without_safetensors(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ModelError, match="StableDiffusionXLPipeline"):
        load_base(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(Missing, match=re.escape("unet/config.json")):
        load_base(tmp_path)
    for part, config in (("unet", LAYOUTS["sd1"].unet), ("text_encoder", TEXT_1), ("vae", VAE)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
        (tmp_path / part / "diffusion_pytorch_model.bin").write_bytes(b"PK")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(configs.SCHEDULER))
    with pytest.raises(Missing, match=r"diffusion_pytorch_model\.bin, a pickle"):
        load_base(tmp_path)
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        load_base(tmp_path)


def test_an_unknown_prediction_type(embedded):
    with pytest.raises(ModelError, match="epsilon, v_prediction"):
        load_base(embedded[0], prediction="x0")
