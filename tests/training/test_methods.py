"""What every method must do, over the registry, and the parameter counts on Stable Diffusion 1.5's shape.

The base has the embedded one's layout and random weights, so that every weight matters.
"""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from accelerate import init_empty_weights
from medtune.config import fields, from_json
from medtune.errors import ConfigError, ModelError, UnknownName
from medtune.training import configs
from medtune.training.adapter import Adapter, apply_adapter
from medtune.training.base import base_from_tensors
from medtune.training.embedded import architecture as small
from medtune.training.keys import UNET_PREFIX
from medtune.training.method import METHODS, Facts

SETTINGS = [*((name, None) for name in METHODS), ("lora", {"targets": "all", "rank": 3, "alpha": 2.0})]
EACH = pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=lambda value: str(value or "default"))


@pytest.fixture(scope="module")
def weights():
    """U-Net and text encoder in LDM names, with random weights; no autoencoder."""
    torch.manual_seed(0)
    unet, text_encoder, vae = small.build()
    tensors = small.to_ldm(unet, text_encoder, vae)
    unet = {key.removeprefix(UNET_PREFIX): value for key, value in tensors.items() if key.startswith(UNET_PREFIX)}
    text = {key.removeprefix("cond_stage_model.transformer."): value for key, value in tensors.items()
            if key.startswith(small.TEXT_PREFIX)}
    return unet, text


@pytest.fixture
def new_base(weights):
    return lambda: base_from_tensors(*weights, None, name="small")


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
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return base, method


def run(base):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return base.unet(torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([300]),
                         torch.randn(1, 77, 64, generator=generator)).sample


def difference(one, other):
    return ((one - other).norm() / other.norm()).item()


@EACH
def test_step_0_is_the_base(new_base, name, settings):
    base, method = attached(new_base, name, settings)
    before = run(new_base())
    if method.facts.zero_start:
        assert torch.equal(run(base), before)
        merged = new_base()
        apply_adapter(merged, Adapter(method.export(base), {}))
        assert torch.equal(run(merged), before)


@EACH
def test_merged_equals_attached(new_base, name, settings):
    base, method = trained(new_base, name, settings)
    tuned, merged = run(base), new_base()
    assert difference(tuned, run(merged)) > 1e-3  # it has an effect
    apply_adapter(merged, Adapter(method.export(base), {}))
    assert difference(run(merged), tuned) < 1e-5


@EACH
def test_save_and_load(new_base, name, settings):
    base, method = trained(new_base, name, settings)
    tensors = method.export(base)
    again, method_again = attached(new_base, name, settings, seed=2)
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
    for network in (base.unet, base.text_encoder):
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


def sd15():
    """Stable Diffusion 1.5's U-Net without its values."""
    from diffusers import UNet2DConditionModel

    with init_empty_weights():
        unet = UNet2DConditionModel(**configs.UNET_1)
    return SimpleNamespace(unet=unet, text_encoder=None, vae=None, device=torch.device("meta"))


@pytest.mark.parametrize(("name", "count"), [("full-unet", 859_520_964), ("bitfit", 343_684)])
def test_counts_on_stable_diffusion_15(name, count):
    base, method = sd15(), METHODS[name]()
    method.attach(base, torch.Generator())
    assert method.count(base) == count
    assert sum(parameter.numel() for parameter in base.unet.parameters() if parameter.requires_grad) == count


@pytest.mark.parametrize(("targets", "layers", "count"), [("attention", 128, 1_594_368), ("attention+ff", 160, None),
                                                          ("all-linear", 184, None), ("all", 280, None)])
def test_lora_on_stable_diffusion_15(targets, layers, count):
    unet = sd15().unet
    method = METHODS["lora"](METHODS["lora"].Config(targets=targets))
    chosen = method.chosen(unet)
    weights = [unet.get_submodule(name).weight for name in chosen]
    found = sum(8 * (weight.shape[0] + weight[0].numel()) for weight in weights)
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
    with pytest.raises(UnknownName, match=r"unknown method 'lorra' \(did you mean 'lora'\?\); there are: .*bitfit, full-unet, lora"):
        METHODS["lorra"]


def test_an_unknown_option_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"no option 'rnk' \(did you mean 'rank'\?\); it has: rank, alpha, targets, dropout"):
        from_json(METHODS["lora"].Config, {"rnk": 8})


def test_lora_dropout_is_off_in_evaluation(new_base):
    base, _ = trained(new_base, "lora", {"dropout": 0.5})
    assert torch.equal(run(base), run(base))
    base.unet.train()
    assert not torch.equal(run(base), run(base))
