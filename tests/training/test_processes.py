"""Two processes give what one gives: the same gradients on the same global batch, and files written once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from medtune.errors import ConfigError
from medtune.training import processes
from medtune.training.loop import check_options
from medtune.training.objective import ObjectiveOptions
from medtune.training.options import TrainOptions
from safetensors.torch import load_file

# without momentum and clipping the first update is the gradient itself
PLAIN = TrainOptions(steps=1, batch=3, accumulation=2, size=64, optimizer="SGD", weight_decay=0.0, lr=10.0, clip=0.0, flips=True,
                     caption_dropout=0.3, checkpoint_every=0, seed=5)
LONG = TrainOptions(steps=3, batch=2, size=64, lr=1e-3, schedule="cosine", warmup=1, ema=0.9, checkpoint_every=2, sample_every=2,
                    sample_steps=1, seed=5, cache="disk")
FOUND = replace(PLAIN, batch=0, accumulation=1)
"""As large a batch as fits: of six images four, for one process as for two with two each."""
PRIOR = ObjectiveOptions(weighting="min-snr", prior_weight=0.5, class_prompt="a chest X-ray", class_images=2, class_steps=1)

WORK = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from medtune.data.record import Record
from medtune.training.base import load_base
from medtune.training.loop import train
from medtune.training.method import METHODS
from medtune.training.objective import ObjectiveOptions
from medtune.training.options import TrainOptions

job = json.loads(sys.argv[1])
records = [Record(Path(image), caption) for image, caption in job["records"]]
for name, config, options, objective, runs, spoil in job["runs"]:
    steps = []

    def on_step(info):
        steps.append([info.phase, info.step])

    if spoil:  # one process's weights are not finite, as after an update gone wrong
        from medtune.training import trainer
        whole = trainer.denoising_loss
        index = int(os.environ.get("RANK", 0))
        trainer.denoising_loss = lambda *args, **kw: whole(*args, **kw) * (float("nan") if index == spoil else 1.0)
    objective["mask_shapes"] = tuple(objective["mask_shapes"])
    try:
        result = train(load_base(job["base"]), METHODS[name](METHODS[name].Config(**config)), records, TrainOptions(**options),
                       on_step, objective=ObjectiveOptions(**objective), runs=runs, device="cpu")
        said = {"adapter": str(result.adapter), "losses": result.losses, "reused": result.reused}
    except Exception as error:
        said = {"error": str(error)}
    print(json.dumps({**said, "steps": steps}), flush=True)
"""


@pytest.fixture(scope="module")
def job(phantoms, base_file):
    return {"records": [[str(record.image), record.caption] for record in phantoms[:6]], "base": str(base_file)}


def start(job, count, runs):
    """What each of ``count`` processes says of each run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = [{"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port)} if count > 1 else {} for index in range(count)]
    started = [subprocess.Popen([sys.executable, "-c", WORK, json.dumps({**job, "runs": runs})], env={**os.environ, **extra},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for extra in launched]
    said = []
    for process in started:
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err[-3000:]
        said.append([json.loads(line) for line in out.splitlines() if line.startswith("{")])
    return said


@pytest.fixture(scope="module")
def outcomes(job, tmp_path_factory):
    """One process's and two processes' results of the same runs."""
    folder = tmp_path_factory.mktemp("processes")
    none = asdict(ObjectiveOptions())
    runs = [["full", {}, asdict(PLAIN), asdict(PRIOR)], ["full", {"parts": "unet+text-encoder+vae"}, asdict(PLAIN), none],
            ["bitfit", {}, asdict(LONG), none], ["bitfit", {}, asdict(LONG), none], ["full", {}, asdict(FOUND), none]]
    alone = start(job, 1, [[*run, str(folder / "one"), 0] for run in runs])[0]
    return alone, start(job, 2, [[*run, str(folder / "two"), 0] for run in runs])


@pytest.mark.parametrize("run", [0, 1, 2, 4])
def test_gradients_and_losses_are_those_of_one_process(outcomes, run):
    alone, both = outcomes[0][run], [said[run] for said in outcomes[1]]
    assert both[0]["losses"] == both[1]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    one, two = load_file(alone["adapter"]), load_file(both[0]["adapter"])
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert (two[key] - value).norm() <= 1e-4 * value.norm() + 1e-5, key
    assert sum(value.square().sum() for value in one.values()) > 1e-4


def test_the_batch_that_is_found_is_the_whole_one(outcomes):
    for said in (outcomes[0], *outcomes[1]):
        assert json.loads((Path(said[4]["adapter"]).parent / "run.json").read_text())["batch"] == 4


def test_one_process_writes_and_tells(outcomes):
    first, second = (said[2] for said in outcomes[1])
    assert ["train", 3] in first["steps"] and ["sample", 2] in first["steps"] and second["steps"] == []
    assert first["adapter"] == second["adapter"]
    folder = Path(first["adapter"]).parent
    assert len((folder / "losses.jsonl").read_text().splitlines()) == 3 and not (folder / "checkpoint.safetensors").exists()


def test_all_find_the_finished_run(outcomes):
    assert [said[3]["reused"] for said in outcomes[1]] == [True, True] and outcomes[0][3]["reused"]


def test_all_stop_for_what_one_sees_and_name_its_images(job, tmp_path):
    said = start(job, 2, [["bitfit", {}, asdict(PLAIN), asdict(ObjectiveOptions()), str(tmp_path), 1]])
    errors = [process[0]["error"] for process in said]
    assert errors[0] == errors[1] and "the loss is not finite at step 1, for: " in errors[0]
    named = [image for image, _ in job["records"] if image in errors[0]]
    assert 1 <= len(named) < 6


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("images", [4, 5, 7])
def test_shares_are_even_and_without_rest(count, images):
    parts = [processes.share(10, 10 + images, SimpleNamespace(process_index=index, num_processes=count)) for index in range(count)]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(10, 10 + images))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


def test_gradients_are_summed_in_bounded_parts_of_one_type(monkeypatch):
    monkeypatch.setattr(processes, "BUCKET", 10)
    reduced = []

    def reduce(values, how):
        assert how == "sum"
        reduced.append((len(values), values.dtype))
        return values * 2

    weights = [torch.zeros(size, dtype=dtype) for size, dtype in ((4, torch.float32), (6, torch.float32), (3, torch.float32),
                                                                 (20, torch.float32), (2, torch.float64))]
    frozen = torch.zeros(3)
    for number, weight in enumerate(weights):
        weight.grad = torch.full_like(weight, number + 1)
    processes.sum_gradients([*weights, frozen], SimpleNamespace(num_processes=2, reduce=reduce))
    assert reduced == [(10, torch.float32), (3, torch.float32), (20, torch.float32), (2, torch.float64)]
    assert [weight.grad.unique().tolist() for weight in weights] == [[2], [4], [6], [8], [10]] and frozen.grad is None


def test_a_batch_smaller_than_the_processes_is_refused(monkeypatch, phantoms):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"batch is 2, and 3 processes share it; set it to at least 3"):
        check_options(TrainOptions(batch=2), phantoms)
    check_options(TrainOptions(batch=3), phantoms)
