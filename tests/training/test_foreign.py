"""Adapter files of other tools: what the reader makes of them is what their makers' own networks do."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from medtune.errors import Missing, ModelError
from medtune.training.adapter import Adapter, apply_adapter, read_adapter
from medtune.training.base import load_base
from safetensors.torch import load_file, save_file

pytest.importorskip("lycoris")
_SPEC = importlib.util.spec_from_file_location("foreign", Path(__file__).with_name("foreign.py"))
foreign = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(foreign)


@pytest.fixture(scope="module")
def made(random_file, tmp_path_factory):
    return foreign.make(random_file, tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="module")
def untuned(random_file):
    return foreign.run(load_base(random_file))


def difference(one, other):
    return ((one - other).norm() / other.norm()).item()


def test_the_reader_makes_of_a_file_what_its_maker_does(made, random_file, untuned):
    for name, entry in made.items():
        base, adapter = load_base(random_file), read_adapter(entry.path)
        notices = apply_adapter(base, adapter)
        output = foreign.run(base)
        assert difference(output, untuned) > 1e-3, f"{name} has no effect"
        assert len(notices) == (entry.output is None or not entry.comfyui), name
        assert entry.output is None or difference(output, entry.output) < 2e-5, name


def test_a_file_of_peft_without_its_settings(made, tmp_path):
    save_file(load_file(made["peft-lora"].path / "adapter_model.safetensors"), tmp_path / "adapter_model.safetensors")
    with pytest.raises(Missing, match=r"adapter_config\.json is not there.*alpha"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[")
    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(("settings", "message"), [({"peft_type": "OFT"}, "is a OFT of peft"),
                                                   ({"use_dora": True}, "is a DoRA of peft")])
def test_kinds_of_peft_that_native_keys_cannot_say(made, tmp_path, settings, message):
    folder = made["peft-lora"].path
    save_file(load_file(folder / "adapter_model.safetensors"), tmp_path / "adapter_model.safetensors")
    kept = json.loads((folder / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**kept, **settings}))
    with pytest.raises(ModelError, match=f"{message}.*merge_and_unload"):
        read_adapter(tmp_path)


def test_a_folder_without_an_adapter(tmp_path):
    with pytest.raises(Missing, match=r"has no adapter_model\.safetensors"):
        read_adapter(tmp_path)


LAYER = "down_blocks.2.resnets.0.conv1"
STEM = f"lora_unet_{LAYER.replace('.', '_')}"


def low_rank(out, inputs):
    return {f"{STEM}.lora_up.weight": torch.ones(out, 3, 1, 1), f"{STEM}.lora_down.weight": torch.ones(3, inputs, 3, 3)}


@pytest.mark.parametrize(("others", "message"), [
    (lambda out, inputs: low_rank(out, inputs) | {f"{STEM}.hada_w1_a": torch.ones(out, 2)}, "a mix of LoRA and LoHa"),
    (lambda out, inputs: low_rank(out, inputs) | {f"{STEM}.diff": torch.ones(out, inputs, 3, 3)}, "a mix of LoRA and a full"),
    (lambda out, inputs: low_rank(out, inputs) | {f"{STEM}.dora_scale": torch.ones(out)}, r"a dora_scale of \(\d+,\) for a weight"),
    (lambda out, inputs: low_rank(out, inputs) | {f"{STEM}.lora_mid.weight": torch.ones(3, 3, 1, 1)}, r"times \(3, 3, 1, 1\) times"),
    (lambda out, inputs: low_rank(out, inputs) | {f"{STEM}.a1.weight": torch.ones(1)}, r"no weight for: .*a1\.weight"),
    (lambda out, inputs: low_rank(inputs + 8, inputs), r"times \(3, \d+, 3, 3\) for a weight"),
    (lambda out, inputs: {f"{STEM}.diff": torch.full((out, inputs, 3, 3), torch.nan)}, "NaN or infinite values in diff"),
    (lambda out, inputs: {f"{STEM}.hada_w1_a": torch.ones(out, 2)}, "no hada_w1_b, hada_w2_a, hada_w2_b"),
    (lambda out, inputs: {f"{STEM}.lokr_w1": torch.ones(4, 4)}, "no lokr_w2"),
    (lambda out, inputs: {f"{STEM}.lokr_w1": torch.ones(4, 4), f"{STEM}.lokr_w2": torch.ones(5, 5)}, r"lokr_w2 \(5, 5\) for a weight"),
    (lambda out, inputs: {f"{STEM}.oft_blocks": torch.ones(3, 4, 4)}, r"oft_blocks \(3, 4, 4\) for a weight"),
    (lambda out, inputs: {f"{STEM}.oft_blocks": torch.zeros(2, out // 8, 8, 8)}, "a BOFT without alpha"),
    (lambda out, inputs: {f"{STEM}.b_norm": torch.zeros(out)}, "a b_norm without a w_norm"),
    (lambda out, inputs: {f"{STEM}.alpha": torch.tensor(1.0)}, "only alpha"),
])
def test_files_that_do_not_fit_change_nothing(random_file, others, message):
    base = load_base(random_file)
    weight = base.unet.get_submodule(LAYER).weight
    before = weight.clone()
    with pytest.raises(ModelError, match=message):
        apply_adapter(base, Adapter(others(*weight.shape[:2]), {}))
    assert torch.equal(weight, before)


def test_a_strength_acts_twice_on_rotations_and_is_said(random_file):
    base, whole = load_base(random_file), load_base(random_file)
    weight = base.unet.get_submodule(LAYER).weight
    blocks = torch.randn(len(weight) // 8, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    before = weight.clone()
    notices = apply_adapter(base, Adapter({f"{STEM}.oft_blocks": blocks}, {}), strength=0.5)
    assert len(notices) == 1 and "0.5 counts as 0.25" in notices[0]
    apply_adapter(whole, Adapter({f"{STEM}.oft_blocks": blocks}, {}))
    full = whole.unet.get_submodule(LAYER).weight - before
    torch.testing.assert_close(weight - before, full * 0.25)
