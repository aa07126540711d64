"""The forms that a step can take: compiled, channels-last, with torch's fused attention, and with the batch that fits."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from medtune.errors import ConfigError, TrainingStopped
from medtune.training import batch_finder, machine, trainer
from medtune.training.base import load_base
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.options import TrainOptions
from safetensors import safe_open
from safetensors.torch import load_file

QUICK = TrainOptions(steps=4, batch=2, size=64, checkpoint_every=2)


@pytest.fixture
def go(phantoms, tmp_path):
    """Train quickly, with changes to the options or to the call."""

    def call(name="bitfit", *, runs="runs", on_step=None, **options):
        return train(load_base("embedded"), METHODS[name](), phantoms[:6], replace(QUICK, **options), on_step, runs=tmp_path / runs,
                     device="cpu")

    return call


@pytest.fixture
def unet():
    """A U-Net that is compiled in seconds."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8,
                                attention_head_dim=8, norm_num_groups=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))


@pytest.fixture(scope="module")
def _compiler():
    try:
        machine.check_compiler("cpu")
    except ConfigError as error:
        pytest.skip(f"NO COMPILER: {error}")


def gradients(unet):
    """The output, and the gradient of each weight."""
    drawn = torch.Generator().manual_seed(1)
    output = unet(torch.randn(2, 4, 8, 8, generator=drawn), torch.tensor([3, 700]),
                  encoder_hidden_states=torch.randn(2, 77, 8, generator=drawn)).sample
    unet.zero_grad()
    if output.requires_grad:
        output.square().mean().backward()
    return output.detach(), {name: weight.grad.clone() for name, weight in unet.named_parameters() if weight.grad is not None}


@pytest.mark.usefixtures("_compiler")
def test_a_compiled_step_computes_the_same_and_pictures_are_not_compiled(unet):
    from accelerate import Accelerator
    from torch._dynamo.utils import counters

    output, plain = gradients(unet)
    names = list(dict(unet.named_parameters()))
    machine.arrange(unet, TrainOptions(compile=True), torch.device("cpu"))
    assert list(dict(unet.named_parameters())) == names
    counters.clear()
    with torch.no_grad():
        assert torch.equal(gradients(unet)[0], output)
    assert not counters["stats"]["unique_graphs"]
    compiled_output, compiled = gradients(unet)
    assert counters["stats"]["unique_graphs"]
    torch.testing.assert_close(compiled_output, output, rtol=1e-4, atol=1e-5)
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-3, atol=1e-6)
    machine.release(unet, Accelerator(cpu=True))
    counters.clear()
    assert torch.equal(gradients(unet)[0], output) and not counters["stats"]["unique_graphs"]


def test_without_a_compiler_compile_is_a_setting_error(tmp_path):
    script = "from medtune.training.machine import check_compiler\ncheck_compiler('cpu')"
    environment = {**os.environ, "CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "ConfigError: TrainOptions.compile is on" in done.stderr, done.stderr[-2000:]
    assert "/no/such/compiler" in done.stderr and "switch compile off" in done.stderr


def test_compile_is_tried_before_anything_is_encoded(go, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: 1 / 0)  # as where torch itself cannot compile
    with pytest.raises(ConfigError, match="division by zero"):
        go(compile=True, on_step=lambda info: pytest.fail("too late"))


def test_channels_last_changes_the_layout_alone_and_resumes_to_the_same_bits(go):
    plain, unet = go("full"), load_base("embedded").unet

    def stop(info):
        if info.phase == "train" and info.step == 3:
            raise KeyboardInterrupt

    whole = go("full", channels_last="on", runs="whole")
    assert whole.losses == pytest.approx(plain.losses, rel=1e-4)
    with pytest.raises(KeyboardInterrupt):
        go("full", channels_last="on", runs="resumed", on_step=stop)
    resumed = load_file(go("full", channels_last="on", runs="resumed").adapter)
    assert all(torch.equal(value, resumed[key]) for key, value in load_file(whole.adapter).items())
    machine.arrange(unet, QUICK, torch.device("cpu"))  # auto: as it is, on the processor
    assert unet.conv_in.weight.is_contiguous()
    machine.arrange(unet, replace(QUICK, channels_last="on"), torch.device("cpu"))
    assert not any(weight.is_contiguous() for weight in unet.parameters() if weight.ndim == 4 and weight.shape[2] == 3)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_every_attention_is_torchs_fused_one(name, monkeypatch):
    from diffusers.models.attention_processor import Attention

    base, calls = load_base("embedded"), []
    METHODS[name]().attach(base, torch.Generator().manual_seed(0))
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention",
                        lambda *inputs, **named: calls.append(1) or fused(*inputs, **named))
    base.unet(torch.zeros(1, 4, 8, 8), 0, encoder_hidden_states=torch.zeros(1, 77, base.unet.config.cross_attention_dim))
    assert len(calls) == sum(isinstance(module, Attention) for module in base.unet.modules()) > 0


def test_batch_0_chooses_says_and_keeps_the_batch(go, monkeypatch):
    def stop(info):
        if info.phase == "train" and info.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(batch=0, on_step=stop)
    monkeypatch.setattr(batch_finder, "find_batch", lambda *_, **__: pytest.fail("the batch was chosen already"))
    result, plain = go(batch=0), go(batch=4, runs="plain")
    assert result.losses == plain.losses  # 4: the largest power of two in 6 images
    made, expected = load_file(result.adapter), load_file(plain.adapter)
    assert all(torch.equal(value, made[key]) for key, value in expected.items())
    with safe_open(result.adapter, framework="pt") as file:
        assert json.loads(file.metadata()["medtune.options"])["batch"] == 4


def test_batch_0_is_told_and_leaves_no_trace(go):
    result = go("lora", batch=0, steps=1)
    assert [notice for notice in result.notices if notice.startswith("batch 0: 4 was chosen (the data set shows 6 images")]
    assert result.losses == go("lora", batch=4, steps=1, runs="plain").losses
    assert json.loads((result.run / "run.json").read_text())["batch"] == 4


def test_an_injected_out_of_memory_stops_with_advice_and_keeps_the_state(go, monkeypatch):
    whole, steps, calls = trainer.denoising_loss, [], []

    def loss(*inputs, **named):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(*inputs, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "denoising_loss", loss)
        with pytest.raises(TrainingStopped, match=r"out of memory at batch 2 and 64 px.*2.00 GiB.*batch to 0.*gradient_checkpointing"):
            go()
    go(on_step=lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [4]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told")
def test_a_step_gets_the_memory_that_the_one_before_it_freed():
    script = """
import resource
import torch
from medtune.training import machine

with machine.kept_memory(torch.device("cpu")):
    for _ in range(6):
        before, held = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, [torch.ones(2**21) for _ in range(24)]
        del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8192, "of the 49,152 pages that the last step's tensors have"
