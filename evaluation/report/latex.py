"""Tables in LaTeX for the package booktabs, and the methods and limits paragraphs, to be put into a paper with \\input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..macro import MACRO
from .comparison import BEST

COLUMNS = 5  # metrics side by side in one table
SPECIAL = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
           "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
           '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "\N{MINUS SIGN}": "$-$", "–": "--", "—": "---", "∞": r"$\infty$",
           "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
           "…": r"\ldots{}", "°": r"$^\circ$", "\N{NO-BREAK SPACE}": "~"}
HEAD = """% Needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}; put into a paper with \\input.
% Bold: better than every other arm, by paired differences at 5 % after Holm's correction over all pairs.
"""


def escape(text: str) -> str:
    """Any text as LaTeX that shows it; line breaks and other control characters become spaces."""
    return "".join(SPECIAL.get(letter, letter if letter.isprintable() else " ") for letter in text)


def latex(tables: Sequence[dict[str, Any]], title: str, methods: Sequence[str] = (), limits: Sequence[str] = ()) -> str:
    """A file of the tables, each of a few metrics, and the two paragraphs."""
    parts = [HEAD]
    for table in tables:
        columns = range(len(table["heads"]))
        parts += [_table(table, columns[start:start + COLUMNS], title, start // COLUMNS + 1) for start in columns[::COLUMNS]]
        parts += [f"% {escape(titles)} ({escape(table['label'] or 'all images')}) cannot be had: {escape(reason)}"
                  for titles, reason in table["absent"]]
    for head, text in (("Methods", "\n\n".join(map(escape, methods))), ("Limits", " ".join(map(escape, limits)))):
        if text:
            parts.append(f"\\paragraph{{{head}}}\n{text}\n")
    return "\n".join(parts)


def _table(table: dict[str, Any], columns: Sequence[int], title: str, part: int) -> str:
    heads = [table["heads"][column] for column in columns]
    notes: dict[str, str] = {}
    lines = [row for line in table["lines"] for row in _rows(line, columns, notes)]
    head = " & ".join(["Arm", *(f"{escape(one['title'])} {escape(one['arrow'])}" for one in heads)])
    least = " & ".join(["Detectable", *(escape(one["detectable"]) or "--" for one in heads)])
    power = ["\\midrule", f"{least} \\\\"] if table["power"] else []
    return "\n".join([
        "\\begin{table}", "\\centering", f"\\caption{{{_caption(table, title, part)}}}",
        f"\\label{{tab:{_key(table['label'])}-{part}}}",
        f"\\begin{{tabular}}{{l{'r' * len(heads)}}}", "\\toprule", f"{head} \\\\", "\\midrule", *lines, *power, "\\bottomrule",
        "\\end{tabular}", *([f"\\par\\smallskip{{\\footnotesize {_notes(notes)}}}"] if notes else []), "\\end{table}", ""])


def _rows(line: dict[str, Any], columns: Sequence[int], notes: dict[str, str]) -> list[str]:
    """The figures of an arm, and their intervals below."""
    cells = [line["cells"][column] for column in columns]
    name = escape(line["name"])
    rows = [" & ".join([f"\\textit{{{name}}}" if line["reference"] else name, *(_value(cell, notes) for cell in cells)]) + " \\\\"]
    if any(cell.get("interval") for cell in cells):
        rows.append(" & ".join(["", *(_interval(cell) for cell in cells)]) + " \\\\")
    return rows


def _value(cell: dict[str, Any], notes: dict[str, str]) -> str:
    if cell["value"] is None:
        sign = notes.setdefault(cell["reason"] or "", chr(ord("a") + len(notes) % 26) * (1 + len(notes) // 26))
        return f"--\\textsuperscript{{{sign}}}"
    text = escape(cell["text"])
    ranks = f"\\textsuperscript{{{escape(cell['ranks'])}}}" if cell["ranks"] else ""
    return f"\\textbf{{{text}}}{ranks}" if cell["standing"] == BEST else text + ranks


def _interval(cell: dict[str, Any]) -> str:
    return f"{{\\scriptsize [{escape(cell['interval'].replace(' to ', ', '))}]}}" if cell.get("interval") else ""


def _caption(table: dict[str, Any], title: str, part: int) -> str:
    numbers = {line["n"] for line in table["lines"]}
    same = f" $N$ = {escape(_counts(next(iter(numbers))))}." if len(numbers) == 1 and None not in numbers else ""
    each = "" if same else " " + "; ".join(f"{escape(line['name'])}: $N$ = {escape(_counts(line['n']))}" for line in table["lines"]
                                           if line["n"]) + "."
    what = {None: "all images", MACRO: MACRO}.get(table["label"], table["label"])
    ranked = any(cell.get("ranks") for line in table["lines"] for cell in line["cells"])
    power = "; detectable: the least true differences, over pairs of arms, that show in four of five repeats" if table["power"] else ""
    return (f"{escape(title)}: {escape(what)}{f' ({part})' if part > 1 else ''}. 95 \\% intervals in brackets"
            + (", the ranks that an arm may have as superscripts" if ranked else "") + f"{power}."
            + same + (each if each.strip(" .") else ""))


def _counts(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]} real, {numbers[1]} generated"


def _key(label: str | None) -> str:
    """A label's name in the file: letters and digits alone."""
    return "all" if label is None else "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in label.lower())


def _notes(notes: dict[str, str]) -> str:
    return "; ".join(f"\\textsuperscript{{{sign}}} {escape(reason)}" for reason, sign in notes.items())
