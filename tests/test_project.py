"""What pyproject.toml and requirements.txt promise."""

from __future__ import annotations

import re
from pathlib import Path

import medtune
import pytest

ROOT = Path(__file__).resolve().parent.parent
tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_installed():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT).parts for path in ROOT.rglob("__init__.py")}
    assert listed == {".".join(("medtune", *parts)) for parts in folders if not parts or not parts[0].startswith(".")}


def test_one_version():
    assert PROJECT["project"]["version"] == medtune.__version__


def test_the_pack_never_touches_torch_and_caps_nothing():
    lines = [line.split("#")[0].split(";")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    names = [re.split(r"[<>=!~\[; ]", line)[0] for line in lines if line]
    assert names and not {"torch", "torchvision", "torchaudio"} & set(names)
    assert not [line for line in lines if "<" in line or "==" in line or "~=" in line]
