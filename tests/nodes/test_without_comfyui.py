"""The package where there is no ComfyUI."""

import subprocess
import sys
from pathlib import Path


def run(code: str) -> str:
    paths = [path for path in sys.path if path]
    return subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; " + code], capture_output=True, text=True,
                          check=True, cwd=Path.home()).stdout.strip()


def test_the_package_imports_without_comfyui_and_without_torch():
    code = "import medtune, inspect; print('torch' in sys.modules, inspect.iscoroutinefunction(medtune.comfy_entrypoint))"
    assert run(code) == "False True"


def test_the_list_of_nodes_imports_nothing():
    assert run("import medtune.nodes; print('torch' in sys.modules)") == "False"
