"""Plots, read back from their SVG: each figure lies where it belongs, and a screen reader is told."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from medtune.evaluation.report.plots.dots import dots
from medtune.evaluation.report.plots.fractions import fraction_curves
from medtune.evaluation.report.plots.loss import loss_curve, smooth, span
from medtune.evaluation.report.plots.parallel import Measure, parallel
from medtune.evaluation.report.plots.scatter import scatter
from medtune.evaluation.report.plots.svg import CORNERS, Axis, Point, axis, linear_ticks, log_ticks, mark, wrap

HOSTILE = '<script>"&\''


def read(svg):
    """The root, after checking that everything lies within the picture."""
    root = ET.fromstring(svg)
    wide, high = map(float, root.get("viewBox").split()[2:])
    for name in ("x", "x1", "x2", "cx"):
        assert all(0 <= float(one.get(name)) <= wide for one in root.iter() if one.get(name))
    for name in ("y", "y1", "y2", "cy"):
        assert all(0 <= float(one.get(name)) <= high for one in root.iter() if one.get(name))
    assert root.get("role") == "img" and root.find("title").text
    return root


def marks(root):
    """(series, x, y, what it says) of every mark."""
    found = []
    for one in root.iter():
        if (one.get("class") or "").startswith("mark"):
            if one.tag == "circle":
                place = float(one.get("cx")), float(one.get("cy"))
            else:
                corners = [tuple(map(float, pair.split(","))) for pair in one.get("points").split()]
                place = tuple(sum(corner[axis] for corner in corners) / len(corners) for axis in (0, 1))
            found.append((int(one.get("class").split()[1][1:]), *place, one.find("title").text))
    return found


def texts(root):
    return [one.text for one in root.iter("text")]


def test_an_axis_places_values_linearly_or_by_logarithm_and_holds_them():
    plain, log = Axis(0, 10, 100, 0), Axis(1, 100, 0, 50, True)
    assert (plain.place(0), plain.place(5), plain.place(99)) == (100, 50, 0)
    assert log.place(10) == pytest.approx(25) and log.place(0.1) == 0
    assert axis([1, 30], 0, 1).log and not axis([0, 30], 0, 1).log and not axis([1, 10], 0, 1).log
    for values in ([3], [0], [-2, -2], [1, 1000], [5, 5], []):
        made = axis(values, 0, 1)
        assert made.low < made.high and all(made.low <= value <= made.high for value in values)


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 4), (0.2, 0.21), (1e-6, 9e-6), (0, 12345), (-0.05, 1.05)])
def test_ticks_are_round_few_and_within(low, high):
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 6 and all(low <= tick <= high for tick in ticks)
    steps = {round((b - a) / (ticks[1] - ticks[0]), 6) for a, b in pairwise(ticks)}
    assert steps == {1.0}


@pytest.mark.parametrize("low, high", [(1, 1000), (0.05, 0.21), (1, 1e9), (2, 3)])
def test_logarithmic_ticks_are_few_and_within(low, high):
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 7 and all(low <= tick <= high for tick in ticks) and ticks == sorted(ticks)


def test_series_differ_by_shape_and_colour():
    kinds = {(re.search(r"s\d", mark(i, 0, 0))[0], re.sub(r'class="[^"]*"', "", mark(i, 0, 0))) for i in range(24)}
    assert len(kinds) == 24
    assert "&lt;script&gt;" in mark(0, 0, 0, HOSTILE) and set(CORNERS) < {"up", "down", "diamond", "square", "cross", "circle"}


def test_parallel_better_is_up_whatever_the_direction():
    names = ["worse", HOSTILE, "none"]
    root = read(parallel(names, [Measure("Low", "lower", [Point(9, 8, 10), Point(1), Point(5)]),
                                 Measure("High", "higher", [Point(0.1), Point(0.9, 0.8, 1.0), None]),
                                 Measure("A title of many words indeed", "higher", [Point(1), Point(2), Point(3)])], [False, True]))
    places = {(series, said.partition(", ")[2].split(":")[0]): y for series, _, y, said in marks(root)}
    assert places[1, "Low"] < places[2, "Low"] < places[0, "Low"] and places[1, "High"] < places[0, "High"]
    assert (2, "High") not in places and len(places) == 8
    lines = [one.get("class") for one in root.iter("polyline")]
    assert sum("s0" in one for one in lines) == 1 and not any("s2" in one for one in lines)  # a gap leaves nothing to draw
    assert ["dashed" in one for one in lines] == [False, True]
    assert len([one for one in root.iter("line") if "interval" in one.get("class")]) == 2
    assert "lower better" in texts(root) and "Low from 9.00 to 1.00" in root.find("title").text


def test_parallel_uses_logarithms_where_figures_span_far():
    far = Measure("M", "lower", [Point(1), Point(10), Point(100)])
    root = read(parallel(["a", "b", "c"], [far, Measure("N", "lower", [Point(1)] * 3)]))
    a, b, c = (y for _, _, y, said in marks(root) if ", M" in said)
    assert b - a == pytest.approx(c - b, abs=0.5) and a < b < c
    assert "lower better, log" in texts(root)


def test_scatter_better_is_up_and_right_with_both_intervals():
    names = ["good", "bad", "half"]
    diversity = Measure("Vendi score", "higher", [Point(8, 7, 9), Point(2, 1, 3), Point(4)])
    fidelity = Measure("Fréchet distance", "lower", [Point(10, 5, 15), Point(90, 80, 100), None])
    root = read(scatter(names, diversity, fidelity))
    (_, x0, y0, said), (_, x1, y1, _) = marks(root)
    assert x0 > x1 and y0 < y1 and said == "good: 10.0, 8.0"
    bars = [one for one in root.iter("line") if "interval" in one.get("class")]
    assert len(bars) == 4  # one across and one upright for each arm that has both figures
    across, upright = bars[:2]
    assert float(across.get("x1")) < x0 < float(across.get("x2")) and across.get("y1") == across.get("y2")
    assert min(float(upright.get("y1")), float(upright.get("y2"))) < y0 < max(float(upright.get("y1")), float(upright.get("y2")))
    assert "Fréchet distance (lower is better ↑)" in texts(root) and "Vendi score (higher is better →)" in texts(root)


def test_dots_one_row_a_class_and_a_dash_for_what_is_missing():
    rows = [("Nodule", [Point(0.2, 0.1, 0.3), Point(0.6)]), ("A label that is much too long for the margin", [None, Point(0.4)])]
    root = read(dots("F1", "higher", ["a", HOSTILE], rows))
    found = {said.split(": ")[0]: (x, y) for _, x, y, said in marks(root)}
    assert found["a, Nodule"][0] < found[f"{HOSTILE}, Nodule"][0]
    assert found["a, Nodule"][1] < found[f"{HOSTILE}, A label that is much too long for the margin"][1]
    assert [one.text for one in root.iter("text") if "missing" in (one.get("class") or "")] == ["–"]
    assert any(text.endswith("…") for text in texts(root))
    assert "Nodule a 0.20 (0.10 to 0.30)" in root.find("title").text and "a missing" in root.find("title").text


def test_curves_over_shares_rise_to_the_right_and_levels_are_dashed():
    curve = [(0.01, Point(0.5, 0.4, 0.6)), (0.1, Point(0.7, 0.65, 0.75)), (1.0, None)]
    root = read(fraction_curves("AUROC", ["real", "synthetic"], [curve, [(0.0, Point(0.6, 0.5, 0.7))]]))
    real = [(x, y) for series, x, y, _ in marks(root) if series == 0]
    assert len(real) == 2 and real[0][0] < real[1][0] and real[0][1] > real[1][1]
    assert [one.get("class") for one in root.iter("line") if "dashed" in one.get("class")] == ["series s1 dashed"]
    assert {"1", "10", "100", "real patients to learn from (%, log)"} <= set(texts(root))
    assert "synthetic without real images" in root.find("title").text


def test_shares_are_placed_by_their_logarithms():
    points = [(share, Point(0.5)) for share in (0.01, 0.1, 1.0)]
    a, b, c = (x for _, x, _, _ in marks(read(fraction_curves("F", ["real"], [points]))))
    assert b - a == pytest.approx(c - b, abs=0.2)


def test_loss_curves_keep_within_the_picture():
    losses = [0.5 / (1 + i / 50) for i in range(1000)]
    svg = loss_curve(losses, "a <b>", span([losses]))
    root = read(svg)
    assert "a &lt;b&gt;" in svg and len(list(root.iter("polyline"))) == 2 and {"loss", "step"} <= set(texts(root))
    points = [tuple(map(float, pair.split(","))) for line in re.findall(r'points="([^"]*)"', svg) for pair in line.split()]
    assert len(points) < 1000 and all(0 <= x <= 420 and 0 <= y <= 220 for x, y in points)
    falling = [y for _, y in points[-200:]]
    assert falling[0] < falling[-1]  # a falling loss goes down the page
    assert len(re.findall(r'text-anchor="end"', svg)) >= 2


def test_smoothing_is_the_mean_about_each_value():
    assert smooth([0, 0, 0, 6, 0, 0, 0], 3)[3] == pytest.approx(6 / 5)
    assert smooth([2.0] * 9) == pytest.approx([2.0] * 9)
    assert loss_curve([0.1, 0.1], "flat", span([[0.1, 0.1]]))


def test_long_titles_are_wrapped_and_none_is_lost_silently():
    assert wrap("Label agreement (AUROC)", 15) == ["Label agreement", "(AUROC)"]
    assert wrap("a b", 15) == ["a b"] and len(wrap("one two three four five six", 4)) == 3
