"""A ComfyUI of one's own: find the installations on this machine, start one headless in a folder of its own, and stop it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import Missing
from .client import Client

PACK = Path(__file__).resolve().parents[1]
NAME = "ComfyUI-MedTune"


def installations() -> list[Path]:
    """ComfyUI folders: those in ``$COMFYUI_PATH`` (separated by colons), else those below ``~/comfy``."""
    named = os.environ.get("COMFYUI_PATH")
    beside = sorted((Path.home() / "comfy").glob("*"))
    folders = [Path(part).expanduser() for part in named.split(os.pathsep) if part] if named else beside
    return [folder for folder in folders if (folder / "main.py").is_file() and (folder / "comfyui_version.py").is_file()]


def version(installation: Path) -> str:
    """The version that an installation says it is."""
    for line in (installation / "comfyui_version.py").read_text().splitlines():
        if line.startswith("__version__"):
            return line.split("=")[1].strip().strip("\"'")
    return "unknown"


def interpreter(installation: Path) -> Path:
    """The Python of an installation's own environment. Raises Missing when it has none."""
    candidates = [installation / part for part in (".venv/bin/python", "venv/bin/python", ".venv/Scripts/python.exe",
                                                   "venv/Scripts/python.exe", "../python_embeded/python.exe")]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise Missing(f"{installation} has no environment of its own (.venv or venv); make one, and install ComfyUI's requirements in it")


def prepare(folder: Path, pack: Path = PACK) -> Path:
    """A base directory for a ComfyUI in which this pack is the only custom node."""
    for name in ("custom_nodes", "user", "input", "output", "models/checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    link = folder / "custom_nodes" / NAME
    if not link.exists():
        try:
            link.symlink_to(pack, target_is_directory=True)
        except OSError:  # Windows without developer mode
            shutil.copytree(pack, link, ignore=shutil.ignore_patterns(".*", "tests"))
    return folder


@contextlib.contextmanager
def serve(installation: Path, folder: Path, *arguments: str, port: int | None = None, wait: float = 300,
          environment: dict[str, str] | None = None) -> Iterator[Client]:
    """Start ComfyUI headless with its models, input and output in ``folder``; it is stopped after the block.

    ``arguments`` are ComfyUI's own, such as ``--cpu``. Its output is in ``folder/server.log``. Raises Missing, with the end of that
    file, when it does not answer within ``wait`` seconds.
    """
    port = port or _free_port()
    command = [str(interpreter(installation)), "main.py", "--port", str(port), "--base-directory", str(prepare(folder)),
               "--database-url", "sqlite:///:memory:", "--disable-all-custom-nodes", "--whitelist-custom-nodes", NAME, *arguments]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=installation, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, **(environment or {})})
    try:
        client = Client(f"http://127.0.0.1:{port}")
        _await(client, process, folder / "server.log", wait)
        yield client
    finally:
        _stop(process)


def _await(client: Client, process: subprocess.Popen, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Missing):
            client.get("/system_stats")
            return
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-2000:]
            what = f"ended with code {process.returncode}" if process.poll() is not None else f"did not answer in {seconds:.0f} s"
            raise Missing(f"ComfyUI {what}; the end of its output:\n{end}")
        time.sleep(0.3)


def _stop(process: subprocess.Popen, patience: float = 15) -> None:
    process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def missing_requirements(installation: Path, requirements: Sequence[str] = ()) -> list[str]:
    """Those of the pack's requirements that an installation's environment lacks."""
    lines = list(requirements) or (PACK / "requirements.txt").read_text().splitlines()
    wanted = [found[0] for line in lines if (found := re.match(r"[A-Za-z0-9][\w.-]*", line))]
    script = ("import sys; from importlib.metadata import distribution, PackageNotFoundError\n"
              "for name in sys.argv[1:]:\n    try: distribution(name)\n    except PackageNotFoundError: print(name)")
    found = subprocess.run([str(interpreter(installation)), "-c", script, *wanted],
                           capture_output=True, text=True, check=True)
    return found.stdout.split()


def install_requirements(installation: Path) -> list[str]:
    """Put what the pack needs into an installation's environment; what was installed. Its torch stays as it is."""
    missing = missing_requirements(installation)
    if not missing:
        return []
    python = str(interpreter(installation))
    held = subprocess.run([python, "-c", "from importlib.metadata import version\n"
                           "for name in ('torch', 'torchvision', 'torchaudio', 'numpy'): print(f'{name}=={version(name)}')"],
                          capture_output=True, text=True, check=True).stdout
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(held)
        constraints.flush()
        tool = ["uv", "pip", "install", "--python", python] if shutil.which("uv") else [python, "-m", "pip", "install"]
        subprocess.run([*tool, "-q", "-c", constraints.name, *missing], check=True)
    return missing
