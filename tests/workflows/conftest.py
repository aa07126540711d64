"""Each ComfyUI on this machine, as a server that is up while the tests of this folder run."""

from __future__ import annotations

import warnings

import pytest
from medtune.workflows import server

FOUND = server.installations()
SAY = "NO COMFYUI FOUND: set COMFYUI_PATH to one or more (separated by colons) to test the workflows"


@pytest.fixture(scope="session", params=FOUND or [None], ids=[server.version(folder) for folder in FOUND] or ["none"])
def comfyui(request, tmp_path_factory):
    """(client, folder) of a running server with this pack, which brings the embedded base."""
    if request.param is None:
        warnings.warn(SAY, stacklevel=1)
        pytest.skip(SAY)
    server.install_requirements(request.param)
    folder = server.prepare(tmp_path_factory.mktemp("comfyui"))
    with server.serve(request.param, folder, "--cpu", environment={"MEDTUNE_CACHE": str(folder / "cache")}) as client:
        yield client, folder
