"""Fine-tune the embedded base on phantom radiographs by several methods, and report which was worth it.

Everything is real and small: phantoms -> training -> sampling with the same prompts and seeds -> features -> scores -> one HTML page.
Run it again and it finds what is there; interrupt it and it goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import add_flags, option, read_flags
from ..errors import ConfigError
from .output import counter, say, show
from .train import progress

EXAMPLE = "medtune demo --out medtune-demo"

# Learning rates and options that suit a U-Net of 7 million parameters; a small one needs the convolutions too.
SETTINGS: dict[str, tuple[dict[str, Any], float]] = {
    "full": ({}, 1e-3),
    "lora": ({"rank": 16, "alpha": 16.0, "targets": "all"}, 4e-3),
    "bitfit": ({}, 1e-2),
}
# With so few steps the layout of a chest is learnt only where the noisiest timesteps, which decide it, weigh more.
OBJECTIVE = {"weighting": "debiased", "noise_offset": 0.1}


@dataclass(frozen=True)
class DemoOptions:
    """How much the demonstration does."""

    methods: tuple[str, ...] = option(("full", "lora"), "Methods to compare.", choices=tuple(SETTINGS))
    images: int = option(300, "Phantoms in all: the extractor learns from all that are not held out.", low=24, high=100_000)
    held_out: float = option(0.2, "Share of the patients that is only compared with.", low=0.1, high=0.9)
    trained_on: int = option(60, "How many of the phantoms the methods are trained on.", low=4, high=100_000)
    steps: int = option(150, "Training steps of each method.", low=1, high=100_000)
    drawn: int = option(16, "Images drawn from each arm.", low=2, high=100_000)
    sampling_steps: int = option(16, "Sampling steps of each image.", low=1, high=1000)
    guidance: float = option(2.0, "Guidance scale.", low=1, high=50)
    seed: int = option(0, "Seed of the phantoms, the training and the images.", low=0, high=2**31)


def add_arguments(parser) -> None:
    """Where, and how much."""
    parser.add_argument("--out", type=Path, default=Path("medtune-demo"), help="folder of the result [medtune-demo]")
    add_flags(parser, DemoOptions)


def run(arguments) -> None:
    """Print the path of the report."""
    began = time.monotonic()
    page, arms = demo(arguments.out, read_flags(DemoOptions, arguments))
    distances = {arm.name: arm.scores.find("frechet").value for arm in arms}
    say(f"Fréchet distance to held-out phantoms: {', '.join(f'{name} {value:.4g}' for name, value in distances.items())}")
    say(f"{time.monotonic() - began:.0f} s")
    show(arguments, {"report": str(page.resolve()), "frechet": distances}, str(page.resolve()))


def demo(out: Path, options: DemoOptions) -> tuple[Path, list]:
    """Run everything into ``out``; returns the report's page and its arms, the untuned base first."""
    from ..data.source import read_records
    from ..data.split import select
    from ..evaluation.extractor import EXTRACTORS
    from ..evaluation.report.report import Arm, write_report

    records = read_records(phantoms(out, options))
    fit, real = select(records, "train"), select(records, "test")
    seen = fit[:options.trained_on]
    folders = {"untuned": draw("untuned", out, seen, options)}
    for name in options.methods:
        folders[name] = draw(name, out, seen, options, adapter=tune(name, out, seen, options))
    entry = EXTRACTORS["in-domain"]
    features = entry.prepare(entry.Config(), fit, on_progress=counter("training the extractor"))
    arms = [Arm.of(name, folder, scores(real, folder, features)) for name, folder in folders.items()]
    return write_report(out / "report", arms, real), arms


def phantoms(out: Path, options: DemoOptions) -> Path:
    """Phantoms to train on and, of other patients, to compare with."""
    from ..data.phantom import write_phantoms

    folder = out / "phantoms"
    say(f"drawing {options.images} phantom radiographs")
    write_phantoms(folder, options.images, seed=options.seed, held_out=options.held_out)
    return folder


def tune(name: str, out: Path, records: list, options: DemoOptions) -> Path:
    """The adapter that a method makes of the embedded base."""
    from ..training.base import load_base
    from ..training.loop import train
    from ..training.method import METHODS
    from ..training.objective import ObjectiveOptions
    from ..training.options import TrainOptions

    if name not in SETTINGS:
        raise ConfigError(f"the demonstration has no settings for method {name!r}; it has: {', '.join(SETTINGS)}")
    say(f"training {name}")
    values, lr = SETTINGS[name]
    method = METHODS[name](METHODS[name].Config(**values))
    training = TrainOptions(steps=options.steps, lr=lr, schedule="cosine", warmup=min(10, options.steps - 1), batch=4, cache="disk",
                            seed=options.seed)
    return train(load_base("embedded"), method, records, training, progress, objective=ObjectiveOptions(**OBJECTIVE),
                 runs=out / "runs").adapter


def draw(name: str, out: Path, records: list, options: DemoOptions, adapter: Path | None = None) -> Path:
    """An arm's image set: the same prompts and seeds for every arm."""
    from ..training.adapter import apply_adapter, read_adapter
    from ..training.base import load_base
    from ..training.sample import SampleOptions, sample
    from ..training.table import prompts_from_records

    base, made_by = load_base("embedded"), None
    if adapter:
        tuned = read_adapter(adapter)
        apply_adapter(base, tuned)
        made_by = tuned.info()
    sampling = SampleOptions(steps=options.sampling_steps, guidance=options.guidance, seed=options.seed)
    prompts = prompts_from_records(records, options.drawn, options.seed)
    folder = out / "images" / name
    sample(base, prompts, folder, sampling, adapter=made_by, on_image=counter(f"drawing {name}"))
    return folder


def scores(real: list, folder: Path, features):
    """Every metric for one arm."""
    from ..data.source import read_records
    from ..evaluation.run import evaluate

    return evaluate(real, read_records(folder), features, cache=folder.parent.parent / "features")
