"""The ComfyUI nodes: each declares its sockets and widgets and delegates to the library."""

from __future__ import annotations

import importlib
import logging

MODULES = ("data", "images", "train", "preset", "latents", "adapter", "sample", "evaluate", "classify", "privacy", "report")


def load(modules: tuple[str, ...] = MODULES) -> list[type]:
    """Every node class that works; one that does not is dropped alone, with its traceback in the log.

    ComfyUI itself drops a whole pack, with one line, for one exception in one node.
    """
    nodes: list[type] = []
    for name in modules:
        try:
            found = importlib.import_module(f"{__name__}.{name}").nodes()
        except Exception:
            logging.exception("MedTune: the nodes of %s are left out, the others work", name)
            continue
        nodes += [node for node in found if _works(node)]
    return nodes


def _works(node: type) -> bool:
    try:
        node.GET_SCHEMA()
        return True
    except Exception:
        logging.exception("MedTune: node %s is left out, the others work", node.__name__)
        return False
