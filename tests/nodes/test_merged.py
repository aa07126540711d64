"""In each ComfyUI here: a merged checkpoint is base and adapter, and LoRA loaders are exact just where `inspect` says so."""

import pytest

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def found(run_inside, random_file):
    return run_inside("merged", random_file)


def test_a_merged_checkpoint_is_base_and_adapter(found):
    assert found["merged"]["unet"] < 1e-3 < found["merged"]["effect"]
    assert found["merged"]["text"] < 1e-4 and found["merged"]["decode"] < 1e-4


def test_inspect_says_which_loaders_are_exact(found):
    assert len(found["loaders"]) == 11
    for name, verdicts in found["loaders"].items():
        assert "LoraLoader" in verdicts
        for loader, (said, error) in verdicts.items():
            exact = isinstance(error, float) and error < 1e-3
            assert exact == said.startswith("exact"), f"{name} in {loader}: {error}, and inspect says: {said}"
