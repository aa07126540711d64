"""Step time of ``train`` against a bare forward-backward-AdamW loop on cached tensors, measured in one run.

    python benchmarks/step.py [--base embedded] [--methods full lora] [--batch 4] [--size 512] [--blocks 6]

Blocks of steps of the two take turns, so that whatever else the machine does falls on both; the figures are medians over all
steps, of the time on the clock and of the processor's time, which other programs do not lengthen.
The bare loop has its inputs ready on the device: no drawing of noise, no clipping, no log, no progress.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from medtune.data.image import save_image
from medtune.data.record import Record
from medtune.training.base import load_base
from medtune.training.loop import StepInfo, train
from medtune.training.method import METHODS
from medtune.training.options import TrainOptions

BLOCK = 5
WARM_UP = 2  # steps of each that are not counted


def write_images(folder: Path, count: int, size: int) -> list[Record]:
    """Images of noise with captions: what they show changes no timing."""
    records = []
    for index in range(count):
        image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(index))
        save_image(image, folder / f"{index}.png")
        records.append(Record(folder / f"{index}.png", f"noise {index}"))
    return records


def clocks() -> tuple[float, float]:
    """Seconds on the clock, and of the processor in this process."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    """What has passed since then."""
    return tuple(now - then for now, then in zip(clocks(), began, strict=True))


def bare_steps(base, method, batch: int, size: int, device: torch.device) -> Iterator[tuple[float, float]]:
    """Seconds of one step after the other."""
    base.device = device
    base.unet.to(device), base.text_encoder.to(device)
    method.attach(base, torch.Generator().manual_seed(0))
    parameters = list(method.named(base).values())
    optimizer = torch.optim.AdamW(parameters, lr=method.facts.lr, weight_decay=1e-2)
    unet = base.unet.train()
    with torch.no_grad():
        states = base.encode_prompts([f"noise {index}" for index in range(batch)])
    latents, noise = torch.randn(2, batch, 4, size // 8, size // 8, device=device)
    timesteps = torch.randint(1000, (batch,), device=device)
    inputs = (latents + noise) / 2**0.5
    while True:
        began = clocks()
        loss = (unet(inputs, timesteps, encoder_hidden_states=states).sample - noise).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        yield since(began)


class Turns:
    """``on_step`` that times train's steps, and runs a block of the bare loop after each block of them."""

    def __init__(self, bare: Iterator[tuple[float, float]]):
        self.bare, self.ours, self.bares, self.began = bare, [], [], None

    def __call__(self, info: StepInfo) -> None:
        if info.phase != "train":
            return
        if self.began is not None:
            self.ours.append(since(self.began))
        if info.step % BLOCK == 0:
            self.bares += [next(self.bare) for _ in range(BLOCK)]
        self.began = clocks()


def median(steps: list[tuple[float, float]]) -> tuple[float, float]:
    """Of both clocks, after the warm-up."""
    return tuple(statistics.median(column) for column in zip(*steps[WARM_UP:], strict=True))


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds of a step on both clocks: the bare loop's, and train's."""
    records = write_images(folder, max(8, arguments.batch), arguments.size)
    options = TrainOptions(steps=BLOCK * arguments.blocks, batch=arguments.batch, size=arguments.size, checkpoint_every=0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    turns = Turns(bare_steps(load_base(arguments.base), METHODS[name](), arguments.batch, arguments.size, device))
    train(load_base(arguments.base), METHODS[name](), records, options, turns, runs=folder / "runs")
    return median(turns.bares), median(turns.ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--methods", nargs="+", default=["full", "lora"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=6)
    arguments = parser.parse_args()
    print(f"batch {arguments.batch}, {arguments.size} px, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'method':12} {'':8} {'bare s/step':>12} {'train s/step':>13} {'bare/train':>11}")
    for name in arguments.methods:
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(name, arguments, Path(folder))
        for clock, bare, ours in zip(("clock", "cpu time"), *measured, strict=True):
            print(f"{name:12} {clock:8} {bare:12.3f} {ours:13.3f} {bare / ours:11.1%}", flush=True)


if __name__ == "__main__":
    main()
