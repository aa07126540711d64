"""Evaluation from records to scores, by every metric, as a whole and by class."""

from __future__ import annotations

import json

import pytest
import torch
from medtune.data.image_set import ImageSet
from medtune.errors import ConfigError, DataError, Missing, UnknownName
from medtune.evaluation.classifiers.in_domain import ClassifierOptions
from medtune.evaluation.extractor import EXTRACTORS, Extractor, ExtractorFacts, Labeller, make_extractor
from medtune.evaluation.macro import MACRO
from medtune.evaluation.metric import Metric, MetricFacts, make_metric
from medtune.evaluation.run import Scores, evaluate
from medtune.evaluation.selection import STANDARD


class Means(Extractor):
    """Mean grey of the image's quarters."""

    name, facts, Config, id = "means", ExtractorFacts("Means", "greys", "none", "nothing"), None, "means-1"
    learned = frozenset()

    @classmethod
    def prepare(cls, config, records, folder=None, on_progress=None):
        return cls()

    def features(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.mean(1), 2).flatten(1)

    def seen(self):
        return self.learned


def draw(folder, count, shift=0.0, seed=0, labels=("A", "B")):
    image_set, generator = ImageSet(folder), torch.Generator().manual_seed(seed)
    for index in range(count):
        quarters = torch.rand((1, 1, 2, 2), generator=generator) * 0.4 + 0.3 + shift
        image = torch.nn.functional.interpolate(quarters, (32, 32))[0].expand(3, -1, -1)
        image_set.append(image, "x", (labels[index % len(labels)],), patient=f"{seed}-{index // 2}")
    return image_set.records


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return draw(folder / "real", 40), draw(folder / "good", 40, seed=1), draw(folder / "dark", 40, -0.2, seed=2)


def test_every_metric_by_default(sets, tmp_path):
    real, good, dark = sets
    calls = []
    scores = evaluate(real, good, Means(), cache=tmp_path, on_progress=lambda *call: calls.append(call))
    assert [score.metric for score in scores.scores] == list(STANDARD)
    assert calls[-1] == (80, 80) and [done for done, _ in calls] == sorted(done for done, _ in calls)
    worse = evaluate(real, dark, Means(), ["frechet"])
    assert worse.find("frechet").value > 5 * scores.find("frechet").value
    assert worse.find("kid") is None and worse.find("frechet").extractor == "means-1"


def test_metrics_take_options(sets):
    score = evaluate(sets[0], sets[1], Means(), [make_metric("kid", least=41)]).find("kid")
    assert score.value is None and "at least 41" in score.reason


def test_by_class_with_reasons(sets, tmp_path):
    real, *_ = sets
    fake = draw(tmp_path / "fake", 24, labels=("A", "A", "C"))
    scores = evaluate(real, fake, Means(), ["frechet"], per_class=True)
    assert (scores.find("frechet", "A").n_real, scores.find("frechet", "A").n_fake) == (20, 16)
    assert scores.find("frechet", "A").value is not None
    assert scores.find("frechet", "B").reason.startswith("0 generated images")
    assert scores.find("frechet", "C").reason.startswith("0 real images")
    assert scores.find("frechet").label is None


def test_the_mean_over_labels(sets, tmp_path):
    """Each label counts the same, however many images it has; with its own interval."""
    real, good, _ = sets
    scores = evaluate(real, good, Means(), ["frechet"], per_class=True)
    macro = scores.find("frechet", MACRO)
    assert macro.value == pytest.approx((scores.find("frechet", "A").value + scores.find("frechet", "B").value) / 2)
    assert macro.low < macro.value < macro.high
    lacking = evaluate(real, draw(tmp_path / "fake", 24, labels=("A", "A", "A", "B")), Means(), ["frechet"], per_class=True)
    assert lacking.find("frechet", MACRO).value is None
    assert lacking.find("frechet", MACRO).reason == "B: 6 generated images; at least 8 are needed"


def test_equal_numbers(sets, tmp_path):
    real, *_ = sets
    few = draw(tmp_path / "few", 24, labels=("A", "A", "B"))
    scores = evaluate(real, few, Means(), ["kid"], per_class=True, equal=True)
    assert (scores.n_real, scores.n_fake) == (24, 24) and not any("unequal" in notice for notice in scores.notices)
    assert [(one.n_real, one.n_fake) for one in scores.scores[:3]] == [(24, 24), (16, 16), (8, 8)]
    again = evaluate(real, few, Means(), ["kid"], per_class=True, equal=True)
    assert again.scores == scores.scores


class Words(Means):
    """Means that reads text: the number of letters, four times."""

    name, id, reads_text = "words", "words-1", True

    def text_features(self, captions):
        Words.asked += list(captions)
        return torch.tensor([[float(len(caption))] * 4 for caption in captions])


class Tells(Labeller):
    """The probability of each finding is the mean grey."""

    name, facts, Config, id, labels = "tells", Means.facts, None, "tells-1", ("A", "B")

    @classmethod
    def prepare(cls, config, records, folder=None, on_progress=None):
        return cls()

    def features(self, images):
        return images.mean((1, 2, 3))[:, None].expand(-1, 2)


class Looking(Metric):
    """A metric that keeps what it was given first."""

    name, given = "looking", None

    def __init__(self, space):
        super().__init__()
        Looking.given = None
        self.facts = MetricFacts("Looking", "lower", "nothing", "none", space=space)

    def figure(self, real, fake):
        Looking.given = Looking.given or fake
        return 0.0


def test_metrics_find_their_space(sets, tmp_path):
    real, good, _ = sets
    Words.asked = []
    kept = {"cache": tmp_path}
    score = evaluate(real, good, Means(), [Looking("captions")], captions=Words(), **kept).scores[0]
    assert score.value == 0.0 and score.extractor == "words-1"
    assert Looking.given.texts.shape == (40, 4) and (Looking.given.texts == 1).all() and Words.asked == ["x"]  # each caption once
    evaluate(real, good, Words(), [Looking("captions")], **kept)  # the chosen one reads text: it serves
    assert Words.asked == ["x"]  # found in the cache
    short = Words()
    short.exceeds = lambda captions: [True] * len(captions)
    for _ in range(2):  # the second time from the cache
        said = evaluate(real, good, Means(), [Looking("captions")], captions=short, **kept).notices
        assert "1 of 1 captions are longer than what words reads: their ends are cut" in said
    score = evaluate(real, good, Means(), [Looking("labels")], labels=Tells()).scores[0]
    assert score.extractor == "tells-1" and Looking.given.values.shape == (40, 2)
    doubtful = Tells()
    doubtful.limits = lambda: ("tells at random",)
    assert "tells at random" in evaluate(real, good, Means(), [Looking("labels")], labels=doubtful).notices


@pytest.mark.parametrize("space, said", [("captions", "no image-text model"), ("labels", "tells no findings")])
def test_a_space_that_there_is_not_is_a_reason(sets, space, said):
    score = evaluate(sets[0], sets[1], Means(), [Looking(space)]).scores[0]
    assert score.value is None and said in score.reason and (score.n_real, score.n_fake) == (40, 40)


def test_the_in_domain_network_tells_findings(sets, tmp_path):
    extractor = make_extractor("in-domain", sets[0], tmp_path, size=32, steps=2, batch=4)
    score = evaluate(sets[0], sets[1], extractor, [Looking("labels")]).scores[0]
    assert score.extractor == f"{extractor.id}-labels"
    values = Looking.given.values
    assert values.shape == (40, 2) and values.min() >= 0 and values.max() <= 1


def test_what_a_reader_must_be_told(sets, tmp_path):
    real, good, _ = sets
    assert any("few" in notice for notice in evaluate(real, good, Means(), []).notices)
    assert any("unequal" in notice for notice in evaluate(real, good[:30], Means(), []).notices)
    assert any("same files" in notice for notice in evaluate(real, real, Means(), []).notices)
    from medtune.data.image import hash_image

    doubtful = Means()
    doubtful.limits = lambda: ("learnt from 3 images",)
    assert "learnt from 3 images" in evaluate(real, good, doubtful, []).notices
    extractor = Means()
    extractor.learned = frozenset({hash_image(real[0].image), hash_image(real[1].image)})
    assert any("2 of 40 real images were used to train" in notice for notice in evaluate(real, good, extractor, []).notices)
    extractor.learned = frozenset({hash_image(good[0].image)})
    assert not any("used to train" in notice for notice in evaluate(real, good, extractor, []).notices)


def test_scores_survive_their_file(sets, tmp_path):
    scores = evaluate(sets[0], sets[1][:5], Means(), per_class=True)
    scores.write(tmp_path / "scores.json")
    assert Scores.read(tmp_path / "scores.json") == scores
    assert json.loads((tmp_path / "scores.json").read_text())["scores"][0]["value"] is None  # null and its reason, never left out
    (tmp_path / "other.json").write_text('{"scores": 3}')
    with pytest.raises(DataError, match="evaluate again"):
        Scores.read(tmp_path / "other.json")
    with pytest.raises(DataError, match=r"nowhere\.json"):
        Scores.read(tmp_path / "nowhere.json")


def test_unknown_names_list_what_there_is(sets):
    with pytest.raises(UnknownName, match="frechet"):
        evaluate(sets[0], sets[1], Means(), ["fid"])
    with pytest.raises(UnknownName, match="did you mean 'in-domain'"):
        make_extractor("in-domian")


def test_one_image_alone_gives_reasons(sets):
    scores = evaluate(sets[0][:1], sets[1][:1], Means())
    assert all(score.value is None and score.reason for score in scores.scores)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractors_keep_their_word(name, sets, tmp_path):
    """Facts, a JSON description, one id for one request, finite float32 rows that do not depend on the batch."""
    kind = EXTRACTORS[name]
    assert kind.name == name and all(vars(kind.facts).values())
    if kind.missing():
        with pytest.raises((Missing, ConfigError), match=r"[Pp]ut|give"):
            make_extractor(name, sets[0], tmp_path)
        return
    options = {"size": 32, "steps": 2, "batch": 4} if kind.Config is ClassifierOptions else {}
    extractor = make_extractor(name, sets[0], tmp_path, **options)
    assert make_extractor(name, sets[0], tmp_path, **options).id == extractor.id
    images = torch.rand((3, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    values = extractor.features(images)
    assert values.dtype == torch.float32 and values.shape[0] == 3 and values.isfinite().all()
    assert torch.allclose(extractor.features(images[1:2]), values[1:2], atol=1e-4)
    about = json.loads(json.dumps(extractor.about(), allow_nan=False))
    assert about["id"] == extractor.id and about["title"]


def test_the_in_domain_extractor_knows_what_it_learned_from(sets, tmp_path):
    from medtune.data.image import hash_image

    extractor = make_extractor("in-domain", sets[0], tmp_path, size=32, steps=2, batch=4)
    about = extractor.about()
    assert f"learnt from {about['n_train']} images" in extractor.limits()[0]
    assert about["n_train"] + about["n_held_out"] == 40 and set(about["auroc"]) == {"A", "B"}
    assert extractor.seen() < {hash_image(record.image) for record in sets[0]} and len(extractor.seen()) == about["n_train"]
