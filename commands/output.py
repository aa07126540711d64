"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def show(arguments: argparse.Namespace, value: Any, text: str) -> None:
    """The result: the value as JSON when ``--json`` was given, otherwise the text."""
    print(json.dumps(value, indent=1, ensure_ascii=False) if arguments.json else text)


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def counter(what: str):
    """A callback (done, total, ...) that keeps one line of progress up to date."""

    def update(done: int, total: int, *_: Any) -> None:
        print(f"\r{what} {done}/{total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)

    return update


def table(rows: list[tuple], heads: tuple[str, ...]) -> str:
    """Columns aligned by spaces, under their heads; None is left blank, and large numbers get commas."""
    cells = [heads, *[tuple(map(_cell, row)) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def plugins(arguments: argparse.Namespace, entries: list[tuple[tuple, type]], heads: tuple[str, ...]) -> None:
    """Plug-ins as a table, and the options of each below; an entry is (cells, the plug-in), the first cell its name."""
    from ..config import fields, to_json

    values, lines = [], []
    for cells, entry in entries:
        defaults = to_json(entry.Config())
        values.append({**dict(zip(heads, cells)), "options": [
            {"name": name, "default": defaults[name], "help": facts["help"]} for name, _, _, facts in fields(entry.Config)]})
        lines += [f"\n{cells[0]}"] + [f"  {name}={defaults[name]}  {facts['help']}" for name, _, _, facts in fields(entry.Config)]
    show(arguments, values, table([cells for cells, _ in entries], heads) + "\n" + "\n".join(lines))
