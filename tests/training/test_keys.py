"""Names of one weight in diffusers, LDM files and adapter files."""

import pytest
from accelerate import init_empty_weights
from medtune.training import configs, keys
from medtune.training.embedded import architecture as small


def unet(config):
    from diffusers import UNet2DConditionModel

    with init_empty_weights():
        return UNet2DConditionModel(**config)


@pytest.mark.parametrize("config", [configs.UNET_1, configs.UNET_2, configs.UNET_1 | {"in_channels": 9}, small.UNET],
                         ids=["sd1", "sd2", "inpainting", "embedded"])
def test_every_unet_tensor_has_one_ldm_name(config):
    network = unet(config)
    names = keys.unet_keys(network)
    assert names == keys.unet_keys(config)
    assert names.keys() == network.state_dict().keys() and len(set(names.values())) == len(names)


def test_ldm_names_of_stable_diffusion_1():
    names = keys.unet_keys(configs.UNET_1)
    known = {  # from the published v1-5 checkpoint
        "conv_in.weight": "input_blocks.0.0.weight",
        "time_embedding.linear_2.bias": "time_embed.2.bias",
        "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
        "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
        "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight": "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.resnets.1.time_emb_proj.weight": "middle_block.2.emb_layers.1.weight",
        "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
        "up_blocks.2.upsamplers.0.conv.weight": "output_blocks.8.2.conv.weight",
        "up_blocks.3.attentions.2.proj_out.bias": "output_blocks.11.1.proj_out.bias",
        "conv_norm_out.weight": "out.0.weight",
        "conv_out.bias": "out.2.bias",
    }
    assert {key: names[key] for key in known} == known and len(names) == 686


def test_names_are_the_embedded_bases_own():
    assert keys.unet_keys(small.UNET) == small.unet_names()


def test_adapter_keys():
    assert keys.kohya_name("up_blocks.1.attentions.0.proj_in") == "lora_unet_up_blocks_1_attentions_0_proj_in"
    assert keys.diff_key("conv_in.weight") == "lora_unet_conv_in.diff"
    assert keys.diff_key("mid_block.resnets.0.norm1.bias") == "lora_unet_mid_block_resnets_0_norm1.diff_b"
    for prefix in ("", "text_model."):  # transformers 5 and 4
        name = f"{prefix}final_layer_norm.bias"
        assert keys.text_diff_key(name, "sd1") == "text_encoders.clip_l.transformer.text_model.final_layer_norm.diff_b"
        assert keys.text_diff_key(name, "sd2") == "text_encoders.clip_h.transformer.text_model.final_layer_norm.diff_b"


def test_targets_hold_every_name_of_a_weight():
    network = unet(small.UNET)
    text = ["text_model.encoder.layers.0.self_attn.q_proj.weight", "text_model.encoder.layers.0.layer_norm1.weight"]
    found = keys.targets(network.state_dict(), network.config, text, "embedded")
    module = ("unet", "down_blocks.2.attentions.0.proj_in")
    for name in ("lora_unet_down_blocks_2_attentions_0_proj_in", "lora_unet_input_blocks_5_1_proj_in",
                 "diffusion_model.input_blocks.5.1.proj_in"):
        assert found[name] == module
    layer = "text_model.encoder.layers.0.self_attn.q_proj"
    for name in ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", f"text_encoders.clip_l.transformer.{layer}"):
        assert found[name] == ("text_encoder", layer)
    assert "lora_te_text_model_encoder_layers_0_layer_norm1" not in found  # stock loaders do not read it
    reached = {module for part, module in found.values() if part == "unet"}
    assert reached == {name.rpartition(".")[0] for name in network.state_dict()}


