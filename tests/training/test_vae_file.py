"""An autoencoder as the file of its own that stock loaders read."""

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from medtune.training import configs
from medtune.training.base import empty
from medtune.training.embedded import architecture as small
from medtune.training.layout import LAYOUTS
from medtune.training.vae_file import is_tiny, vae_keys, vae_shapes, vae_tensors, vae_weights


class Held:
    """What `vae_tensors` needs of a base."""

    def __init__(self, vae, scale=1.0, shift=0.0):
        self.vae, self.latent_scale = vae, (scale, shift)


@pytest.fixture(scope="module")
def narrow():
    """Stable Diffusion's autoencoder with narrow blocks and random weights."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL.from_config({**configs.VAE, "block_out_channels": (32, 32, 64, 64)}).eval()


def test_the_names_of_stable_diffusions_own_file():
    keys = vae_keys(empty("vae", LAYOUTS["sd1"]))
    assert len(keys) == len(set(keys.values())) == 248  # tensors of first_stage_model in SD 1.5's checkpoint
    assert keys["encoder.down_blocks.1.downsamplers.0.conv.weight"] == "encoder.down.1.downsample.conv.weight"
    assert keys["decoder.up_blocks.0.resnets.2.conv1.bias"] == "decoder.up.3.block.2.conv1.bias"
    assert keys["decoder.mid_block.attentions.0.to_out.0.weight"] == "decoder.mid.attn_1.proj_out.weight"
    assert keys["decoder.up_blocks.2.resnets.0.conv_shortcut.weight"] == "decoder.up.1.block.0.nin_shortcut.weight"


def test_shapes_of_attention_are_those_of_convolutions():
    shapes = vae_shapes(empty("vae", LAYOUTS["sd1"]))
    assert shapes["decoder.mid.attn_1.q.weight"] == (512, 512, 1, 1) and shapes["decoder.mid.attn_1.q.bias"] == (512,)
    assert shapes["encoder.conv_in.weight"] == (128, 3, 3, 3) and "vae_scale" not in shapes


def test_diffusers_reads_the_file_back(narrow):
    tensors = vae_tensors(Held(narrow))
    assert {key: tuple(value.shape) for key, value in tensors.items()} == vae_shapes(narrow)
    back = convert_ldm_vae_checkpoint(tensors, dict(narrow.config))
    assert back.keys() == narrow.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in narrow.state_dict().items())
    ours = vae_weights(narrow, tensors)
    assert all(torch.equal(ours[name], value) for name, value in narrow.state_dict().items())


def test_taesds_layout_is_the_embedded_bases_own():
    torch.manual_seed(0)
    unet, text_encoder, vae = small.build()
    checkpoint = small.to_ldm(unet, text_encoder, vae)
    tensors = vae_tensors(Held(vae))
    assert is_tiny(vae)
    assert {small.VAE_PREFIX + key for key in tensors} == {key for key in checkpoint if key.startswith(small.VAE_PREFIX)}
    for key, value in tensors.items():
        torch.testing.assert_close(checkpoint[small.VAE_PREFIX + key].float(), value, atol=1e-3, rtol=1e-3)


def test_the_scale_is_what_comfyui_applies():
    """It decodes (x - vae_shift) * vae_scale, where x are the U-Net's latents over 0.18215."""
    vae = small.build()[2]
    scale, shift = 0.5, 0.25  # the U-Net's latents are (raw + shift) * scale
    tensors = vae_tensors(Held(vae, scale, shift))
    raw = torch.randn(4)
    x = (raw + shift) * scale / 0.18215
    torch.testing.assert_close((x - tensors["vae_shift"]) * tensors["vae_scale"], raw)
