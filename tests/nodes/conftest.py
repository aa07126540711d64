"""Each ComfyUI on this machine, with a folder of its own to run scripts in."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
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
    """run_inside(script, *arguments, timeout=seconds) -> the JSON that the script, run by ComfyUI's Python, wrote to its folder."""

    def run(script: str, *arguments: object, timeout: float = 550) -> dict:
        folder = server.prepare(tmp_path_factory.mktemp(script))
        packages = tmp_path_factory.mktemp("packages")
        (packages / "medtune").symlink_to(server.PACK, target_is_directory=True)
        path = Path(__file__).with_name(f"{script}.py")
        command = [str(server.interpreter(installation)), str(path), *map(str, arguments), str(folder)]
        done = subprocess.run(command, cwd=installation, env={**os.environ, "PYTHONPATH": str(packages)}, capture_output=True,
                              text=True, timeout=timeout, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return {**json.loads((folder / f"{script}.json").read_text()), "log": done.stderr + done.stdout}

    return run


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory):
    """random_checkpoint(kind, channels, prediction) -> a float16 checkpoint of a true size with random weights, made once."""
    from medtune.training.base import Base, empty
    from medtune.training.layout import LAYOUTS
    from medtune.training.single_file import checkpoint_tensors
    from medtune.training.source import Source
    from safetensors.torch import save_file

    made = {}

    def make(kind: str, channels: int = 4, prediction: str = "epsilon") -> Path:
        layout, generator = LAYOUTS[kind].with_channels(channels), torch.Generator().manual_seed(0)

        def drawn(name: str, shape: torch.Size) -> torch.Tensor:
            value = torch.randn(shape, generator=generator)
            if len(shape) < 2:
                return 0.02 * value + (name.endswith("weight") and "norm" in name)
            return value * (0.02 if "embedding" in name else shape[1:].numel() ** -0.5)

        def read(part: str) -> dict[str, torch.Tensor]:
            return {name: drawn(name, value.shape).half() for name, value in empty(part, layout).state_dict().items()}

        key = (kind, channels, prediction)
        if key not in made:
            path = tmp_path_factory.mktemp("checkpoints") / f"{kind}-{channels}-{prediction}.safetensors"
            base = Base(Source(str(path), "", layout, prediction, read), str(path), "cpu", torch.float16)
            tensors = {name: value.half() for name, value in checkpoint_tensors(base).items()}
            mark = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
            if prediction == "v_prediction":  # the tensor by which loaders tell the two SD2 kinds apart
                tensors[mark] *= 10
            save_file(tensors, path)
            made[key] = path
        return made[key]

    return make
