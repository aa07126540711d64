"""What every method must do, over the registry, and the parameter counts on Stable Diffusion 1.5's shape.

The base has the embedded one's layout and random weights, so that every weight matters.
"""

import dataclasses
import json

import pytest
import torch
from medtune.config import fields, from_json, to_json
from medtune.errors import ConfigError, ModelError, UnknownName
from medtune.training.adapter import Adapter, apply_adapter
from medtune.training.count import count, empty_base
from medtune.training.method import METHODS, Facts

SETTINGS = [*((name, None) for name in METHODS), ("lora", {"targets": "all", "rank": 3, "alpha": 2.0}),
            *(("full", {"parts": parts}) for parts in ("text-encoder", "vae", "unet+text-encoder+vae")),
            *((name, {"text_encoder": True}) for name in ("attention", "bitfit", "norm", "difffit", "delta", "lora", "ia3"))]
EACH = pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda value: str(value or "default"))
PROMPT = "Chest X-ray showing Edema"


def make(name, settings):
    return METHODS[name](METHODS[name].Config(**settings) if settings else None)


def attached(new_base, name, settings, seed=0):
    base, method = new_base(), make(name, settings)
    method.attach(base, torch.Generator().manual_seed(seed))
    return base, method


def trained(new_base, name, settings):
    """An attached base as training would leave it: every trained value moved."""
    base, method = attached(new_base, name, settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.named(base).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.1 if name == "vera" else 0.02))
    return base, method


@torch.no_grad()
def run(base, prompt=None):
    """What each part of a base gives; the prompt says the words that were taught to it."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    states = base.encode_prompts([prompt or " ".join([PROMPT, *base.tokenizer.taught])])
    return {"text": states, "unet": base.unet(latents, torch.tensor([300]), states).sample,
            "decoded": base.decode_latents(latents[..., :4, :4]),
            "encoded": base.encode_images(torch.rand(1, 3, 32, 32, generator=generator))}


def difference(one, other):
    """The largest relative difference of any part's output."""
    return max(((one[part] - other[part]).norm() / other[part].norm()).item() for part in other)


def same(one, other):
    return all(torch.equal(one[part], other[part]) for part in other)


def applied(base, method, products):
    """The base with the files of a training."""
    header = {"medtune.config": json.dumps(to_json(method.config))}
    for tensors in products.values():
        apply_adapter(base, Adapter(tensors, header))
    return base


@EACH
def test_step_0_is_the_base(new_base, name, settings):
    base, method = attached(new_base, name, settings)
    before = run(new_base())
    if method.facts.zero_start:
        assert same(run(base, PROMPT), before)
        assert same(run(applied(new_base(), method, method.products(base)), PROMPT), before)


@EACH
def test_merged_equals_attached(new_base, name, settings):
    base, method = trained(new_base, name, settings)
    tuned, merged = run(base), new_base()
    assert difference(run(merged), tuned) > 1e-3  # it has an effect
    assert difference(run(applied(merged, method, method.products(base))), tuned) < 1e-5


@EACH
def test_save_and_load(new_base, name, settings):
    base, method = trained(new_base, name, settings)
    tensors = method.export(base)
    again, method_again = attached(new_base, name, settings, seed=2)
    if not method.facts.continues:
        with pytest.raises(ModelError, match="cannot go on from a file"):
            method_again.load(again, tensors)
        return
    method_again.load(again, tensors)
    assert difference(run(again), run(base)) < 1e-6
    exported = method_again.export(again)
    assert exported.keys() == tensors.keys()
    for key, value in tensors.items():
        torch.testing.assert_close(exported[key], value, atol=1e-6, rtol=1e-5)


@EACH
def test_gradients_are_on_what_is_trained_alone(new_base, name, settings):
    base, method = attached(new_base, name, settings)
    named = method.named(base)
    assert named and all(parameter.requires_grad for parameter in named.values())
    ids = {id(parameter) for parameter in named.values()}
    for network in (base.unet, base.text_encoder, base.vae):
        assert all(id(parameter) in ids for parameter in network.parameters() if parameter.requires_grad)
    groups = method.parameters(base)
    assert {id(parameter) for group in groups for parameter in group["params"]} == ids and all("name" in group for group in groups)
    assert method.count(base) == sum(parameter.numel() for parameter in named.values())
    assert method.trains(base) <= {"unet", "text_encoder", "vae"}


@EACH
def test_export_is_plain(new_base, name, settings):
    base, method = trained(new_base, name, settings)
    for value in method.export(base).values():
        assert value.dtype == torch.float32 and value.device.type == "cpu" and value.is_contiguous() and not value.requires_grad


@EACH
def test_the_generator_decides_the_start(new_base, name, settings):
    starts = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)  # the global generator has no part in it
        base, method = attached(new_base, name, settings, seed)
        after = torch.rand(1)
        torch.manual_seed(noise)
        assert torch.equal(after, torch.rand(1)), "the global generator was used"
        starts.append({key: value.detach().clone() for key, value in method.named(base).items()})
    assert starts[0].keys() == starts[2].keys()
    assert all(torch.equal(starts[0][key], starts[1][key]) for key in starts[0])
    if name == "lora":
        assert all(not torch.equal(starts[0][key], starts[2][key]) for key in starts[0] if key.endswith("lora_A"))


@EACH
def test_load_refuses_what_it_did_not_write(new_base, name, settings):
    base, method = attached(new_base, name, settings)
    tensors = method.export(base)
    if not method.facts.continues:
        with pytest.raises(ModelError, match="cannot go on from a file"):
            method.load(base, tensors)
        return
    key = next(key for key in tensors if not key.endswith(".alpha"))
    lost = {other: value for other, value in tensors.items() if other != key}
    for wrong, message in ((lost, "1 missing"), (tensors | {"lora_unet_x.diff": torch.zeros(1)}, "1 unknown"),
                           (tensors | {key: torch.zeros(2, 2, 2, 2, 2)}, "1 of another shape")):
        with pytest.raises(ModelError, match=message):
            method.load(base, wrong)


@pytest.mark.parametrize("name", list(METHODS))
def test_facts_and_options_are_told(name):
    method = METHODS[name]
    assert method.name == name and isinstance(method.facts, Facts) and method.facts.lr > 0
    assert dataclasses.is_dataclass(method.Config) and method.Config.__dataclass_params__.frozen
    assert all(facts.get("help") for _, _, _, facts in fields(method.Config)) and method.__doc__


@pytest.fixture(scope="module")
def sd15():
    """Stable Diffusion 1.5's networks without their values."""
    return empty_base("sd1")


TEXT, VAE = 123_060_480, 83_653_863
BIASES, NORMS, GAMMAS = 343_684, 200_320, 3 * 12_480  # 12,480 channels in the 16 transformer blocks: 5 * 320 + 5 * 640 + 6 * 1280


@pytest.mark.parametrize(("name", "settings", "expected"), [
    ("full", {}, 859_520_964),
    ("full", {"parts": "text-encoder"}, TEXT),
    ("full", {"parts": "vae"}, VAE),
    ("full", {"parts": "unet+text-encoder+vae"}, 859_520_964 + TEXT + VAE),
    ("attention", {}, 93_536_640),
    ("attention", {"text_encoder": True}, 93_536_640 + 12 * 4 * (768 + 1) * 768),
    ("cross-attention", {}, 43_962_560),
    ("cross-kv", {}, 19_169_280),
    ("bitfit", {}, BIASES),
    ("norm", {}, NORMS),
    ("norm", {"text_encoder": True}, NORMS + 25 * 2 * 768),
    ("difffit", {}, 443_844 + GAMMAS),
    ("delta", {}, 859_520_964 - NORMS - (BIASES - NORMS // 2)),
    ("textual-inversion", {"vectors": 5}, 5 * 768),
])
def test_counts_on_stable_diffusion_15(sd15, name, settings, expected):
    assert count(make(name, settings), sd15) == expected


@pytest.mark.parametrize(("targets", "layers", "count"), [("attention", 128, 1_594_368), ("attention+ff", 160, None),
                                                          ("all-linear", 184, None), ("all", 280, None)])
def test_lora_on_stable_diffusion_15(sd15, targets, layers, count):
    chosen = make("lora", {"targets": targets}).chosen(sd15)
    found = sum(8 * (place.layer.weight.shape[0] + place.layer.weight[0].numel()) for place in chosen)
    assert len(chosen) == layers and count in (None, found)


@pytest.mark.parametrize("rank", [0, -1, 2000, 8.0, True])
def test_a_rank_out_of_bounds(rank):
    with pytest.raises(ConfigError, match="rank"):
        METHODS["lora"](METHODS["lora"].Config(rank=rank))


def test_a_rank_larger_than_a_layer_names_the_layers(new_base):
    with pytest.raises(ConfigError, match=r"larger than \d+ of the \d+ .*attn2\.to_k \(at most 64\)"):
        attached(new_base, "lora", {"rank": 65})


def test_an_alpha_that_is_not_the_files(new_base):
    base, method = attached(new_base, "lora", {"alpha": 4.0})
    other, other_method = attached(new_base, "lora", {"alpha": 8.0})
    with pytest.raises(ModelError, match=r"made with alpha 4\.0"):
        other_method.load(other, method.export(base))


def test_an_unknown_method_lists_what_there_is():
    with pytest.raises(UnknownName, match=r"unknown method 'lorra' \(did you mean 'lora'\?\); there are: .*bitfit, .*full, .*lora"):
        METHODS["lorra"]


def test_an_unknown_option_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"no option 'rnk' \(did you mean 'rank'\?\); it has: rank, alpha, targets, dropout"):
        from_json(METHODS["lora"].Config, {"rnk": 8})


def test_lora_dropout_is_off_in_evaluation(new_base):
    base, _ = trained(new_base, "lora", {"dropout": 0.5})
    assert same(run(base), run(base))
    base.unet.train()
    assert not same(run(base), run(base))
