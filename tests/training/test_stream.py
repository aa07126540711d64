"""A safetensors file written tensor by tensor is one that safetensors itself reads."""

import pytest
import torch
from medtune.errors import ModelError
from medtune.training.stream import write_stream
from safetensors import safe_open
from safetensors.torch import load_file

TENSORS = {"odd": torch.arange(3, dtype=torch.uint8), "half": torch.randn(5, 3).half(), "brain": torch.randn(7).bfloat16(),
           "whole": torch.arange(6).reshape(2, 3), "scalar": torch.tensor(0.5), "wide": torch.randn(2, 2, dtype=torch.float64),
           "flag": torch.tensor([True, False])}
ENTRIES = {name: (value.dtype, tuple(value.shape)) for name, value in TENSORS.items()}


def test_every_type_and_shape(tmp_path):
    path = write_stream(tmp_path / "a.safetensors", ENTRIES, TENSORS.__getitem__, {"title": "prüfung"})
    read = load_file(path)
    assert read.keys() == TENSORS.keys()
    assert all(read[name].dtype == value.dtype and torch.equal(read[name], value) for name, value in TENSORS.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"title": "prüfung"}


def test_one_tensor_at_a_time(tmp_path):
    """Each is asked for once, when it is written."""
    asked = []
    write_stream(tmp_path / "a.safetensors", ENTRIES, lambda name: asked.append(name) or TENSORS[name], {})
    assert sorted(asked) == sorted(TENSORS)


@pytest.mark.parametrize(("value", "message"), [
    (torch.zeros(4), r"half is torch.float32 \(4,\), not"),
    (torch.full((5, 3), float("inf")).half(), "NaN or infinite values as F16")])
def test_what_was_not_said_is_not_written(tmp_path, value, message):
    with pytest.raises(ModelError, match=message):
        write_stream(tmp_path / "a.safetensors", ENTRIES, (TENSORS | {"half": value}).__getitem__, {})
    assert not list(tmp_path.iterdir())
