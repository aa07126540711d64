"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import os

import pytest
from medtune.errors import MedTuneError
from medtune.files import hash_file, hash_json, whole, write_json


def test_a_failed_write_leaves_the_former_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), whole(path) as beside:
        beside.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_full_disk_is_said_with_the_remedy(tmp_path):
    import resource
    import signal

    path = tmp_path / "file"
    path.write_bytes(b"before")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
        with pytest.raises(MedTuneError, match="Free some space"), whole(path) as beside:
            beside.write_bytes(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["file"]


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})


def test_hashes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert hash_file(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1}) != hash_json({"a": 1, "b": 3})
