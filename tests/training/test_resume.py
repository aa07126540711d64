"""However a run is interrupted, the same call goes on with it, to the same adapter bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from medtune.data.record import Record
from medtune.errors import ModelError, TrainingStopped
from medtune.training.base import load_base
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.methods.bitfit import BitFit
from medtune.training.options import TrainOptions
from safetensors.torch import load_file

# everything that has a state or draws: flips, dropped captions, accumulation, schedule, moving average, pictures
FULL = TrainOptions(steps=5, batch=2, accumulation=2, size=64, lr=1e-3, schedule="cosine", warmup=2, ema=0.9, flips=True,
                    caption_dropout=0.3, sample_every=4, sample_steps=1, checkpoint_every=2, cache="disk", seed=3)
PLAIN = replace(FULL, accumulation=1, flips=False, sample_every=2, cache="memory", steps=4)

# Each job runs in a process of its own and kills it: at a step, or while a file is put in its place.
KILLER = """
import json, os, signal, sys
from dataclasses import fields
from pathlib import Path
import torch
import peft
from diffusers import AutoencoderTiny, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from transformers import CLIPTextConfig, CLIPTextModel
from medtune.data.record import Record
from medtune.training.base import load_base
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.options import TrainOptions

job = json.load(sys.stdin)
torch.set_num_threads(job["threads"])

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def work(name, config, at, runs):
    rename, count = os.replace, [0]

    def replace(source, target):
        if Path(target).name == at.get("file"):
            count[0] += 1
            if count[0] == at["time"]:
                kill()
        rename(source, target)

    os.replace = replace
    records = [Record(Path(image), caption) for image, caption in job["records"]]
    method = METHODS[name](METHODS[name].Config(**config))
    train(load_base(job["base"]), method, records, TrainOptions(**job["options"]),
          lambda info: kill() if (info.phase, info.step) == ("train", at.get("step")) else None, runs=runs, device="cpu")

for name, config, at, runs in job["jobs"]:
    child = os.fork()  # nothing was computed yet in this process: its threads are not there to be lost
    if not child:
        work(name, config, at, runs)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""


def config_of(name):
    """The method's own settings, with dropout where it has some, so that a step draws from the global generator too."""
    return {"dropout": 0.3} if hasattr(METHODS[name].Config(), "dropout") else {}


CASES = {name: (name, config_of(name)) for name in METHODS} | {
    "full, every part": ("full", {"parts": "unet+text-encoder+vae"}), "bitfit, two parts": ("bitfit", {"text_encoder": True})}


def make(case):
    name, config = CASES[case]
    return METHODS[name](METHODS[name].Config(**config))


def run(method, records, options, runs, on_step=None):
    return train(load_base("embedded"), method, records, options, on_step, runs=runs, device="cpu")


def assert_same(first, second):
    assert first.products.keys() == second.products.keys()
    for kind, path in first.products.items():
        a, b = load_file(path), load_file(second.products[kind])
        assert a.keys() == b.keys() and a
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    lines = [(result.run / "losses.jsonl").read_text() for result in (first, second)]
    assert lines[0] == lines[1] and first.losses == second.losses
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == list(range(1, len(first.losses) + 1))


@pytest.fixture(scope="module")
def records(phantoms):
    return phantoms[:6]


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal; a test run in the background ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(scope="module")
def killed(records, base_file, tmp_path_factory):
    """The folder of runs, by what was killed how: every method at step 3, and one while its checkpoint was renamed."""
    folder = tmp_path_factory.mktemp("killed")
    jobs = [[name, config, {"step": 3}, str(folder / case)] for case, (name, config) in CASES.items()]
    jobs += [["bitfit", {}, {"file": "checkpoint.safetensors", "time": 2}, str(folder / "checkpoint")],
             ["bitfit", {}, {"file": "adapter.safetensors", "time": 1}, str(folder / "adapter")]]
    job = {"jobs": jobs, "options": asdict(FULL), "base": str(base_file), "threads": torch.get_num_threads(),
           "records": [[str(record.image), record.caption] for record in records]}
    done = subprocess.run([sys.executable, "-c", KILLER], input=json.dumps(job), capture_output=True, text=True, check=False,
                          env=dict(os.environ))
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(jobs), done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    """What an uninterrupted run of PLAIN gives."""
    return run(BitFit(), records, PLAIN, tmp_path_factory.mktemp("whole"))


def plain_records(records):
    """What the killed processes were given of each record."""
    return [Record(record.image, record.caption) for record in records]


@pytest.mark.parametrize("case", list(CASES))
def test_kill_9_at_a_step_and_resume_is_bit_identical(killed, records, tmp_path, case):
    steps = []
    resumed = run(make(case), plain_records(records), FULL, killed / case,
                  lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [3, 4, 5]  # from the checkpoint of step 2
    assert_same(resumed, run(make(case), plain_records(records), FULL, tmp_path))


@pytest.mark.parametrize(("what", "first"), [("checkpoint", 3), ("adapter", 5)])
def test_kill_9_while_a_file_is_put_in_its_place(killed, records, tmp_path, what, first):
    """The checkpoint of step 4, whose predecessor is that of step 2; and the adapter, whose run stands at step 4."""
    steps = []
    resumed = run(BitFit(), plain_records(records), FULL, killed / what,
                  lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == list(range(first, 6))
    assert_same(resumed, run(BitFit(), plain_records(records), FULL, tmp_path))


def test_an_interruption_after_any_event_leaves_a_run_that_goes_on(records, tmp_path, whole):
    """Every step, picture and save interrupts once; no update is done twice."""
    seen, updates, result = set(), [], None

    def interrupt(info):
        event = (info.phase, info.step, info.sample) if info.phase != "cache" else ("cache",)
        if info.phase == "train":
            updates.append(info.step)
        if event not in seen:
            seen.add(event)
            raise KeyboardInterrupt

    while result is None:
        assert len(updates) <= 4 and len(seen) < 40
        with contextlib.suppress(KeyboardInterrupt):
            result = run(BitFit(), records, PLAIN, tmp_path, interrupt)
    assert updates == [1, 2, 3, 4]
    assert {phase for phase, *_ in seen} == {"cache", "train", "sample", "save"}
    assert len(list((result.run / "samples").iterdir())) == 2 * min(4, len({record.caption for record in records}))
    assert_same(result, whole)


class Interruption(BaseException):
    """Like ComfyUI's, which is no Exception."""


@pytest.mark.parametrize("kind", [Interruption, RuntimeError])
def test_any_exception_goes_outward_and_the_run_goes_on(records, tmp_path, kind, whole):
    def interrupt(info):
        if (info.phase, info.step) == ("train", 3):
            raise kind("enough")

    with pytest.raises(kind, match="enough"):
        run(BitFit(), records, PLAIN, tmp_path, interrupt)
    steps = []
    resumed = run(BitFit(), records, PLAIN, tmp_path, lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [4]
    assert_same(resumed, whole)


def test_ctrl_c_during_an_update_waits_for_its_end(records, tmp_path, monkeypatch, whole, ctrl_c):
    step, count = torch.optim.AdamW.step, [0]

    def pressed(self, closure=None):
        count[0] += 1
        if count[0] == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, closure)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", pressed)
        with pytest.raises(KeyboardInterrupt):
            run(BitFit(), records, PLAIN, tmp_path)
    steps = []
    resumed = run(BitFit(), records, PLAIN, tmp_path, lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [4] and count[0] == 3
    assert_same(resumed, whole)


def test_a_failure_within_an_update_falls_back_to_the_checkpoint(records, tmp_path, monkeypatch, whole):
    """Half of the weights are new: that state must not be kept."""
    step, count = torch.optim.AdamW.step, [0]

    def torn(self, closure=None):
        count[0] += 1
        if count[0] < 4:
            return step(self, closure)
        self.param_groups[0]["params"][0].data.add_(1)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", torn)
        with pytest.raises(TrainingStopped, match="out of memory"):
            run(BitFit(), records, PLAIN, tmp_path)
    steps = []
    resumed = run(BitFit(), records, PLAIN, tmp_path, lambda info: steps.append(info.step) if info.phase == "train" else None)
    assert steps == [3, 4]
    assert_same(resumed, whole)


def test_a_checkpoint_that_cannot_be_used_is_said_and_one_of_another_device_too(records, tmp_path):
    def interrupt(info):
        if info.phase == "train":
            raise Interruption

    with pytest.raises(Interruption):
        run(BitFit(), records, PLAIN, tmp_path, interrupt)
    (path,) = tmp_path.glob("*/checkpoint.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors cannot be used.*Delete it to start this run anew"):
        run(BitFit(), records, PLAIN, tmp_path)
    path.write_bytes(content.replace(b'\\"device\\": \\"cpu\\"', b'\\"device\\": \\"gpu\\"'))
    assert any("begun on gpu and resumed on cpu at step 1" in notice for notice in run(BitFit(), records, PLAIN, tmp_path).notices)
