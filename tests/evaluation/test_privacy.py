"""Privacy figures: against references and closed forms, what they mean over planted copies, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.image import hash_image
from medtune.data.image_set import ImageSet
from medtune.data.record import Record
from medtune.errors import ConfigError, DataError
from medtune.evaluation.extractor import make_extractor
from medtune.evaluation.features import Features
from medtune.evaluation.privacy.audit import PrivacyOptions, audit
from medtune.evaluation.privacy.figure import chance_below, quantile_of
from medtune.evaluation.privacy.membership import Membership, membership_figures
from medtune.evaluation.privacy.nearness import authenticity_figure, nearer_figure, ratio_figure, tail_figure
from medtune.evaluation.privacy.neighbours import NeighbourOptions, find_neighbours, nearest, prepared

OPTIONS = NeighbourOptions(repeats=200)


def features(count, seed, dimensions=6, name="image"):
    values = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    records = tuple(Record(Path(f"{name}{seed}-{index}.png"), "x", patient=f"{seed}-{index // 2}") for index in range(count))
    return Features(values, records, hashes=tuple(f"{seed}-{index}" for index in range(count)))


def figures(train, held_out, fake, options=OPTIONS):
    """The four figures of nearness by name."""
    found = find_neighbours(train, held_out, fake, options)
    made = (ratio_figure(found, fake.units(), (len(train), len(held_out)), options),
            tail_figure(found, held_out.units(), fake.units(), len(train), options),
            nearer_figure(found, held_out.units(), fake.units(), len(train), options),
            authenticity_figure(found, train, held_out.units(), fake.units(), options))
    return {figure.name: figure for figure in made}


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_neighbours_are_scikit_learns(distance):
    from sklearn.neighbors import NearestNeighbors

    train, fake = features(700, 0).values, features(600, 1).values
    fake[3] = 2 * train[5]
    found = nearest(prepared(fake, distance), prepared(train, distance))
    distances, places = NearestNeighbors(n_neighbors=1, metric=distance, algorithm="brute").fit(train.astype(float)).kneighbors(fake)
    assert (found.places == places[:, 0]).all()
    mine = found.distances if distance == "euclidean" else found.distances**2 / 2
    assert np.allclose(mine, distances[:, 0], atol=1e-6)
    among = nearest(train.astype(float), train.astype(float), apart=True)
    second = NearestNeighbors(n_neighbors=2).fit(train).kneighbors(train)[0][:, 1]
    assert np.allclose(among.distances, second, atol=1e-5)


def test_figures_are_their_definitions():
    from scipy.spatial.distance import cdist
    from scipy.stats import mannwhitneyu

    train, held_out, fake = features(60, 0), features(60, 1), features(40, 2)
    made = figures(train, held_out, fake)
    to_train, to_held = (cdist(fake.values, other.values).min(1) for other in (train, held_out))
    between = cdist(held_out.values, train.values).min(1)
    assert made["nearest_ratio"].value == pytest.approx(np.median(to_train / to_held), rel=1e-6)
    limit = np.quantile(between, 0.05, method="inverted_cdf")
    assert made["near_training"].value == pytest.approx(np.mean(to_train < limit))
    u = mannwhitneyu(between, to_train).statistic
    assert made["nearer_than_held_out"].value == pytest.approx(u / (60 * 40))
    own = cdist(train.values, train.values)
    np.fill_diagonal(own, np.inf)
    own = own.min(1)
    for distances, value in ((cdist(fake.values, train.values), made["authentic"].value),
                             (cdist(held_out.values, train.values), made["authentic"].expected)):
        assert value == pytest.approx(np.mean(distances.min(1) > own[distances.argmin(1)]))


def test_a_generator_like_new_patients_gets_what_is_expected():
    made = figures(features(300, 0), features(300, 1), features(300, 2), NeighbourOptions())
    for figure in made.values():
        assert figure.low <= figure.expected <= figure.high, figure
        assert figure.high - figure.low < 0.2 and figure.low < figure.value < figure.high


def test_copies_move_each_figure_the_more_the_more_there_are():
    train, held_out, fresh = features(200, 0), features(200, 1), features(100, 2)
    seen = []
    for copied in (0, 20, 40, 60, 80, 100):
        values = fresh.values.copy()
        values[:copied] = train.values[:copied] + 0.02 * fresh.values[:copied]
        made = figures(train, held_out, dataclasses.replace(fresh, values=values))
        seen.append([made[name].value for name in ("nearest_ratio", "near_training", "nearer_than_held_out", "authentic")])
    ratio, near, nearer, authentic = np.array(seen).T
    assert (np.diff(ratio) <= 0).all() and ratio[0] > 0.9 and ratio[-1] < 0.1
    assert (np.diff(near) > 0.1).all() and near[-1] == 1
    assert (np.diff(nearer) > 0).all() and nearer[-1] == 1
    assert (np.diff(authentic) < 0).all() and authentic[-1] == 0


def test_the_ratio_is_of_equally_many_and_says_so():
    """Twice as many training images lie nearer to anything: not so among equally many."""
    train, held_out, fake = features(400, 0), features(100, 1), features(200, 2)
    figure = figures(train, held_out, fake)["nearest_ratio"]
    assert (figure.n["train"], figure.n["held_out"], figure.n["train_given"]) == (100, 100, 400)
    assert figure.value == pytest.approx(1, abs=0.06)
    found = find_neighbours(train, held_out, fake)
    assert np.median(found.to_train.distances / found.to_held.distances) < 0.9
    again = find_neighbours(train, held_out, fake)
    assert (again.to_part.places == found.to_part.places).all() and len(set(found.to_part.places)) <= 100
    assert (train.values[found.to_part.places] == train.values[again.to_part.places]).all()


def test_intervals_are_by_patient():
    """Images of few patients tell less than as many of as many patients."""
    train, held_out, fake = features(100, 0), features(100, 1), features(100, 2)
    few = dataclasses.replace(fake, records=tuple(dataclasses.replace(record, patient=str(index // 10))
                                                  for index, record in enumerate(fake.records)),
                              values=np.repeat(fake.values[::10], 10, axis=0))
    wide, narrow = (figures(train, held_out, one)["nearer_than_held_out"] for one in (few, fake))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_share_of_none_has_an_upper_bound():
    """The rule of three: no near image among 40 independent ones allows a share of up to some 0.09."""
    train, held_out = features(60, 0), features(60, 1)
    far = features(40, 2)
    far = dataclasses.replace(far, values=far.values + 50, records=())
    figure = figures(train, held_out, far)["near_training"]
    assert (figure.value, figure.low) == (0, 0) and figure.high == pytest.approx(1 - 0.025 ** (1 / 40))


def test_too_few_images_give_a_reason():
    made = figures(features(30, 0), features(19, 1), features(10, 2))
    assert made["near_training"].value is None and "19 held-out" in made["near_training"].reason
    assert made["nearest_ratio"].value is not None
    made = figures(features(30, 0), features(30, 1), features(7, 2))
    assert all(figure.value is None and figure.reason.startswith("7 generated") for figure in made.values())


def test_an_image_that_is_in_both_sets_has_no_ratio():
    train, held_out, fake = features(30, 0), features(30, 1), features(30, 2)
    fake.values[0] = train.values[0]
    held_out.values[0] = train.values[0]
    figure = figures(train, held_out, fake)["nearest_ratio"]
    assert figure.value is None and "1 generated images" in figure.reason


def test_weighted_figures_are_those_of_repeated_images():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 20).astype(float), rng.integers(0, 9, 30).astype(float)
    a, b = rng.integers(0, 4, (5, 20)).astype(float), rng.integers(0, 4, (5, 30)).astype(float)
    values, medians = chance_below(first, second)(a, b), quantile_of(second, 0.5)(a, b)
    for row in range(5):
        x, y = np.repeat(first, a[row].astype(int)), np.repeat(second, b[row].astype(int))
        assert values[row] == pytest.approx(np.mean((y[None] < x[:, None]) + 0.5 * (y[None] == x[:, None])))
        assert medians[row] == np.quantile(y, 0.5, method="inverted_cdf")


# -- membership


def losses(trained, held_out, base=1.0):
    rows = [{"image": f"{split}{index}", "patient": f"{split}{index // 2}", "split": split, "loss": float(loss), "base_loss": base}
            for split, values in (("train", trained), ("held-out", held_out)) for index, loss in enumerate(values)]
    return {"images": rows, "adapters": [{"file": "lora"}]}


def test_membership_is_scikit_learns():
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(0)
    trained, held_out = rng.normal(0.8, 0.1, 150), rng.normal(1, 0.1, 120)
    found = Membership.from_json(losses(trained, held_out))
    auc, alone, told = membership_figures(found, repeats=300)
    truth, score = [1] * 150 + [0] * 120, -np.concatenate([trained, held_out])
    assert auc.value == pytest.approx(roc_auc_score(truth, score)) and auc.low < auc.value < auc.high
    assert alone.value == pytest.approx(auc.value)  # one base loss for all
    false, true, _ = roc_curve(truth, score)
    assert told.value == pytest.approx(true[false <= 0.01].max(), abs=0.01)


def test_the_base_loss_takes_an_images_difficulty_off():
    """Losses that differ by image much more than by membership hide it, unless the base's loss is taken off."""
    rng = np.random.default_rng(0)
    hard = rng.normal(1, 0.5, 200)
    raw = losses([*hard[:100] - 0.02], [*hard[100:]])
    for row, base in zip(raw["images"], hard):
        row["base_loss"] = float(base + rng.normal(0, 0.01))
    auc, alone, _ = membership_figures(Membership.from_json(raw), repeats=200)
    assert auc.value > 0.85 and auc.low > 0.5
    assert alone.low < 0.5 < alone.high


def test_membership_of_nothing_is_a_half():
    rng = np.random.default_rng(1)
    auc, _, told = membership_figures(Membership.from_json(losses(rng.normal(size=90), rng.normal(size=90))), repeats=500)
    assert auc.low < 0.5 < auc.high and "90 held-out losses; at least 100" in told.reason
    few = membership_figures(Membership.from_json(losses([1] * 7, [1] * 20)))
    assert all("7 training and 20 held-out" in figure.reason for figure in few)


@pytest.mark.parametrize("change, words", [
    (lambda value: value.pop("images"), "no losses of images"),
    (lambda value: value["images"][0].pop("loss"), "no losses of images"),
    (lambda value: value["images"][0].update(split="val"), "splits val"),
    (lambda value: value["images"][0].update(base_loss=float("nan")), "1 of 20 images are not finite")])
def test_losses_that_are_none_are_refused(change, words):
    value = losses([1] * 10, [1] * 10)
    change(value)
    with pytest.raises(DataError, match=words):
        Membership.from_json(value)


def test_a_file_without_losses_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json"):
        Membership.read(tmp_path / "nowhere.json")


# -- all of it


def draw(folder, count, seed, copies=()):
    """Noise of some coarseness, each image another; then copies of images."""
    image_set, generator = ImageSet(folder), torch.Generator().manual_seed(seed)
    for index in range(count):
        coarse = torch.rand((1, 1, 24, 24), generator=generator)
        image = torch.nn.functional.interpolate(coarse, (96, 96), mode="bicubic").clamp(0, 1)[0].expand(3, -1, -1)
        image_set.append(image, "noise", patient=f"{seed}-{index // 2}" if not copies else None, seed=index if copies else None)
    for index, image in enumerate(copies):
        image_set.append(image, "noise", seed=count + index)
    return image_set.records


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    from medtune.data.image import read_image

    folder = tmp_path_factory.mktemp("sets")
    train, held_out = draw(folder / "train", 24, 1), draw(folder / "held_out", 22, 2)
    copies = [read_image(record.image, fit="none") * 0.9 for record in train[:3]]
    return train, held_out, draw(folder / "fake", 17, 3, copies), folder


@pytest.fixture(scope="module")
def audited(sets):
    return audit(*sets[:3], make_extractor("thumbnail"), PrivacyOptions(repeats=200, pairs=5), cache=sets[3] / "cache")


def test_planted_copies_lead_the_pairs(sets, audited):
    train, _, fake, _ = sets
    planted = {(fake[17 + index].image, train[index].image) for index in range(3)}
    for pairs, copies in ((audited.alike, [True, True, True, False, False]), (audited.nearest, [False] * 5)):
        assert {(pair.fake, pair.train) for pair in pairs[:3]} == planted and len(pairs) == 5
        assert [pair.copy for pair in pairs] == copies and all(pair.n == (20, 24) for pair in pairs)
    values = [pair.value for pair in audited.alike]
    assert values == sorted(values, reverse=True) and values[2] > 0.99 > audited.threshold.value > values[3]
    assert [row["copy"] for row in audited.images] == [False] * 17 + [True] * 3
    copies = audited.find("copies")
    assert copies.value == pytest.approx(3 / 20) and copies.n["copies"] == 3 and copies.low < 0.15 < copies.high


def test_it_is_json(audited):
    kept = json.loads(json.dumps(audited.to_json(), allow_nan=False))
    assert [figure["name"] for figure in kept["figures"]] == ["nearest_ratio", "near_training", "nearer_than_held_out", "authentic",
                                                             "copies"]
    assert kept["n"] == {"train": 24, "held_out": 22, "fake": 20} and len(kept["images"]) == 20
    assert kept["images"][17]["correlation"] > 0.99 and kept["extractor"]["name"] == "thumbnail"
    assert any("among 22 of each" in notice for notice in kept["notices"])


def test_it_is_the_same_each_time(sets, audited):
    again = audit(*sets[:3], make_extractor("thumbnail"), PrivacyOptions(repeats=200, pairs=5), cache=sets[3] / "cache")
    assert again == audited


def test_membership_belongs_to_the_same_images(sets):
    train, held_out, fake, folder = sets
    rows = [{"image": hash_image(record.image), "patient": record.patient, "split": split, "loss": 1.0, "base_loss": 1.0}
            for split, records in (("train", train), ("held-out", held_out)) for record in records]
    options, extractor = PrivacyOptions(repeats=100), make_extractor("thumbnail")
    found = audit(*sets[:3], extractor, options, membership=Membership.from_json({"images": rows, "notices": ["said"]}),
                  cache=folder / "cache")
    assert found.find("membership_auc").value == 0.5 and "said" in found.notices
    rows[0]["image"] = "another"
    with pytest.raises(DataError, match="1 of 24 losses of train images are of none of the 24 train images given"):
        audit(train, held_out, fake, extractor, options, membership=Membership.from_json({"images": rows}), cache=folder / "cache")


def test_sets_that_cannot_be_compared_are_refused(sets):
    train, held_out, fake, folder = sets
    extractor = make_extractor("thumbnail")
    with pytest.raises(DataError, match="no images in: held_out"):
        audit(train, [], fake, extractor)
    with pytest.raises(DataError, match="the training and the held-out set share 1 patients with 2 images"):
        audit(train, [*held_out, *train[:2]], fake, extractor)
    again = [dataclasses.replace(fake[17], patient="another")]
    with pytest.raises(DataError, match="share 1 images that were saved anew"):
        audit(train, [*held_out, *again], fake, extractor, cache=folder / "cache")
    with pytest.raises(ConfigError, match="false_alarms is 0"):
        audit(train, held_out, fake, extractor, PrivacyOptions(false_alarms=0.0))
