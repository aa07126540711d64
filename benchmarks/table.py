"""What was measured -> results.json and RESULTS.md."""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from bench import Group, Row

ABOUT = """# What a training step costs

Made by `make bench` (`benchmarks/bench.py`). Each row is a training loop in a process of its own; the loops of a table were loaded
together and took turns, a few steps each, so that what else the machine did fell on all of them. Times are medians over the steps. A
ratio is the median, over the rounds, of the first loop's time in a round over the row's: **ratios are what counts**, for seconds
change with the machine and with its other work. Peak memory is the process's (with all that it imports; worker processes apart), from
the first measured step on; on a GPU it is what torch allocated.

All loops train the same base on the same phantom radiographs with AdamW. *Bare loop* is the limit: forward, backward, fused AdamW on
inputs that lie ready; it draws no noise, clips and logs nothing. *MedTune* is its own trainer, started by `train`. The loops of Pixels
Under Pressure and of diffusers' example were written for this benchmark after their descriptions (`loops.py`); they run the
autoencoder and the text encoder in every step. *Train LoRA* is ComfyUI's own node, run headless in its own environment on the same
latents, text states and base; it trains every layer, norms and biases too.
"""


def write_results(folder: Path, measured: Mapping[str, Group], order: Sequence[str], arguments: argparse.Namespace) -> None:
    """Put the measured groups in the place of former ones of their names, and write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name, group in measured.items():
        results[name] = {"title": group.title, "machine": machine(arguments), "date": time.strftime("%Y-%m-%d"),
                         "base": Path(arguments.base).stem, "rounds": arguments.rounds, "steps a round": arguments.block,
                         "rows": figures(group.rows)}
    results = {name: results[name] for name in sorted(results, key=lambda name: order.index(name) if name in order else len(order))}
    path.write_text(json.dumps(results, indent=1) + "\n")
    (folder / "RESULTS.md").write_text(ABOUT + "".join(markdown(result) for result in results.values()))


def machine(arguments: argparse.Namespace) -> str:
    """The machine as a sentence."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.precision}"
    name, wide = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        name = re.search(r"model name\s*: (.*)", text)[1] if "model name" in text else name
        wide = ", with AVX-512" if "avx512f" in text else ", without AVX-512"
    return f"{name}{wide}, {arguments.threads} threads, torch {torch.__version__}, {arguments.precision}"


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Medians and ratios of each row."""
    reference = next((row for row in rows if row.reference), None)
    found = []
    for row in rows:
        facts = {"row": row.title, "trained": row.facts.get("trained"), "batch": row.job["batch"]}
        if row.error or not row.rounds:
            found.append({**facts, "error": row.error or "no step was measured"})
            continue
        steps = [step for steps in row.rounds for step in steps]
        seconds, processor = (statistics.median(step[clock] for step in steps) for clock in (0, 1))
        facts |= {"seconds": seconds, "processor seconds": processor, "images a second": row.job["batch"] / seconds,
                  "steps": len(steps), "peak": row.facts["peak"]}
        if reference is not None and reference.rounds:
            facts["ratio"] = _ratio(reference, row, 0)
            facts["processor ratio"] = _ratio(reference, row, 1)
        found.append(facts)
    return found


def _ratio(reference: Row, row: Row, clock: int) -> float:
    """Of the reference's time to the row's, by the clock or by the processor's time; the median over the rounds."""
    return statistics.median(statistics.median(step[clock] for step in theirs) / statistics.median(step[clock] for step in ours)
                             for theirs, ours in zip(reference.rounds, row.rounds))


def markdown(result: Mapping[str, Any]) -> str:
    """A group as a table."""
    lines = [f"\n## {result['title']}\n", f"{result['machine']}; base: {result['base']}; {result['rounds']} rounds of "
             f"{result['steps a round']} steps; {result['date']}\n",
             "| loop | trained | s a step | images a second | speed, first row = 100 % | by processor time | peak memory |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for row in result["rows"]:
        trained = f"{row['trained']:,}" if row["trained"] else ""
        if "error" in row:
            lines.append(f"| {row['row']} | {trained} | not measured: {row['error']} | | | | |")
            continue
        ratios = [f"{row[key]:.1%}" if key in row else "" for key in ("ratio", "processor ratio")]
        lines.append(f"| {row['row']} | {trained} | {row['seconds']:.3f} | {row['images a second']:.2f} | {ratios[0]} | {ratios[1]} | "
                     f"{row['peak'] / 2**20:,.0f} MiB |")
    return "\n".join(lines) + "\n"
