"""A run's folder: the same request finds it again, one process at a time writes it, its log never tells a step twice."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from medtune import config
from medtune.errors import MedTuneError, ModelError, TrainingStopped
from medtune.training.log import LossLog, read_losses
from medtune.training.methods.lora import LoRAConfig
from medtune.training.objective import ObjectiveOptions
from medtune.training.options import INCIDENTAL, TrainOptions
from medtune.training.progress import Speed, smooth
from medtune.training.run import Run, identity
from safetensors.torch import save_file

OTHER = {"optimizer": "SGD", "schedule": "cosine", "precision": "bf16", "fit": "pad", "posterior": "sample", "long_captions": "refuse",
         "sample_prompts": "a", "cache": "disk", "channels_last": "off",
         "weighting": "min-snr", "class_prompt": "a", "inpainting": "random", "mask_shapes": ("box",)}


def request(options=None, method_config=None, objective=None, base="b" * 64, data="d" * 64):
    return identity(SimpleNamespace(name="lora", config=method_config or LoRAConfig()), options or TrainOptions(),
                    objective or ObjectiveOptions(), SimpleNamespace(hash=base), data)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, request())


def other_value(name, options=None):
    value = getattr(options or TrainOptions(), name)
    return OTHER[name] if name in OTHER else not value if isinstance(value, bool) else value + (1 if isinstance(value, int) else 0.01)


@pytest.mark.parametrize("name", [name for name, *_ in config.fields(TrainOptions)])
def test_an_option_changes_the_run_unless_it_changes_nothing_in_it(tmp_path, name):
    changed = replace(TrainOptions(), **{name: other_value(name)})
    same = Run(tmp_path, request(changed)).folder == Run(tmp_path, request()).folder
    assert same == (name in INCIDENTAL)


@pytest.mark.parametrize("name", [name for name, *_ in config.fields(ObjectiveOptions)])
def test_every_field_of_the_objective_changes_the_run(tmp_path, name):
    changed = replace(ObjectiveOptions(), **{name: other_value(name, ObjectiveOptions())})
    assert Run(tmp_path, request(objective=changed)).folder != Run(tmp_path, request()).folder


def test_method_base_and_data_are_part_of_a_run(tmp_path):
    folders = {Run(tmp_path, made).folder for made in (request(), request(method_config=LoRAConfig(rank=4)), request(base="c" * 64),
                                                       request(data="e" * 64))}
    assert len(folders) == 4 and all(folder.name.startswith("lora-") for folder in folders)


HOLD = """
import sys, time
from pathlib import Path
from medtune.training.run import Run
run = Run(Path(sys.argv[1]), {"method": "lora"})
with run.locked():
    run.begin()
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_told_who_has_the_run_and_gets_it_when_that_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert holder.stdout.readline().strip() == "held"
        run = Run(tmp_path, {"method": "lora"})
        with pytest.raises(MedTuneError, match=rf"another training \(process {holder.pid} .*Wait for its end"), run.locked():
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with run.locked():
        pass


def test_a_lock_is_free_again_after_the_block(run):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), run.locked():
            raise ZeroDivisionError


def test_a_run_is_finished_when_its_adapter_is_there_and_said_to_be(run):
    assert not run.finished()
    run.folder.mkdir(parents=True)
    save_file({"a": torch.zeros(2)}, run.adapter)
    assert not run.finished()
    run.begin()
    assert not run.finished()
    run.write(finished=True)
    assert run.finished() and run.read()["method"] == "lora"


def test_a_damaged_adapter_is_not_taken_for_a_result(run):
    run.folder.mkdir(parents=True)
    run.write(finished=True)
    save_file({"a": torch.zeros(2)}, run.adapter)
    run.adapter.write_bytes(run.adapter.read_bytes()[:-2])
    with pytest.raises(ModelError, match=r"adapter\.safetensors is damaged.*delete it"):
        run.finished()


def test_starting_anew_forgets_everything(run):
    for file in (run.info, run.adapter, run.checkpoint, run.losses, run.samples / "a.png", run.board / "events"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    run.clear()
    assert not [file for file in run.folder.rglob("*") if file.is_file()]


def test_a_log_goes_on_after_the_checkpoint_and_drops_what_is_done_again(tmp_path):
    path = tmp_path / "losses.jsonl"
    log = LossLog(path, 0)
    for step in range(1, 6):
        log.append(step, step / 10, 1e-4, 1.0)
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 6, "lo')  # torn by a kill
    assert read_losses(path) == [0.1, 0.2, 0.3, 0.4, 0.5]
    log = LossLog(path, 3)
    assert log.losses == [0.1, 0.2, 0.3]
    log.append(4, 0.9, 1e-4, float("inf"))
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1] == {"step": 4, "loss": 0.9, "lr": 1e-4, "grad_norm": None}


def test_a_line_is_on_the_disk_at_once(tmp_path):
    log = LossLog(tmp_path / "losses.jsonl", 0)
    log.append(1, 0.5, 1e-4, 1.0)
    assert read_losses(tmp_path / "losses.jsonl") == [0.5]
    log.close()


def test_a_log_without_room_stops_with_the_remedy(tmp_path):
    log = LossLog(tmp_path / "losses.jsonl", 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(TrainingStopped, match=r"cannot write step 2.*Free some space"):
            for step in (1, 2):
                log.append(step, 0.5, 1e-4, 1.0)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert LossLog(tmp_path / "losses.jsonl", 5).losses == [0.5]


def test_smoothing_starts_at_the_first_loss_and_follows_the_last_ones():
    assert smooth([3.0]) == pytest.approx(3)
    assert smooth([1.0] * 500) == pytest.approx(1)
    assert smooth([1.0] * 100 + [0.0] * 100) < 0.01


def test_speed_counts_recent_steps_only():
    speed = Speed()
    assert speed.rate() == 0
    speed.add(100.0)
    for _ in range(20):
        speed.add(0.5)
    assert speed.rate() == pytest.approx(2)
