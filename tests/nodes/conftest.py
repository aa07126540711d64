"""Each ComfyUI on this machine, with a folder of its own to run scripts in."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from pathlib import Path

import pytest
from medtune.workflows import server

FOUND = server.installations()


@pytest.fixture(scope="session", params=FOUND or [None], ids=[server.version(folder) for folder in FOUND] or ["none"])
def installation(request) -> Path:
    """A ComfyUI's folder, its environment holding what the pack needs."""
    if request.param is None:
        warnings.warn("NO COMFYUI FOUND: set COMFYUI_PATH to one or more (separated by colons) to test the nodes", stacklevel=1)
        pytest.skip("NO COMFYUI FOUND: set COMFYUI_PATH to one or more (separated by colons) to test the nodes")
    server.install_requirements(request.param)
    return request.param


@pytest.fixture(scope="session")
def run_inside(installation, tmp_path_factory):
    """run_inside(script, *arguments) -> the JSON that the script, run by ComfyUI's Python, wrote to its folder."""

    def run(script: str, *arguments: object) -> dict:
        folder = server.prepare(tmp_path_factory.mktemp(script))
        packages = tmp_path_factory.mktemp("packages")
        (packages / "medtune").symlink_to(server.PACK, target_is_directory=True)
        path = Path(__file__).with_name(f"{script}.py")
        command = [str(server.interpreter(installation)), str(path), *map(str, arguments), str(folder)]
        done = subprocess.run(command, cwd=installation, env={**os.environ, "PYTHONPATH": str(packages)}, capture_output=True,
                              text=True, timeout=550, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return {**json.loads((folder / f"{script}.json").read_text()), "log": done.stderr + done.stdout}

    return run
