"""Who may import whom (see README, "The house"), read off the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"errors", "registry", "files", "config"}
MAY_IMPORT = {
    "data": LEAVES | {"data"},
    "training": LEAVES | {"data", "training"},
    "evaluation": LEAVES | {"data", "evaluation"},
    "nodes": LEAVES | {"data", "training", "evaluation", "nodes", "workflows"},
    "workflows": LEAVES | {"data", "training", "evaluation", "workflows"},
    "commands": LEAVES | {"data", "training", "evaluation", "workflows", "commands"},
}
PLUGINS = ["data/sources", "training/methods", "training/presets", "evaluation/extractors", "evaluation/metrics"]
COMFYUI = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "execution", "server", "latent_preview"}
FILES = sorted(path for folder in (*MAY_IMPORT, ".") for path in
               ((ROOT / folder).rglob("*.py") if folder != "." else ROOT.glob("*.py")))


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name from the repository's root, or a foreign package's name) of each import."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, "foreign:" + alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node.lineno, "foreign:" + str(node.module)))
        elif isinstance(node, ast.ImportFrom):
            within = package[: len(package) - node.level + 1]
            module = (*within, *(node.module or "").split(".")) if node.module else within
            found += [(node.lineno, ".".join((*module, alias.name))) for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_folder_imports_only_what_lies_below_it(path):
    folder = path.relative_to(ROOT).parts[0]
    if folder not in MAY_IMPORT:
        return
    for line, name in imported(path):
        if not name.startswith("foreign:"):
            assert name.split(".")[0] in MAY_IMPORT[folder], f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_host_imports_comfyui(path):
    if path == ROOT / "nodes" / "host.py":
        return
    for line, name in imported(path):
        if name.startswith("foreign:"):
            assert name.removeprefix("foreign:").split(".")[0] not in COMFYUI, f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_our_own_are_relative(path):
    for line, name in imported(path):
        assert not name.startswith("foreign:medtune"), f"{path}:{line}: ComfyUI knows the pack by its folder, not as medtune"


@pytest.mark.parametrize("folder", PLUGINS)
def test_a_plugin_never_imports_its_sibling(folder):
    prefix = folder.replace("/", ".")
    for path in (ROOT / folder).glob("*.py"):
        siblings = {f"{prefix}.{other.stem}" for other in (ROOT / folder).glob("*.py") if other != path}
        for line, name in imported(path):
            assert not any((name + ".").startswith(sibling + ".") for sibling in siblings), f"{path}:{line} imports {name}"
