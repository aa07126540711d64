"""In each ComfyUI here: the library's reader makes of other tools' adapters what the stock LoraLoader does, at any strength."""

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfyui
pytest.importorskip("lycoris")
_SPEC = importlib.util.spec_from_file_location("foreign", Path(__file__).parents[1] / "training" / "foreign.py")
foreign = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(foreign)


@pytest.fixture(scope="module")
def files(random_file, tmp_path_factory):
    """Name -> path, as text."""
    made = foreign.make(random_file, tmp_path_factory.mktemp("foreign"))
    return json.dumps({name: str(entry.path) for name, entry in made.items() if entry.comfyui})


def test_the_reader_agrees_with_the_stock_loader(run_inside, random_file, files):
    found = run_inside("reading", random_file, files)
    assert {name.split(" at ")[0] for name in found if name != "log"} == set(json.loads(files))
    for name, errors in found.items():
        if name != "log":
            assert errors["effect"] > 1e-3, f"{name} changes too little to be tested"
            assert errors["error"] < 1e-4, name
