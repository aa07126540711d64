"""The embedded base: its file layout, its autoencoder on images that it has not seen, and whether its prompt matters."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from medtune.training.embedded import FILE, architecture, autoencoder, check, pretrain, scenes, world
from medtune.training.embedded.muon import orthogonal
from safetensors.torch import load_file

TRAINED = not Path(FILE).parent.name.startswith("medtune-base-")  # conftest's stand-in has random weights
needs_training = pytest.mark.skipif(not TRAINED, reason="NO EMBEDDED BASE in this checkout: random weights stand in")
UNSEEN = 20_000  # seeds from here on are no training's


@pytest.fixture(scope="module")
def tensors():
    return load_file(FILE)


@pytest.fixture(scope="module")
def networks():
    return check.load()


def test_layout_is_exact_there_and_back():
    torch.manual_seed(0)
    networks = [network.half() for network in architecture.build()]
    back = architecture.from_ldm(architecture.to_ldm(*networks))
    for network, state in zip(networks, back):
        before = {key: value for key, value in network.state_dict().items() if not key.endswith("position_ids")}
        assert before.keys() == state.keys()
        assert all(torch.equal(before[key], state[key]) for key in before)


def test_names_are_those_of_sd1():
    """Spot checks against the scheme of Stable Diffusion 1.5's file: one block a level, attention at the two deepest levels."""
    names = architecture.unet_names()
    assert names["conv_in.weight"] == "input_blocks.0.0.weight"
    assert names["down_blocks.2.resnets.0.conv_shortcut.weight"] == "input_blocks.5.0.skip_connection.weight"
    assert names["down_blocks.3.attentions.0.transformer_blocks.0.attn2.to_k.weight"] == \
        "input_blocks.7.1.transformer_blocks.0.attn2.to_k.weight"
    assert names["down_blocks.0.downsamplers.0.conv.bias"] == "input_blocks.2.0.op.bias"
    assert names["mid_block.resnets.1.time_emb_proj.weight"] == "middle_block.2.emb_layers.1.weight"
    assert names["up_blocks.1.upsamplers.0.conv.weight"] == "output_blocks.3.2.conv.weight"  # after an attention
    assert names["up_blocks.2.upsamplers.0.conv.weight"] == "output_blocks.5.1.conv.weight"  # where there is none


def test_missing_tensor_is_named():
    tensors = architecture.to_ldm(*architecture.build())
    del tensors["model.diffusion_model.out.2.weight"]
    with pytest.raises(KeyError, match=r"out\.2\.weight"):
        architecture.from_ldm(tensors)


def test_file_fits_and_is_in_ldm_layout(tensors):
    assert FILE.stat().st_size <= 32_000_000
    expected = architecture.to_ldm(*architecture.build())
    assert {key: (value.shape, value.dtype) for key, value in tensors.items()} == \
        {key: (value.shape, value.dtype) for key, value in expected.items()}
    assert all(value.isfinite().all() for value in tensors.values())
    assert "first_stage_model.taesd_decoder.1.weight" in tensors  # by this ComfyUI knows TAESD
    assert "cond_stage_model.transformer.text_model.final_layer_norm.weight" in tensors
    assert float(tensors["first_stage_model.vae_scale"]) == pytest.approx(0.18215)
    assert float(tensors["first_stage_model.vae_shift"]) == 0


def unseen_images(count: int, size: int) -> torch.Tensor:
    """Half dead leaves, half scenes, in [-1, 1]."""
    leaves = [world.image(np.random.default_rng([UNSEEN, i]), size) for i in range(count // 2)]
    made = leaves + [scenes.sample(UNSEEN, i, size)[1] for i in range(count // 2)]
    return torch.from_numpy(np.stack(made)) * 2 - 1


@needs_training
@torch.inference_mode()
def test_autoencoder_reconstructs_unseen_images_from_latents_near_unit_variance(networks):
    images = unseen_images(8, 256)
    latents = autoencoder.encode(networks[2], images)
    error = (check.decode(networks, latents) - (images / 2 + 0.5)).square().mean((1, 2, 3))
    psnr = float((-10 * error.log10()).mean())
    mean, deviation = autoencoder.statistics(latents)
    assert psnr > 27, f"{psnr:.1f} dB"
    assert mean.abs().max() < 0.5, mean
    assert deviation.min() > 0.6 and deviation.max() < 1.5, deviation


@needs_training
@pytest.mark.parametrize("name", ["background", "side", "tone"])
def test_prompt_matters(networks, name):
    question = next(each for each in check.QUESTIONS if each.name == name)
    higher, lower, _ = check.ask(networks, question, count=2, seed=UNSEEN, steps=8, guidance=4.0)
    assert (higher > lower + 0.05).all(), (higher, lower)


def test_a_fresh_text_encoder_tells_prompts_apart_on_the_mean_of_all_places():
    """Cross-attention begins uniform: what the mean of the places does not tell has no effect, and no gradient."""
    torch.manual_seed(0)
    text_encoder = architecture.build()[1]
    pretrain.start_text(text_encoder)
    with torch.no_grad():
        tokens = pretrain.tokenize(["a white circle on the left", "a white circle on the right"])
        one, other = text_encoder(tokens).last_hidden_state.mean(1)
    assert (one - other).norm() > 0.1 * one.norm()


def test_fold_makes_latents_unit_and_changes_nothing_else():
    """Exact away from the border and the clamp: hence a small image's middle and small latents."""
    torch.manual_seed(0)
    vae = architecture.build()[2]
    vae.encoder.layers[-1].weight.data.mul_(0.05)
    vae.encoder.layers[-1].bias.data.copy_(torch.tensor([0.02, -0.01, 0.0, 0.01]))
    images = unseen_images(4, 128)
    with torch.no_grad():
        latents = autoencoder.encode(vae, images)
        before = vae.decoder.layers[0](latents)
        autoencoder.fold(vae, *autoencoder.statistics(latents))
        folded = autoencoder.encode(vae, images)
        after = vae.decoder.layers[0](folded)
    mean, deviation = autoencoder.statistics(folded)
    torch.testing.assert_close(mean, torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(after[..., 1:-1, 1:-1], before[..., 1:-1, 1:-1], atol=1e-4, rtol=1e-3)


def test_caption_tells_what_is_drawn():
    scene = scenes.Scene("plain", "dark", (scenes.Thing("circle", "large", "white", "on the left", False),))
    assert scene.caption() == "a large white circle on the left, dark plain background"
    image = scenes.render(scene, np.random.default_rng(0), 64)
    assert image[:, 32, 16].min() > 0.7 and image[:, 32, 56].max() < 0.4


def test_scenes_and_images_follow_from_their_seed_alone():
    assert scenes.sample(5, 3, 64)[0] == scenes.sample(5, 3, 64)[0]
    assert np.array_equal(scenes.sample(5, 3, 64)[1], scenes.sample(5, 3, 64)[1])
    first, second = world.images(5, 2, 64)
    assert np.array_equal(world.images(5, 1, 64)[0], first) and not np.array_equal(first, second)


def test_tokens_are_sd1s_and_a_long_caption_is_refused():
    (row,) = pretrain.tokenize(["a red circle"])
    assert row[:6].tolist() == [49406, 320, 736, 7117, 49407, 49407] and row.shape == (77,)
    with pytest.raises(ValueError, match="at most 75"):
        pretrain.tokenize(["circle " * 80])


def test_objective_is_zero_for_the_right_answer_and_weighted_by_snr():
    """A U-Net that returns the noise has no loss; one that returns zero has the weights' mean times the noise's variance."""
    latents, states = torch.zeros(2000, 4, 8, 8), torch.zeros(2000, 77, 1)
    share = pretrain.signal_share()

    def knowing(noisy, times, states):
        return SimpleNamespace(sample=noisy / (1 - share[times]).sqrt()[:, None, None, None])

    def blank(noisy, times, states):
        return SimpleNamespace(sample=torch.zeros_like(noisy))

    generator = torch.Generator().manual_seed(0)
    assert pretrain.objective(knowing, latents, states, generator)[0] < 1e-10
    loss, plain = pretrain.objective(blank, latents, states, generator)
    snr = share / (1 - share)
    weight = float((snr.clamp(max=5) / snr * (1 / share).clamp(max=200)).mean())
    variance = pretrain.coarse(latents.shape, generator).square().mean().item()
    assert plain == pytest.approx(variance, rel=0.03) and variance > 1 + pretrain.COARSE_NOISE**2
    assert float(loss) == pytest.approx(weight * plain, rel=0.03)


def test_coarse_noise_hides_brightness_and_place_where_white_noise_does_not():
    """At the noisiest step 0.07 of the image is left: its mean, and its halves, must lie below the noise of these sizes."""
    noise = pretrain.coarse((500, 4, 64, 64), torch.Generator().manual_seed(0))
    halves = noise[..., :32].mean((2, 3)) - noise[..., 32:].mean((2, 3))
    leaked = float(pretrain.signal_share()[-1].sqrt())
    assert noise.mean((2, 3)).std() > 2 * leaked and halves.std() > leaked
    white = torch.randn(500, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    assert white.mean((2, 3)).std() < leaked / 2


def test_scenes_of_few_objects_are_the_first_ones_that_have_no_more():
    few = list(itertools.islice(scenes.of_few_objects(5, 1), 20))
    counts = [len(scenes.draw_scene(np.random.default_rng([5, index])).things) for index in range(few[-1] + 1)]
    assert few == [index for index, things in enumerate(counts) if things <= 1] and max(counts) > 1


def test_orthogonal_has_singular_values_near_one():
    matrices = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(0))
    for each in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonal(each))
        assert orthogonal(each).shape == each.shape and values.min() > 0.6 and values.max() < 1.3


def test_shift_moves_the_inside_and_keeps_the_shape():
    """A ramp along x, moved, is the ramp plus a constant wherever the border was not repeated."""
    ramp = torch.arange(32.0).expand(8, 4, 32, 32)
    moved = pretrain.shifted(ramp, torch.Generator().manual_seed(0))
    offsets = (moved - ramp)[:, 0, 16, 4:-4]
    assert moved.shape == ramp.shape and (offsets == offsets[:, :1]).all()
    assert offsets[:, 0].abs().max() <= 2 and len(set(offsets[:, 0].tolist())) > 1


def test_learning_rate_is_a_share_of_the_first():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    autoencoder.set_rate([optimiser], 0.5)
    autoencoder.set_rate([optimiser], 0.5)
    assert math.isclose(optimiser.param_groups[0]["lr"], 0.1)
