"""What a training step costs: MedTune's own against a bare loop and against other trainers, measured side by side.

    python benchmarks/bench.py [--base embedded] [--groups full lora ...] [--rounds 5] [--block 3] [--out benchmarks]

Each row is a training loop in a process of its own (`loops.py`, `comfyui.py`). The loops of a group are all loaded, and take turns
in rounds: a few steps of one while the others wait, so that whatever else the machine does falls on all of them. A row's time is
the median over its steps; a ratio is the median over the rounds of (reference's time / row's time) within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from medtune.data.image import read_image
from medtune.data.phantom import write_phantoms
from medtune.data.source import read_records
from medtune.errors import MedTuneError
from medtune.training import embedded
from medtune.training.base import load_base
from medtune.training.layout import LATENT_SCALE
from medtune.workflows import server
from safetensors.torch import save_file
from table import write_results

HERE = Path(__file__).resolve().parent
IMAGES = 8
WARM_UP = 2  # steps of each loop that are not counted


@dataclass
class Row:
    """One loop: its place in the table, its job, and what was measured.

    ``reference`` marks the row that the others are compared with.
    """

    title: str
    job: dict[str, Any]
    reference: bool = False
    comfyui: Path | None = None
    rounds: list[list[list[float]]] = field(default_factory=list)  # of each round, of each step: seconds on the clock, of processor
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass
class Group:
    """Rows that take turns."""

    title: str
    rows: list[Row]


def groups(job: dict[str, Any]) -> dict[str, Group]:
    """All that is measured, by name; ``job`` holds what is common."""

    def row(title: str, loop: str, method: str, reference: bool = False, **changes: Any) -> Row:
        return Row(title, {**job, "loop": loop, "method": method, **changes}, reference)

    full, lora = "full", "lora"
    everywhere = {"targets": "all", "rank": 8}
    made = {
        "full": Group("Full fine-tuning of the U-Net, batch 4, 512 px", [
            row("bare loop: forward, backward, AdamW", "bare", full, True),
            row("MedTune, cache in memory", "ours", full),
            row("MedTune, cache on disk", "ours", full, cache="disk"),
            row("Pixels Under Pressure's loop, nothing cached", "pressure", full)]),
        "lora": Group("LoRA, rank 8 on the attention, batch 4, 512 px", [
            row("bare loop: forward, backward, AdamW", "bare", lora, True),
            row("MedTune, cache in memory", "ours", lora),
            row("MedTune, cache on disk", "ours", lora, cache="disk"),
            row("Pixels Under Pressure's loop, nothing cached", "pressure", lora),
            row("diffusers' train_text_to_image_lora pattern, nothing cached", "diffusers", lora)]),
        "comfyui": Group("LoRA, rank 8 on every layer, batch 4, 512 px", [
            row("bare loop: forward, backward, AdamW", "bare", lora, True, config=everywhere),
            row("MedTune, cache in memory", "ours", lora, config=everywhere),
            *comfyui_rows({**job, "config": {"rank": 8}})]),
        "rank": Group("Cost against rank: LoRA on every layer, batch 4, 512 px", [
            row(f"rank {rank}", "ours", lora, rank == 2, config={"targets": "all", "rank": rank}) for rank in (2, 8, 16, 32)]),
    }
    for name, key, values in (("batch", "batch", (1, 2, 8)), ("resolution", "size", (256, 384, 768))):
        for value in values:
            title = f"{value} px, batch 4" if key == "size" else f"batch {value}, 512 px"
            made[f"{name}-{value}"] = Group(f"Cost against {name}: {title}", [
                row(f"{kind}, {what}", loop, kind, kind == full and loop == "bare", **{key: value, "cache": "disk"})
                for kind in (full, lora) for what, loop in (("bare loop", "bare"), ("MedTune", "ours"))])
    return made


def comfyui_rows(job: dict[str, Any]) -> list[Row]:
    """The node of each ComfyUI on this machine: without what slows it down and, on a GPU, as it comes.

    As it comes it computes in bf16, for which processors without such instructions need minutes a step.
    """
    settings = [("fp32, no checkpointing", "fp32", False), ("as it comes: bf16, checkpointing", "bf16", True)]
    rows = []
    for folder in server.installations():
        name = f"ComfyUI {server.version(folder)}, Train LoRA"
        for what, precision, checkpointing in settings[:1] if job["device"] == "cpu" else settings:
            rows.append(Row(f"{name}, {what}", {**job, "precision": precision, "checkpointing": checkpointing}, comfyui=folder))
    return rows


class Loop:
    """A row's process."""

    def __init__(self, row: Row, folder: Path):
        self.row, self.log = row, open(folder / f"{id(row)}.log", "wb")  # noqa: SIM115  closed by close()
        packages = folder / "packages"
        packages.mkdir(exist_ok=True)
        if not (packages / "medtune").exists():
            (packages / "medtune").symlink_to(HERE.parent, target_is_directory=True)
        job = {**row.job, "runs": str(folder / "runs" / str(id(row))), "folder": str(folder / "comfyui")}
        python = server.interpreter(row.comfyui) if row.comfyui else sys.executable
        script = HERE / ("comfyui.py" if row.comfyui else "loops.py")
        environment = {**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen([str(python), str(script), json.dumps(job)], cwd=row.comfyui or HERE, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def ready(self) -> bool:
        """Wait until it can begin; on failure the row says why."""
        return self._receive(self.row.facts) is not None

    def steps(self, count: int) -> list[list[float]]:
        """Seconds of each of so many steps; none when the loop has ended."""
        if self.row.error:
            return []
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
        found = self._receive({})
        if found is None:
            return []
        self.row.facts["peak"] = found["peak"]
        return found["steps"]

    def _receive(self, into: dict[str, Any]) -> dict[str, Any] | None:
        line = self.process.stdout.readline()
        if line:
            into.update(json.loads(line))
            return into
        self.process.wait()
        text = Path(self.log.name).read_text(errors="replace").strip().splitlines()
        self.row.error = text[-1][:200] if text else f"ended with code {self.process.returncode}"
        print(f"   {self.row.title}: {self.row.error}", flush=True)
        return None

    def close(self) -> None:
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        self.log.close()


def measure(rows: Sequence[Row], rounds: int, block: int, folder: Path) -> None:
    """Fill in the rows' rounds, in each of which every row's turn comes once, beginning with another one."""
    with contextlib.ExitStack() as stack:
        begun = [Loop(row, folder) for row in rows]
        for loop in begun:
            stack.callback(loop.close)
        loops = [loop for loop in begun if loop.ready()]
        for loop in loops:
            loop.steps(WARM_UP)
        for turn in range(rounds):
            for loop in loops[turn % len(loops):] + loops[:turn % len(loops)]:
                steps = loop.steps(block)
                if steps:
                    loop.row.rounds.append(steps)
    for row in rows:
        if row.rounds:
            print(f"   {row.title}: {statistics.median(step[0] for steps in row.rounds for step in steps):.3f} s", flush=True)


@contextlib.contextmanager
def inputs(arguments: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with phantoms, caches of its own and the tensors for ComfyUI; and what all jobs have in common."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="medtune-bench-") as name:
        folder = Path(name)
        os.environ["MEDTUNE_CACHE"] = str(folder / "cache")
        write_phantoms(folder / "phantoms", IMAGES, seed=0)
        for part in ("custom_nodes", "user", "models", "input", "output"):
            (folder / "comfyui" / part).mkdir(parents=True)
        path = str(embedded.FILE if arguments.base == "embedded" else Path(arguments.base).resolve())
        base, records = load_base(path), read_records(folder / "phantoms")
        with torch.no_grad():
            latents = torch.cat([base.encode_images(read_image(record.image, 512)[None]) for record in records])
            states = base.encode_prompts([record.caption for record in records])
        tensors = folder / "tensors.safetensors"
        save_file({"latents": latents / LATENT_SCALE, "states": states.contiguous()}, tensors)
        yield folder, {"base": path, "data": str(folder / "phantoms"), "tensors": str(tensors), "images": IMAGES, "batch": 4,
                       "size": 512, "cache": "memory", "precision": arguments.precision, "compile": False, "config": {},
                       "device": device, "threads": arguments.threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--groups", nargs="+", help="of those that there are (all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=3, help="steps of a loop in a round")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=HERE, help="where RESULTS.md and results.json go; what they hold of other groups "
                        "stays")
    arguments = parser.parse_args()
    with inputs(arguments) as (folder, job):
        known = groups(job)
        unknown = set(arguments.groups or ()) - known.keys()
        if unknown:
            parser.error(f"no such groups: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
        for name in arguments.groups or known:
            print(known[name].title, flush=True)
            measure(known[name].rows, arguments.rounds, arguments.block, folder)
            write_results(arguments.out, {name: known[name]}, list(known), arguments)
    print(f"{arguments.out / 'RESULTS.md'}")


if __name__ == "__main__":
    try:
        main()
    except MedTuneError as error:
        sys.exit(f"bench: {error}")
