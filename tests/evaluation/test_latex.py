"""LaTeX tables: balanced, escaped, as wide as they say, bold only where the best holds."""

from __future__ import annotations

import re

import numpy as np
import pytest
from medtune.evaluation.metric import METRICS, Score
from medtune.evaluation.report.arm import Arm
from medtune.evaluation.report.latex import COLUMNS, escape, latex
from medtune.evaluation.report.score_table import comparisons, rows, score_table
from medtune.evaluation.run import Scores

HOSTILE = r"50% & more_of {this} #1 ~^ \input{/etc/passwd} $x$ <b> |" + "\n\\end{table}"


def score(metric, value, *, label=None, direction="lower", n_fake=20, key="k"):
    if value is None:
        return Score(metric, None, None, None, 20, 3, direction, "3 generated images; at least 8 are needed", "x", label)
    noise = np.random.default_rng([len(metric), round(100 * abs(value))]).normal(0, 0.01, 20)
    return Score(metric, value, value - 1, value + 1, 20, n_fake, direction, None, "x", label, "jackknife",
                 without_fake=tuple(value + noise), fake_key=key)


def arm(name, *scores, **others):
    return Arm(name, Scores(scores, 20, 20, {"id": "x", "title": "X"}), **others)


def tables(*arms, label=None):
    return score_table(arms, rows(arms), label, comparisons(arms))


def commands(text):
    """The text without what is escaped, and without comments."""
    text = re.sub(r"\\[\\{}$&#_%]", " ", text)
    return "\n".join(line.partition("%")[0] for line in text.splitlines())


def check(text):
    """Balanced braces, maths and environments; each row of a table has as many cells as there are columns."""
    plain, depth, opened = commands(text), 0, []
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0 and plain.count("$") % 2 == 0
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert kind == "begin" or opened.pop() == name
        opened += [name] if kind == "begin" else []
    assert not opened
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S):
        lines = [line for line in body.strip().splitlines() if not line.startswith(("\\toprule", "\\midrule", "\\bottomrule"))]
        assert lines and all(line.endswith(r"\\") for line in lines)
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns) - 1}


@pytest.mark.parametrize("text, expected", [
    ("a_b & 5 %", r"a\_b \& 5 \%"), ("{x}^2~$#", r"\{x\}\textasciicircum{}2\textasciitilde{}\$\#"),
    ("\\input", r"\textbackslash{}input"),
    ("\N{MINUS SIGN}3 ↓", r"$-$3 $\downarrow$"), ("Fréchet", "Fréchet"), ("a\nb\x07", "a b "), ("<i>", r"\textless{}i\textgreater{}")])
def test_every_text_can_be_shown(text, expected):
    assert escape(text) == expected


def test_what_comes_from_files_runs_nothing():
    text = latex([tables(arm(HOSTILE, score("kid", 1.0)), arm("b", score("kid", 9.0)))], HOSTILE, [HOSTILE], [HOSTILE])
    check(text)
    assert "\\input{/etc" not in text and text.count("\\end{table}") == 1


def test_figures_intervals_and_ranks_stand_in_their_cells():
    reference = arm("real", score("kid", 0.5), reference=True)
    text = latex([tables(arm("lora", score("kid", 2.0)), arm("full", score("kid", 5.0)), reference)], "T")
    check(text)
    assert "lora & \\textbf{2.0}\\textsuperscript{1} \\\\\n & {\\scriptsize [1.0, 3.0]} \\\\" in text
    assert "full & 5.0\\textsuperscript{2} \\\\" in text and "\\textit{real} & 0.5 \\\\" in text
    assert "KID $\\downarrow$" in text and "Detectable & " in text and "$N$ = 20 real, 20 generated" in text


def test_bold_is_only_what_differs_for_certain():
    near = latex([tables(arm("a", score("kid", 2.0)), arm("b", score("kid", 2.0000001, key="other")))], "T")
    assert "\\textbf{" not in near and "\\textsuperscript{1--2}" in near
    unequal = latex([tables(arm("a", score("frechet", 2.0)), arm("b", score("frechet", 9.0, n_fake=12)))], "T")
    check(unequal)
    assert "\\textbf{" not in unequal and "a: $N$ = 20 real, 20 generated; b: $N$ = 20 real, 12 generated" in unequal


def test_wide_tables_are_cut_and_missing_figures_have_their_reason():
    names = [*METRICS][:COLUMNS + 2]
    one = arm("a", *(score(name, float(i + 1)) for i, name in enumerate(names)))
    other = arm("b", *(score(name, None if i == 1 else float(i + 2)) for i, name in enumerate(names)))
    text = latex([tables(one, other)], "T", limits=["Few."])
    check(text)
    assert re.findall(r"\\begin\{tabular\}\{(l(?:r+))\}", text) == ["l" + "r" * COLUMNS, "lrr"]
    assert "--\\textsuperscript{a}" in text and "\\textsuperscript{a} 3 generated images; at least 8 are needed" in text
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == 2 and "\\paragraph{Limits}\nFew." in text


def test_what_no_arm_has_is_told():
    text = latex([tables(arm("a", score("kid", None), score("vendi", 2.0, direction="higher")))], "T")
    check(text)
    assert "% KID (all images) cannot be had: 3 generated images; at least 8 are needed" in text


def test_classes_are_named():
    found = [arm("a", score("kid", 1.0, label="Edema_2")), arm("b", score("kid", 3.0, label="Edema_2"))]
    text = latex([tables(*found, label="Edema_2")], "T")
    check(text)
    assert "T: Edema\\_2." in text and "\\label{tab:edema-2-1}" in text
