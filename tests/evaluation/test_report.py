"""The report: what is best, what is missing and why, and a page that needs nothing from outside."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from medtune.data.image_set import ImageSet
from medtune.errors import DataError
from medtune.evaluation.downstream.contest import Contest
from medtune.evaluation.downstream.protocol import MIXED, REAL, SYNTHETIC, Cell
from medtune.evaluation.downstream.result import Downstream
from medtune.evaluation.downstream.trial import Trial
from medtune.evaluation.macro import MACRO
from medtune.evaluation.metric import Score
from medtune.evaluation.privacy.audit import Privacy
from medtune.evaluation.privacy.figure import PrivacyFigure
from medtune.evaluation.privacy.pairs import Pair
from medtune.evaluation.privacy.threshold import Threshold
from medtune.evaluation.report.arm import read_privacy
from medtune.evaluation.report.latex import escape as in_latex
from medtune.evaluation.report.number import figure
from medtune.evaluation.report.picture_grid import picture_grid
from medtune.evaluation.report.report import Arm, read_losses, write_report
from medtune.evaluation.run import Scores

MEAN = '<script>alert("caption")</script>'
EXTRACTOR = {"id": "in-domain-x-1234", "name": "in-domain", "title": "In-domain network", "paper": "none", "network": "resnet10t",
             "auroc": {"Nodule": 0.91, "Rare": None}, "mean_auroc": 0.91, "n_train": 100, "n_held_out": 25}


def score(value, low=None, high=None, metric="frechet", direction="lower", **others):
    facts = {"n_real": 20, "n_fake": 20, "reason": None if value is not None else "3 generated images; at least 8 are needed",
             "extractor": "in-domain-x-1234", "interval": "jackknife" if low is not None else "", **others}
    without = tuple(value + 0.05 * math.sin(i * (1 + value)) for i in range(16)) if low is not None else ()
    return Score(metric, value, low, high, direction=direction, without_fake=without, fake_key="same", **facts)


def scores(value, *more, diversity=None):
    vendi = score(diversity, metric="vendi", direction="higher", **({"low": 1.0, "high": 9.0} if diversity else {}))
    return Scores((score(value, value - 5, value + 5), vendi, *more), 20, 20, EXTRACTOR, ("few images",), {"torch": "2.11"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Real images, untuned and tuned samples of three prompts; the tuned set lacks the last."""
    root = tmp_path_factory.mktemp("sets")
    prompts = [("a nodule", ("Nodule",), 1), (MEAN, ("No Finding",), 2), ("rare", ("Rare",), 3)]
    for name in ("real", "untuned", "tuned"):
        image_set = ImageSet(root / name)
        for index, (caption, labels, seed) in enumerate(prompts if name != "tuned" else prompts[:2]):
            image_set.append(torch.full((3, 32, 32), 0.3 * index), caption if name != "real" else f"real {labels[0]}",
                             labels if name != "real" or index < 2 else ("Other",), seed=None if name == "real" else seed)
    (root / "losses.jsonl").write_text("".join(json.dumps({"step": i + 1, "loss": 0.1 / (i + 1)}) + "\n" for i in range(50)) + '{"st')
    base = {"ref": "embedded", "hash": "e" * 64, "notice": "Made with the embedded base."}
    ImageSet(root / "untuned").write_info({"made_by": "medtune sample", "base": base, "adapter": None})
    adapter = {"method": "lora", "config": {"rank": 8}, "hash": "a" * 64, "losses": str(root / "losses.jsonl")}
    ImageSet(root / "tuned").write_info({"made_by": "medtune sample", "base": base, "adapter": adapter})
    return root


@pytest.fixture(scope="module")
def arms(folders):
    of_class = [score(7.0, 5.0, 9.0, label="Nodule"), score(3.0, 1.0, 5.0, label="Nodule")]
    return [Arm.of("untuned", folders / "untuned", scores(100.0, of_class[0])),
            Arm.of("LoRA, rank 8", folders / "tuned", scores(40.0, of_class[1], diversity=4.0)),
            Arm("real", scores(10.0), reference=True)]


@pytest.fixture(scope="module")
def written(folders, arms, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    page = write_report(out, arms, ImageSet(folders / "real").records, notices=["A <b>notice</b>."])
    return page.read_text(encoding="utf-8"), out


class Links(HTMLParser):
    """Everything that a browser would fetch, and the tags that are open at the end."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "srcset", "href", "data", "action", "poster")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(written):
    page, _ = written
    links = Links(page)
    assert not links.open and len(links.fetched) > 5
    assert all(link.startswith(("data:", "#")) for link in links.fetched)
    assert {link[1:] for link in links.fetched if link.startswith("#")} <= set(re.findall(r'id="([^"]*)"', page))
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert "url(" not in style and "@import" not in style and "fetch(" not in page and "XMLHttpRequest" not in page
    assert "http" not in re.sub(r"data:image/jpeg;base64,[^\"]*", "", page)


def test_text_from_outside_is_shown_not_run(written):
    page, _ = written
    assert MEAN not in page and "&lt;script&gt;alert" in page and "A &lt;b&gt;notice&lt;/b&gt;." in page


def test_figures_intervals_counts_reasons_and_directions_are_shown(written):
    page, _ = written
    for text in ("40.0", "<small>35.0 to 45.0</small>", "40 % of untuned", "N 20 real, 20 generated", "↓", "lower is better",
                 "3 generated images; at least 8 are needed", "higher is better", "Nodule 0.91, Rare undefined", "in-domain-x-1234",
                 "Made with the embedded base.", "few images", "real against real", "50 steps"):
        assert text in page, text
    assert page.count("Made with the embedded base.</li>") == 1  # said once, at the top


def test_the_best_is_marked_in_the_page(written):
    page, _ = written
    assert len(re.findall(r'<span class="tag best">best</span>', page)) == 3  # the legend's, LoRA's, and LoRA's of the class
    assert "LoRA, rank 8 is best, 40.0 (35.0 to 45.0)." in page
    assert "untuned less LoRA, rank 8" in page and "p &lt; 0.001" in page and '<span class="tag best">holds</span>' in page


def test_csv_and_json_hold_every_figure(written):
    _, out = written
    with open(out / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    lora = next(row for row in rows if row["arm"] == "LoRA, rank 8" and row["metric"] == "frechet" and not row["label"])
    assert (float(lora["value"]), float(lora["low"]), lora["standing"], lora["n_fake"]) == (40.0, 35.0, "best", "20")
    assert (lora["rank"], lora["rank_low"], lora["rank_high"], lora["p_best"]) == ("1", "1", "1", "")
    assert next(row for row in rows if row["metric"] == "vendi")["reason"].startswith("3 generated")
    with open(out / "differences.csv", newline="", encoding="utf-8") as file:
        differences = list(csv.DictReader(file))
    assert [(row["first"], row["second"], row["holds"]) for row in differences] == [("untuned", "LoRA, rank 8", "True")] * 2
    assert float(differences[0]["difference"]) == 60.0 and float(differences[0]["p_holm"]) < 0.001
    kept = json.loads((out / "scores.json").read_text())
    assert [arm["name"] for arm in kept["arms"]] == ["untuned", "LoRA, rank 8", "real"] and len(kept["scores"]) == 8
    assert kept["arms"][1]["made_by"]["adapter"]["config"] == {"rank": 8}
    assert Scores.from_json({key: kept["arms"][1][key] for key in ("scores", "n_real", "n_fake", "extractor", "notices", "versions")})


def test_pictures_share_prompt_and_seed(folders, arms):
    grid = picture_grid(arms, ImageSet(folders / "real").records, 8)
    assert [head["seed"] for head in grid["heads"]] == [1, 2, 3]
    assert [row["name"] for row in grid["rows"]] == ["Real, held out", "untuned", "LoRA, rank 8"]
    real, untuned, tuned = (row["cells"] for row in grid["rows"])
    assert real[0]["alt"] == "real Nodule" and real[1]["alt"] == "real No Finding"
    assert real[2] is None and tuned[2] is None  # no real image of that finding; not drawn
    assert untuned[2] is not None and all(cell["url"].startswith("data:image/jpeg") for cell in untuned)


@pytest.mark.parametrize("value, half, text", [
    (41.234, 3.1, "41.2"), (41.234, 31, "41"), (0.00123, 0.0004, "0.00123"), (0.5, None, "0.500"), (1234.5, None, "1234"),
    (0, None, "0"), (1.5e-7, None, "1.50e−07"), (-0.0123, 0.01, "−0.012")])
def test_figures_have_the_decimals_that_mean_something(value, half, text):
    assert figure(value, half) == text


def test_reports_that_cannot_be_told_apart_are_refused(tmp_path):
    with pytest.raises(DataError, match="at least one arm"):
        write_report(tmp_path, [], [])
    with pytest.raises(DataError, match="'a'"):
        write_report(tmp_path, [Arm("a", scores(1.0)), Arm("a", scores(2.0))], [])


def test_scores_alone_make_a_page(tmp_path):
    page = write_report(tmp_path, [Arm("alone", scores(12.0))], [])
    assert not Links(page.read_text(encoding="utf-8")).open


def test_losses_are_read_in_order_without_a_torn_line(folders, tmp_path):
    assert read_losses(folders / "losses.jsonl")[:2] == [0.1, 0.05] and len(read_losses(folders / "losses.jsonl")) == 50
    (tmp_path / "bad.jsonl").write_text('{"step": 1}\n{"step": 2, "loss": 0.1}\n')
    with pytest.raises(DataError, match="line 1"):
        read_losses(tmp_path / "bad.jsonl")


HOSTILE = "<img src=x onerror=alert(1)>"


def audit(folders):
    """What an audit says of two pairs, of which one picture is no longer there."""
    pictures = [folders / "tuned" / "00000.png", folders / "real" / "00000.png"]
    pairs = [Pair(*pictures, "correlation", 0.99, (2, 3), shift=(2, -3), copy=True),
             Pair(pictures[0], folders / f"gone {HOSTILE}.png", "correlation", 0.4, (2, 3))]
    figures = (PrivacyFigure("copies", "Copies of training images", "how many", 0.5, 0.1, 0.9, 0.001, {"fake": 2}),
               PrivacyFigure("ratio", "Nearest ratio", f"how near {HOSTILE}", reason="2 held-out images; at least 8 are needed"))
    near = (replace(pairs[0], measure="distance", value=3.25, held_out_distance=4.5, copy=False),)
    return Privacy(figures, near, tuple(pairs), ({"copy": True}, {"copy": False}), Threshold(0.8765, 0.001, 40, "by Gumbel"),
                   {"train": 3, "held_out": 3, "fake": 2}, {"title": "Thumbnails", "id": "thumbnail-32"}, {"false_alarms": 0.001},
                   notices=("few images",)).to_json()


def study():
    """Curves and differences of trials with known answers; a label that no test image has."""
    truth = np.eye(3)[np.random.default_rng(0).integers(0, 2, 60)]
    facts = {"n_real": 10, "n_synthetic": 0, "patients": 5}
    trials = []
    cells = ((REAL, 0.2, 0.1), (REAL, 1.0, 1.0), (SYNTHETIC, 0.7, 0.0), (MIXED, 3.0, 0.1), (MIXED, 3.0, 1.0))
    for protocol, strength, fraction in cells:
        for seed in range(2):
            logits = strength * truth + np.random.default_rng([seed, len(protocol)]).normal(size=truth.shape)
            answers = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
            trials.append(Trial(Cell(protocol, "", "all" if protocol == MIXED else "", fraction, seed), answers,
                                dict.fromkeys("ABC", 0.4), {}, facts))
    contest = Contest(trials, truth, [f"patient {i}" for i in range(60)], ("A", "B", "C"), "multi", 200)
    counts = {"n_test": 60, "test_patients": 60, "n_real": 10, "real_patients": 5, "n_validation": 4, "n_synthetic": {"": 0},
              "test_positives": {}}
    return Downstream(("A", "B", "C"), "multi", tuple(contest.contenders), (0.1, 1.0), tuple({"seed": seed} for seed in range(2)),
                      tuple(contest.curves()), tuple(contest.pairs()), (), counts, {"study": {"seeds": 2}}, (f"notice {HOSTILE}",))


@pytest.fixture(scope="module")
def full(folders, arms, tmp_path_factory):
    out = tmp_path_factory.mktemp("full")
    audited = [arms[0], replace(arms[1], privacy=audit(folders)), arms[2]]
    page = write_report(out, audited, ImageSet(folders / "real").records, downstream=study())
    return page.read_text(encoding="utf-8"), out


def test_pairs_and_figures_of_privacy_are_shown(full, written):
    page, out = full
    for text in ("1 of 2 generated images are copies of training images", "correlation of 0.876", "Copies of training images",
                 "2 held-out images; at least 8 are needed", "shifted by 2 down, -3 right", ">copy</span>", "not there",
                 "distance 3.25",
                 "to the nearest held-out image 4.50", "<li>few images</li>", "generated 00000.png"):
        assert text in page, text
    assert not Links(page).open and HOSTILE not in page
    assert "Most alike in pixels" not in written[0]  # nothing of it where nobody looked
    assert json.loads((out / "scores.json").read_text())["arms"][1]["privacy"]["threshold"]["value"] == 0.8765


def test_curves_and_differences_of_classifiers_are_shown(full, written):
    page, out = full
    result = study()
    figures = re.findall(r"<svg.*?</svg>", page.partition('id="downstream"')[2].partition('id="privacy"')[0], re.S)
    plots = [svg for svg in figures if 'class="plot' in svg]
    shown = {(curve["label"], curve["figure"]) for curve in result.curves
             if any(point["value"] is not None for point in curve["points"])}
    assert len(plots) == len(shown) and all("real patients to learn from" in svg for svg in plots)
    assert page.count("of the 60 test images none has C") >= 1  # why a point is missing
    first = next(pair for pair in result.pairs if pair["label"] == MACRO)
    assert f"{first['first']} less {first['second']}" in page
    assert "notice &lt;img" in page and "Downstream classification" not in written[0]
    assert Downstream.from_json(json.loads((out / "scores.json").read_text())["downstream"]).contenders == result.contenders


def test_the_paragraphs_are_in_page_json_and_latex(full):
    page, out = full
    kept = json.loads((out / "scores.json").read_text())
    latex = (out / "tables.tex").read_text(encoding="utf-8")
    assert "LoRA, rank 8: method lora (rank 8)" in " ".join(kept["methods"]) and "Holm" in " ".join(kept["methods"])
    for text in [*kept["methods"], *kept["limits"]]:
        assert escape(text, quote=False).replace("'", "&#39;").replace('"', "&#34;") in page, text
        assert in_latex(text) in latex
    assert "LoRA, rank 8 & \\textbf{40.0}\\textsuperscript{1}" in latex


def test_the_same_scores_make_the_same_report(full, folders, arms, tmp_path):
    audited = [arms[0], replace(arms[1], privacy=audit(folders)), arms[2]]
    again = write_report(tmp_path, audited, ImageSet(folders / "real").records, downstream=study())
    for name in ("report.html", "scores.json", "scores.csv", "differences.csv", "tables.tex"):
        texts = [re.sub(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d", "", (folder / name).read_text(encoding="utf-8"))
                 for folder in (full[1], tmp_path)]
        assert texts[0] == texts[1], name
    assert again.name == "report.html"


def test_metrics_without_any_figure_are_named_below_the_table(tmp_path):
    page = write_report(tmp_path, [Arm("alone", scores(12.0))], []).read_text(encoding="utf-8")
    assert "<b>Vendi score</b> cannot be had: 3 generated images; at least 8 are needed" in page


def test_plots_show_what_the_table_says(written):
    page, _ = written
    overview = page.partition('id="overview"')[2].partition("</section>")[0]
    assert "LoRA, rank 8, Fréchet distance: 40.0 (35.0 to 45.0)" in overview
    assert overview.count('class="swatch"') == 3


def test_audits_are_read_or_refused(tmp_path, folders):
    (tmp_path / "privacy.json").write_text(json.dumps(audit(folders)))
    assert read_privacy(tmp_path / "privacy.json")["n"]["fake"] == 2
    (tmp_path / "other.json").write_text('{"figures": []}')
    with pytest.raises(DataError, match="lacks nearest"):
        read_privacy(tmp_path / "other.json")
    with pytest.raises(DataError, match=r"nowhere\.json"):
        read_privacy(tmp_path / "nowhere.json")
