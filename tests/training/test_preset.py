"""The presets: what their studies say, checked against the methods and options that there are, and the bases they are for."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from medtune.data.caption import check_template
from medtune.errors import ConfigError, UnknownName
from medtune.training.count import base_of, empty_base
from medtune.training.layout import LAYOUTS
from medtune.training.preset import KINDS, PLAIN, PRESETS, use

EACH = pytest.mark.parametrize("name", list(PRESETS))
PIXELS, CHEST = "pixels-under-pressure/", "chest-distillation/"


def test_two_studies():
    assert Counter(name.partition("/")[0] for name in PRESETS) == {"pixels-under-pressure": 11, "chest-distillation": 4}


@EACH
def test_every_setting_is_one_that_there_is(name):
    preset = PRESETS[name]
    assert preset.name == name and preset.title and preset.notes and preset.source.endswith(("2024", "2025"))
    assert set(preset.bases) <= set(KINDS) and preset.bases
    assert preset.make_method().name == preset.method
    for made, values in ((preset.train_options(), preset.options), (preset.objective_options(), preset.objective),
                         (preset.sample_options(), preset.sampling)):
        assert all(getattr(made, key) == value for key, value in values.items())
    if preset.caption:
        check_template(preset.caption)


def rates(name: str) -> dict[str, float]:
    """The learning rate of each part, or of all that an adapter trains, on a base of the embedded one's shapes."""
    preset, base = PRESETS[name], empty_base("embedded")
    method, lr = preset.make_method(), preset.train_options().lr
    method.attach(base, torch.Generator().manual_seed(0))
    return {group["name"]: group.get("lr") or lr * group.get("lr_scale", 1) for group in method.parameters(base)}


@pytest.mark.parametrize(("name", "expected"), [
    ("unet", {"unet": 1e-5}), ("text-encoder", {"text_encoder": 5e-6}), ("vae", {"vae": 1e-6}),
    ("unet+text-encoder", {"unet": 1e-5, "text_encoder": 1e-6}), ("unet+vae", {"unet": 1e-5, "vae": 1e-6}),
    ("text-encoder+vae", {"text_encoder": 1e-6, "vae": 1e-6}),
    ("unet+text-encoder+vae", {"unet": 1e-5, "text_encoder": 1e-6, "vae": 1e-6}),
])
def test_rates_of_full_fine_tuning_in_pixels_under_pressure(name, expected):
    assert rates(PIXELS + name) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["lora", "dora", "bitfit", "difffit"])
def test_rates_of_adapters_in_pixels_under_pressure(name):
    assert list(rates(PIXELS + name).values()) == pytest.approx([1e-4])


def test_the_rest_of_pixels_under_pressure():
    for name in (name for name in PRESETS if name.startswith(PIXELS)):
        preset = PRESETS[name]
        options, sampling = preset.train_options(), preset.sample_options()
        assert (options.optimizer, options.weight_decay, options.schedule, options.size) == ("AdamW", 1e-2, "constant", 512)
        assert (sampling.steps, sampling.guidance, preset.caption, preset.bases) == (50, 7.5, "chest-xray-eight", ("sd1",))
    for name in ("lora", "dora"):
        config = PRESETS[PIXELS + name].make_method().config
        assert (config.rank, config.alpha) == (8, 16)


@pytest.mark.parametrize(("name", "dropout", "parts"), [
    ("frozen", 0.0, {"unet": 5e-5}), ("frozen-unconditional", 0.3, {"unet": 5e-5}),
    ("learnable", 0.0, {"unet": 5e-5, "text_encoder": 5e-5}), ("learnable-unconditional", 0.3, {"unet": 5e-5, "text_encoder": 5e-5}),
])
def test_chest_distillation(name, dropout, parts):
    preset = PRESETS[CHEST + name]
    assert rates(CHEST + name) == pytest.approx(parts)
    assert preset.train_options().caption_dropout == dropout and preset.bases == ("sd2",) and preset.prediction == "epsilon"


def test_changes_win():
    preset = PRESETS[PIXELS + "lora"]
    assert preset.make_method(rank=4).config.rank == 4 and preset.make_method(rank=4).config.alpha == 16
    assert preset.train_options(lr=3e-4, steps=7).lr == 3e-4 and preset.sample_options(steps=9).guidance == 7.5
    with pytest.raises(ConfigError, match=r"no option 'rnk' \(did you mean 'rank'"):
        preset.make_method(rnk=4)


@pytest.fixture(scope="module")
def bases():
    """Bases of each shape, without weights."""
    return {"sd1": empty_base("sd1"), "sd2": empty_base("sd2"), "embedded": empty_base("embedded"),
            "sd1-inpainting": base_of(LAYOUTS["sd1"].with_channels(9), "inpaint.safetensors")}


def test_a_base_that_the_study_trained(bases):
    assert use(PRESETS[PIXELS + "lora"], bases["sd1"]) == use(PRESETS[CHEST + "frozen"], bases["sd2"]) == []
    assert all(use(PLAIN, base) == [] for base in bases.values())


@pytest.mark.parametrize(("name", "kind", "wanted", "found"), [
    (PIXELS + "unet", "sd2", r"Stable Diffusion 1\.x", r"sd2 is Stable Diffusion 2\.x"),
    (CHEST + "learnable", "sd1", r"Stable Diffusion 2\.x", r"sd1 is Stable Diffusion 1\.x"),
    (PIXELS + "lora", "sd1-inpainting", r"Stable Diffusion 1\.x", r"inpaint\.safetensors is Stable Diffusion 1\.x for inpainting"),
])
def test_the_wrong_base(bases, name, kind, wanted, found):
    with pytest.raises(ConfigError, match=rf"preset '{name}' is for {wanted}, and {found}\. Choose .* or set any_base"):
        use(PRESETS[name], bases[kind])
    notice, = use(PRESETS[name], bases[kind], any_base=True)
    assert "no settings of the study's" in notice and KINDS[kind] in notice


def test_the_embedded_base_stands_in_and_says_so(bases):
    for _, preset in PRESETS.items():
        notice, = use(preset, bases["embedded"])
        assert preset.name in notice and "embedded base" in notice


def test_a_base_that_predicts_something_else(bases):
    layout = LAYOUTS["sd2"]
    other = base_of(type(layout)(**{**vars(layout), "scheduler": {**layout.scheduler, "prediction_type": "v_prediction"}}), "768-v")
    assert use(PRESETS[CHEST + "frozen"], other) == [
        f"preset {CHEST}frozen is for a base that predicts epsilon, and 768-v predicts v_prediction"]


def test_an_unknown_preset_lists_what_there_is():
    with pytest.raises(UnknownName, match=r"unknown preset .*did you mean 'pixels-under-pressure/lora'\?\); there are: chest-"):
        PRESETS["pixels-under-presure/lora"]
