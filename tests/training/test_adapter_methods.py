"""The methods that put adapters beside weights: which layers, how they start and learn, what the file says, and bad settings."""

import pytest
import torch
from medtune.errors import ConfigError, ModelError
from medtune.training.adapter import Adapter, apply_adapter
from medtune.training.base import base_from_tensors
from medtune.training.count import count, empty_base
from medtune.training.method import METHODS
from medtune.training.targets import choose, read_patterns


def make(name, **settings):
    return METHODS[name](METHODS[name].Config(**settings))


def attached(base, name, seed=0, **settings):
    method = make(name, **settings)
    method.attach(base, torch.Generator().manual_seed(seed))
    return method


@torch.no_grad()
def moved(base, method, size=0.02):
    generator = torch.Generator().manual_seed(1)
    for parameter in method.named(base).values():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


@torch.no_grad()
def run(base):
    generator = torch.Generator().manual_seed(0)
    states = base.encode_prompts(["Chest X-ray showing Edema"])
    return base.unet(torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([300]), states).sample


def difference(one, other):
    return ((one - other).norm() / other.norm()).item()


# -- which layers


def test_patterns_add_layers_with_a_rank_of_their_own(new_base):
    base = new_base()
    method = attached(base, "lora", targets="attention", patterns="attn2=4, conv1=2, mid_block=0, *attn2.to_v")
    tensors = method.export(base)
    ranks = {key.removeprefix("lora_unet_").removesuffix(".lora_down.weight"): len(value) for key, value in tensors.items()
             if key.endswith("down.weight")}
    assert not any(name.startswith("mid_block") and "attn2_to_v" not in name for name in ranks)
    assert {rank for name, rank in ranks.items() if "attn1" in name} == {8}
    assert {rank for name, rank in ranks.items() if "attn2_to_q" in name} == {4}
    assert {rank for name, rank in ranks.items() if "attn2_to_v" in name} == {8}  # the later pattern, without a number
    assert {rank for name, rank in ranks.items() if "conv1" in name} == {2}
    moved(base, method)
    merged = new_base()
    apply_adapter(merged, Adapter(method.export(base), {}))
    assert difference(run(merged), run(base)) < 1e-5


def test_only_what_patterns_name(new_base):
    places = choose(new_base(), {"unet"}, "none", "conv_in, time_embedding.linear_?")
    assert [place.name for place in places] == ["conv_in", "time_embedding.linear_1", "time_embedding.linear_2"]
    assert "conv_in" not in {place.name for place in choose(new_base(), {"unet"}, "none", "conv")}  # only by its whole name


@pytest.mark.parametrize(("settings", "message"), [
    ({"patterns": "atn2=4"}, r"'atn2' matches no layer\. Near names: attn2, attn1"),
    ({"patterns": "text_encoder"}, "'text_encoder' matches no layer"),
    ({"patterns": "attn2=x"}, "'attn2=x' cannot be read"),
    ({"patterns": "=4"}, "'=4' cannot be read"),
    ({"patterns": "attn2=-4"}, "'attn2=-4' cannot be read"),
    ({"targets": "none"}, "choose no layer"),
    ({"targets": "none", "patterns": "attn2=0"}, "choose no layer"),
    ({"patterns": "attn2.to_k=65"}, r"rank is 8 \(and 65 by patterns\), larger than \d+ of the \d+ .*attn2\.to_k \(at most 64\)"),
])
def test_patterns_that_cannot_be(new_base, settings, message):
    with pytest.raises(ConfigError, match=message):
        attached(new_base(), "lora", **settings)


def test_a_pattern_of_layers_that_the_method_has_no_form_for(new_base):
    with pytest.raises(ConfigError, match=r"'conv1' names only layers that this method has no form for: .*conv1 \(Conv2d\)"):
        attached(new_base(), "vera", patterns="conv1")
    with pytest.raises(ConfigError, match=r"gives .*attn2.* the size 4, and VeRA has one size"):
        attached(new_base(), "vera", patterns="attn2=4")


def test_of_two_patterns_the_later_counts():
    assert list(read_patterns("a=1, b, a=2,, c = 0 ").items()) == [("b", None), ("a", 2), ("c", 0)]


@pytest.mark.parametrize("name", ["lora", "dora", "loha", "lokr", "oft", "boft", "vera", "ia3", "svdiff"])
def test_the_text_encoder_is_tuned_on_request(new_base, weights, name):
    base = new_base()
    method = attached(base, name, text_encoder=True)
    assert method.trains(base) == {"unet", "text_encoder"}
    before = base.encode_prompts(["edema"])
    moved(base, method)
    after = base.encode_prompts(["edema"])
    assert difference(after, before) > 1e-3
    tensors = method.export(base)
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_self_attn_v_proj.") for key in tensors)
    merged = new_base()
    apply_adapter(merged, Adapter(tensors, {}))
    assert difference(merged.encode_prompts(["edema"]), after) < 1e-5
    assert difference(run(merged), run(base)) < 1e-5
    with pytest.raises(ModelError, match="trains the text encoder"):
        attached(base_from_tensors(weights[0], None, None, name="small"), name, text_encoder=True)


# -- how LoRA starts and learns


def test_a_rank_stabilised_file_says_so_by_its_alpha(new_base):
    base = new_base()
    method = attached(base, "lora", rank=4, alpha=2.0, rank_stabilised=True)
    layer = base.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    assert layer.scaling["medtune"] == pytest.approx(2.0 / 4**0.5)
    moved(base, method)
    tensors = method.export(base)
    assert {round(float(value), 5) for key, value in tensors.items() if key.endswith(".alpha")} == {4.0}
    merged = new_base()
    apply_adapter(merged, Adapter(tensors, {}))
    assert difference(run(merged), run(base)) < 1e-5


def test_lora_plus_lets_b_learn_faster(new_base):
    base = new_base()
    groups = {group["name"]: group for group in attached(base, "lora", up_ratio=16.0).parameters(base)}
    named = make("lora").named(base)
    assert groups["lora_B"]["lr_scale"] == 16 and "lr_scale" not in groups["lora_A"]
    for side in ("lora_A", "lora_B"):
        assert {id(parameter) for parameter in groups[side]["params"]} == {id(parameter) for name, parameter in named.items()
                                                                           if name.endswith(side)}


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_pissa_trains_the_largest_directions_and_writes_the_difference(new_base, targets):
    settings = {"rank": 3, "alpha": 6.0, "targets": targets, "start": "pissa"}
    base, untouched = new_base(), new_base()
    method = attached(base, "lora", **settings)
    assert difference(run(base), run(untouched)) < 1e-5
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    left, weight = base.unet.get_submodule(name), untouched.unet.get_submodule(name).weight
    values = torch.linalg.svdvals(weight)
    product = 2 * left.lora_B["medtune"].weight @ left.lora_A["medtune"].weight
    torch.testing.assert_close(torch.linalg.svdvals(product)[:3], values[:3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.linalg.svdvals(left.base_layer.weight)[0], values[3], atol=1e-5, rtol=1e-4)
    moved(base, method)
    tensors = method.export(base)
    assert len(tensors[f"lora_unet_{name.replace('.', '_')}.lora_down.weight"]) == 6
    merged, again = new_base(), new_base()
    apply_adapter(merged, Adapter(tensors, {}))
    assert difference(run(merged), run(base)) < 1e-5
    other = attached(again, "lora", seed=2, **settings)
    other.load(again, tensors)
    assert difference(run(again), run(base)) < 1e-6


def test_pissa_of_other_weights_is_refused(new_base, weights):
    base = new_base()
    tensors = attached(base, "lora", rank=3, start="pissa").export(base)
    other = base_from_tensors({key: value.flip(0) for key, value in weights[0].items()}, weights[1], None, name="other")
    method = attached(other, "lora", rank=3, start="pissa")
    with pytest.raises(ModelError, match="singular directions of other weights"):
        method.load(other, tensors)


def test_a_gaussian_start_is_of_the_generator(new_base):
    bases = [new_base() for _ in range(3)]
    starts = [attached(base, "lora", seed=seed, start="gaussian", rank=4).named(base) for base, seed in zip(bases, (0, 0, 1))]
    down = [torch.cat([value.flatten() for name, value in start.items() if name.endswith("lora_A")]) for start in starts]
    assert torch.equal(down[0], down[1]) and not torch.equal(down[0], down[2])
    assert down[0].std().item() == pytest.approx(0.25, rel=0.02)


# -- every form of the other methods


@pytest.mark.parametrize(("name", "settings"), [
    ("dora", {"targets": "all", "rank": 3}),
    ("loha", {"targets": "all", "rank": 2, "alpha": 3.0}),
    ("loha", {"targets": "all", "rank": 2, "tucker": True}),
    ("lokr", {"targets": "all", "rank": 2, "factor": 4, "alpha": 3.0}),
    ("lokr", {"targets": "all", "rank": 2, "decompose_both": True}),
    ("lokr", {"rank": 32, "factor": 8, "alpha": 3.0}),
    ("oft", {"targets": "all", "block_size": 8}),
    ("boft", {"targets": "all", "block_size": 4, "factors": 4}),
    ("vera", {"targets": "all-linear", "rank": 16, "projection_seed": 3}),
])
def test_merged_equals_attached_in_every_form(new_base, name, settings):
    base, merged = new_base(), new_base()
    before = run(base)
    method = attached(base, name, **settings)
    assert torch.equal(run(base), before)
    moved(base, method, 0.1 if name == "vera" else 0.02)
    tensors, tuned = method.export(base), run(base)
    assert difference(tuned, before) > 1e-3
    apply_adapter(merged, Adapter(tensors, {}))
    assert difference(run(merged), tuned) < 1e-5
    if method.facts.continues:
        again = new_base()
        other = attached(again, name, seed=2, **settings)
        other.load(again, tensors)
        assert difference(run(again), tuned) < 2e-6


def test_a_butterfly_is_orthogonal_and_reaches_beyond_its_blocks(new_base):
    base = new_base()
    method = attached(base, "boft", block_size=4, factors=4)
    moved(base, method, 0.2)
    layer = base.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    rotation = layer.tuned_weight() @ torch.linalg.inv(layer.weight)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(rotation)), atol=2e-3, rtol=0)
    reached = (rotation[0].abs() > 1e-3).nonzero().flatten()
    assert reached.max() >= 16 and len(reached) > 4  # one factor would stay among its 4


def test_shifts_of_singular_values_are_shifts(new_base):
    base, untouched = new_base(), new_base()
    method = attached(base, "svdiff")
    name = "down_blocks.2.resnets.0.conv1"
    layer, weight = base.unet.get_submodule(name), untouched.unet.get_submodule(name).weight
    with torch.no_grad():
        layer.trained[0] += 0.5
        layer.trained[-1] -= 100  # no value falls below 0
    old, new = torch.linalg.svdvals(weight.flatten(1)), torch.linalg.svdvals(layer.tuned_weight().flatten(1))
    torch.testing.assert_close(new[0], old[0] + 0.5, atol=1e-4, rtol=1e-4)
    assert new[-1] < 1e-5 < old[-1]
    assert len(method.named(base)) == len(choose(untouched, {"unet"}, "all", "conv_in, conv_out"))


# -- files that training cannot go on from


@pytest.mark.parametrize("name", ["dora", "boft"])
def test_a_file_of_differences_is_no_way_back(new_base, name):
    base = new_base()
    method = attached(base, name)
    with pytest.raises(ModelError, match=f"cannot go on from a file of method '{name}'.*merge"):
        method.load(base, method.export(base))


@pytest.mark.parametrize(("name", "settings", "others", "message"), [
    ("oft", {"block_size": 16}, {"block_size": 8}, "no rotation of this base's weight in blocks of 8"),
    ("vera", {"rank": 16}, {"rank": 16, "projection_seed": 1}, "projection_seed 1 draws"),
    ("loha", {"alpha": 4.0}, {"alpha": 8.0}, r"made with alpha 4\.0"),
    ("lokr", {"alpha": 4.0, "rank": 2}, {"alpha": 8.0, "rank": 2}, r"made with alpha 4\.0"),
])
def test_a_file_of_other_settings_is_refused(new_base, name, settings, others, message):
    base, other = new_base(), new_base()
    method = attached(base, name, **settings)
    moved(base, method)
    method_of_other = attached(other, name, **others)
    with pytest.raises(ModelError, match=message):
        method_of_other.load(other, method.export(base))


def test_shifts_of_another_base_are_refused(new_base, weights):
    base = new_base()
    method = attached(base, "svdiff")
    moved(base, method)
    other = base_from_tensors({key: value.flip(0) for key, value in weights[0].items()}, weights[1], None, name="other")
    method_of_other = attached(other, "svdiff")
    with pytest.raises(ModelError, match="more than shifts of this base's singular values"):
        method_of_other.load(other, method.export(base))


# -- settings that do not fit


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("dora", {"rank": 65}, r"DoRAConfig\.rank is 65, larger than"),
    ("loha", {"rank": 65}, r"LoHaConfig\.rank is 65, larger than"),
    ("lokr", {"rank": 65}, r"LoKrConfig\.rank is 65, larger than"),
    ("lokr", {"factor": 7}, r"factor is 7, and does not divide \d+ of the \d+ chosen layers: .*fit all of them: -1, 2, 4"),
    ("lokr", {"factor": 1}, "it must be -1, or the size of the small factor: at least 2"),
    ("oft", {"block_size": 24}, r"block_size is 24, and that does not divide .*Sizes that fit all of them: 2, 4, 8, 16"),
    ("boft", {"block_size": 12}, r"block_size is 12, and 2 times that does not divide .*Sizes that fit all of them: 2, 4, 8, 16"),
    ("boft", {"block_size": 7}, "it must be even, such as 8"),
    ("oft", {"block_size": 1}, "at least 2"),
    ("boft", {"patterns": "attn2=4"}, "BOFT has one size for all layers"),
])
def test_settings_that_do_not_fit(new_base, name, settings, message):
    with pytest.raises(ConfigError, match=message):
        attached(new_base(), name, **settings)


# -- counts


@pytest.fixture(scope="module")
def sd15():
    return empty_base("sd1")


# 12,480 channels in the 16 transformer blocks: 5 * 320 + 5 * 640 + 6 * 1280; 8 projections of each, 2 of them from the text's 768
@pytest.mark.parametrize(("name", "number"), [
    ("lora", 1_594_368), ("dora", 1_594_368 + 8 * 12_480), ("loha", 1_594_368), ("lokr", 138_592),
    ("oft", (6 * 12_480 + 16 * 2 * 768) * 15 // 2), ("boft", 8 * 12_480 * 7), ("vera", 8 * 12_480 + 128 * 256), ("ia3", 99_840),
    ("svdiff", 222_696)])
def test_counts_on_stable_diffusion_15(sd15, name, number):
    assert count(METHODS[name](), sd15) == number
    assert f"{number:,}" in METHODS[name].facts.cost or f"{number / 1e6:.2f} M" in METHODS[name].facts.cost
