"""What tests share: a few phantoms, the base model, and a cache folder of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded: a test that tries must fail
BASE = Path(__file__).resolve().parent.parent / "training" / "embedded" / "medtune-embedded.safetensors"


def pytest_configure(config):
    """Where the embedded base is not in the checkout, random weights of its architecture stand in, for every process that tests
    start; what needs trained weights skips itself."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # two processes on two cores: more threads would only wait for each other
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch

        torch.set_num_threads(1)
    if BASE.is_file() or os.environ.get("MEDTUNE_EMBEDDED_BASE"):
        return
    import tempfile

    stand_in = Path(tempfile.mkdtemp(prefix="medtune-base-")) / "medtune-embedded.safetensors"
    write_random(stand_in)
    os.environ["MEDTUNE_EMBEDDED_BASE"] = str(stand_in)
    from medtune.training import embedded

    embedded.FILE = stand_in


def write_random(path: Path) -> None:
    """Write a base of the embedded layout with random weights, always the same."""
    import torch
    from medtune.training.embedded.architecture import build, to_ldm
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(to_ldm(*build()), path)


def pytest_report_header():
    """Say so at the top when the tests run on random weights."""
    return None if BASE.is_file() else (f"WARNING: no embedded base at {BASE}: random weights stand in, and what needs trained "
                                        "ones skips")


def pytest_terminal_summary(terminalreporter):
    """What tests measured (``record_property("measured", {what: figure})``), as the README quotes it."""
    found = [(report.nodeid, value) for report in terminalreporter.stats.get("passed", [])
             for name, value in report.user_properties if name == "measured"]
    for test, figures in sorted(found):
        terminalreporter.section(f"measured: {test.split('::')[-1]}")
        for what, figure in figures.items():
            terminalreporter.write_line(f"{what:<40} {figure:.2g}")


@pytest.fixture
def record_property(record_property):
    """pytest's own, with plain numbers: numpy's do not travel between processes, and would bring all of them down."""
    return lambda name, value: record_property(name, {what: float(figure) for what, figure in value.items()})


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Caches of a test run never meet the user's."""
    os.environ["MEDTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory) -> Path:
    """An image set of 24 phantom radiographs at 512 px, every finding and normal, two images a patient."""
    from medtune.data.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 24, seed=0)
    return folder


@pytest.fixture(scope="session")
def phantoms(phantom_folder):
    """The records of ``phantom_folder``."""
    from medtune.data.source import read_records

    return read_records(phantom_folder)


@pytest.fixture(scope="session")
def base_file() -> Path:
    """The embedded base's file."""
    from medtune.training.embedded import FILE

    return Path(FILE)


@pytest.fixture(scope="session")
def random_file(tmp_path_factory) -> Path:
    """A checkpoint of the embedded base's shape with random weights, each of which matters: of the trained one's many hardly do."""
    path = tmp_path_factory.mktemp("random") / "random.safetensors"
    write_random(path)
    return path


@pytest.fixture
def base(base_file):
    """A fresh embedded base, to be changed at will."""
    from medtune.training.base import load_base

    return load_base("embedded")
