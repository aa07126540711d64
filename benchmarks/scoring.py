"""What a score costs: MedTune's metrics against those of the packages in use, on the same features, in turns; and the memory of a
large evaluation.

    python benchmarks/scoring.py [--rounds 3] [--images 5000] [--out benchmarks]

Each pair of a table is called in turns; a ratio is the median over the rounds of (theirs / ours) within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from medtune.evaluation.features import Features
from medtune.evaluation.metric import make_metric

HERE = Path(__file__).resolve().parent
ABOUT = """# What a score costs

Made by `make bench` (`benchmarks/scoring.py`). Features are drawn from correlated Gaussians; both sides get the same and take turns.
A ratio is the median over the rounds of (theirs / ours) within a round: ratios are what counts, for seconds change with the machine
and with its other work. Without intervals, on both sides.
"""
MEASURE = """
import json, sys, time
from pathlib import Path
from medtune.data.record import Record
from medtune.evaluation.extractor import EXTRACTORS
from medtune.evaluation.selection import select_metrics
from medtune.evaluation.statistics import gather
from medtune.evaluation.statistics_score import score_all
from medtune.data.source import read_records

folder, labelled = map(Path, sys.argv[1:])
extractor = EXTRACTORS["in-domain"].prepare(EXTRACTORS["in-domain"].Config(steps=20), read_records(labelled), folder / "classifier")
records = [Record(path, "", patient=path.stem) for path in sorted((folder / "images").iterdir())]
began = time.perf_counter()
real, fake = (gather(part, extractor) for part in (records[: len(records) // 2], records[len(records) // 2:]))
scores = score_all(real, fake, select_metrics("frechet, kid, vendi"))
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak, "images": len(records)}))
"""


def features(count: int, dims: int, seed: int) -> np.ndarray:
    """Correlated Gaussian features (N, D) float32, as those of a network."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, dims)) @ rng.normal(size=(dims, dims)) / np.sqrt(dims) + 0.5).astype(np.float32)


def pairs() -> dict[str, tuple[Callable[[], float], Callable[[], float]]]:
    """(ours, theirs) by title; clean-fid's and vendi-score's own functions."""
    return {**{f"Fréchet distance, d = 2048, N = {count:,}: clean-fid": _frechet(count) for count in (1000, 5000)},
            "KID, d = 2048, N = 1,000: clean-fid (100 random subsets)": _kid(1000),
            "Vendi score, n = 3,000, d = 1024: vendi-score's score_X": _vendi(3000)}


def _frechet(count: int) -> tuple[Callable[[], float], Callable[[], float]]:
    from cleanfid.fid import fid_from_feats

    real, fake = features(count, 2048, 1), features(count, 2048, 2)
    return _ours("frechet", real, fake), lambda: fid_from_feats(real, fake)


def _kid(count: int) -> tuple[Callable[[], float], Callable[[], float]]:
    from cleanfid.fid import kernel_distance

    real, fake = features(count, 2048, 1), features(count, 2048, 2)
    return _ours("kid", real, fake), lambda: kernel_distance(real, fake)


def _vendi(count: int) -> tuple[Callable[[], float], Callable[[], float]]:
    from vendi_score.vendi import score_X

    fake = features(count, 1024, 2)
    return _ours("vendi", fake, fake), lambda: score_X(fake / np.linalg.norm(fake, axis=1, keepdims=True))


def _ours(name: str, real: np.ndarray, fake: np.ndarray) -> Callable[[], float]:
    metric = make_metric(name, groups=0)
    return lambda: metric.score(Features(real), Features(fake)).value


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """(seconds, value)."""
    began = time.perf_counter()
    value = float(call())
    return time.perf_counter() - began, value


def measure(rounds: int) -> list[dict[str, float | str]]:
    """A row of each pair."""
    rows = []
    for title, calls in pairs().items():
        taken = []
        for turn in range(rounds):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            found = {index: timed(calls[index]) for index in order}
            taken.append((found[0], found[1]))
        rows.append({"row": title, "ours": statistics.median(ours[0] for ours, _ in taken),
                     "theirs": statistics.median(theirs[0] for _, theirs in taken),
                     "ratio": statistics.median(theirs[0] / ours[0] for ours, theirs in taken),
                     "value": taken[0][0][1], "their value": taken[0][1][1]})
        print(f"{title}: {rows[-1]['ratio']:.1f} times ({rows[-1]['ours']:.3f} s, {rows[-1]['theirs']:.3f} s)", flush=True)
    return rows


def memory(count: int) -> dict[str, float]:
    """The peak of a process that gathers statistics of two halves of so many images of 512 px and scores them."""
    from medtune.data.phantom import write_phantoms
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="medtune-bench-") as name:
        folder = Path(name)
        write_phantoms(folder / "phantoms", 40, seed=0)
        pictures = [np.asarray(Image.open(path)) for path in sorted((folder / "phantoms").rglob("*.png"))]
        (folder / "images").mkdir()
        for index in range(count):  # each another file: moved, and as many as asked for
            moved = np.roll(pictures[index % len(pictures)], index // len(pictures), axis=1)
            Image.fromarray(moved).save(folder / "images" / f"{index:05d}.png", compress_level=1)
        (folder / "packages").mkdir()
        (folder / "packages" / "medtune").symlink_to(HERE.parent, target_is_directory=True)
        words = [sys.executable, "-c", MEASURE, str(folder), str(folder / "phantoms")]
        done = subprocess.run(words, cwd=folder / "packages", check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)


def markdown(rows: list[dict], large: dict[str, float], machine: str) -> str:
    """The page."""
    lines = [ABOUT, f"{machine}; {time.strftime('%Y-%m-%d')}\n",
             "| metric, and whose it is compared with | ours, s | theirs, s | theirs / ours | our value | theirs |",
             "|---|---:|---:|---:|---:|---:|"]
    lines += [f"| {row['row']} | {row['ours']:.3f} | {row['theirs']:.3f} | {row['ratio']:.1f} | {row['value']:.6g} | "
              f"{row['their value']:.6g} |" for row in rows]
    lines += [f"\nStatistics of {large['images']:,} images of 512 px (in-domain network, no cache), and their scores: "
              f"{large['peak'] / 2**20:,.0f} MiB at the peak, all libraries included, {large['seconds']:.0f} s."]
    return "\n".join(lines) + "\n"


def main() -> None:
    import torch
    from table import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    said = machine(SimpleNamespace(threads=torch.get_num_threads(), precision="float64"))
    text = markdown(measure(arguments.rounds), memory(arguments.images), said)
    (arguments.out / "SCORING.md").write_text(text)
    print(arguments.out / "SCORING.md")


if __name__ == "__main__":
    main()
