"""Registries: found by file, refused by name."""

from __future__ import annotations

import pytest
from medtune.errors import UnknownName
from medtune.registry import Registry


def test_every_module_of_the_package_is_imported(tmp_path, monkeypatch):
    (tmp_path / "plugs_for_test").mkdir()
    (tmp_path / "plugs_for_test" / "__init__.py").write_text(
        "from medtune.registry import Registry\nALL = Registry('plug', __name__)\n")
    (tmp_path / "plugs_for_test" / "one.py").write_text("from . import ALL\n@ALL.register('first')\nclass One: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    from plugs_for_test import ALL

    assert list(ALL) == ["first"] and len(ALL) == 1 and "first" in ALL
    with pytest.raises(UnknownName, match=r"unknown plug 'frist' \(did you mean 'first'\?\); there are: first"):
        ALL["frist"]


def test_a_name_is_taken_once():
    registry = Registry("plug", "nowhere")

    class One:
        __module__ = "one"

    class Two:
        __module__ = "two"

    registry.register("name")(One)
    with pytest.raises(ValueError, match="registered twice: in one and two"):
        registry.register("name")(Two)


def test_the_error_is_a_key_error():
    with pytest.raises(KeyError):
        raise UnknownName("plug", "x", [])
