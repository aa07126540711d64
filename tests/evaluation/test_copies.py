"""Copies: planted ones are found, phantoms of other patients are not taken for them, and leaks between sets are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from medtune.data.image import read_image, save_image
from medtune.data.phantom import write_phantoms
from medtune.data.record import Record
from medtune.errors import DataError
from medtune.evaluation.privacy.copies import CopyOptions, find_matches, null_correlations, thumbnails
from medtune.evaluation.privacy.leaks import check_leaks, find_leaks
from medtune.evaluation.privacy.texture import shifted_correlation, texture, unit
from medtune.evaluation.privacy.threshold import FEWEST, HIGHEST, LOWEST, WITHOUT, choose_threshold
from PIL import Image

SHIFTS = ((4, 4), (-4, 4), (4, -4), (-4, -4), (0, 3), (-1, 0), (1, 2), (-2, -3))


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """64 radiographs of 32 patients: the first half to train on, the others held out."""
    records = write_phantoms(tmp_path_factory.mktemp("radiographs"), 64, seed=11).records
    return records[:32], records[32:]


@pytest.fixture(scope="module")
def sets(radiographs, tmp_path_factory):
    """Thumbnails of both, and where they are kept."""
    cache = tmp_path_factory.mktemp("cache")
    return (*(thumbnails(records, cache=cache) for records in radiographs), cache)


@pytest.fixture(scope="module")
def threshold(sets):
    """That of held-out images against the training images, at one in a thousand."""
    return choose_threshold(null_correlations(sets[1], sets[0]), CopyOptions().false_alarms)


def shifted(image, number):
    """The image moved by up to 4 pixels, black where nothing came in."""
    down, right = SHIFTS[number % len(SHIFTS)]
    return torch.nn.functional.pad(image, (8, 8, 8, 8))[:, 8 - down:520 - down, 8 - right:520 - right]


CHANGES = {
    "exact": lambda image, number: image,
    "shifted": shifted,
    "gain": lambda image, number: image * (0.9, 1.1)[number % 2],
    "gain and offset": lambda image, number: image * (0.9, 1.1)[number % 2] + (0.08, -0.04)[number % 2],
    "all": lambda image, number: shifted(image, number) * (1.1, 0.9)[number % 2] + 0.03,
}


def plant(records, folder, change, quality=None):
    """Copies of images, changed, in other files."""
    made = []
    for number, record in enumerate(records):
        image = change(read_image(record.image), number).clamp(0, 1)
        path = folder / f"{number}.{'jpg' if quality else 'png'}"
        if quality:
            folder.mkdir(exist_ok=True)
            Image.fromarray((image[0] * 255).round().byte().numpy()).save(path, quality=quality)
        else:
            save_image(image, path)
        made.append(Record(path, "x"))
    return made


@pytest.mark.parametrize(("kind", "quality"), [*((kind, None) for kind in CHANGES), ("exact", 40), ("all", 75)])
def test_planted_copies_are_found(radiographs, sets, threshold, tmp_path, kind, quality):  # noqa: PLR0917
    """Exact copies without exception, changed ones in 95 of 100 cases at least, each with its original."""
    originals = list(range(0, 32, 2))
    planted = thumbnails(plant([radiographs[0][i] for i in originals], tmp_path / "planted", CHANGES[kind], quality))
    matches = find_matches(planted, sets[0])
    found = [match.other == original and match.correlation >= threshold.value for match, original in zip(matches, originals)]
    assert np.mean(found) == 1 if kind == "exact" else np.mean(found) >= 0.95


def test_the_shift_is_told(radiographs, sets, tmp_path):
    matches = find_matches(thumbnails(plant(radiographs[0][:4], tmp_path, shifted)), sets[0])
    assert [match.shift for match in matches] == [(4, 4), (-4, 4), (4, -4), (-4, -4)]


def test_other_patients_are_not_taken_for_copies(sets, threshold, record_property):
    """The threshold comes from the held-out images; training images of other patients, which it does not know, seldom reach it."""
    held_out, train = (null_correlations(images, sets[0]) for images in (sets[1], sets[0]))
    alarms = np.mean(np.array([*held_out, *train]) >= threshold.value)
    record_property("measured", {"false alarms": float(alarms), "threshold": float(threshold.value),
                                 "largest": float(max(*held_out, *train))})
    assert len(train) == 32 and alarms < 0.01
    assert 0.7 < threshold.value < 0.95 and threshold.n == 32 and "Gumbel" in threshold.how


def test_mirrored_copies_are_found_on_request(radiographs, sets, tmp_path):
    mirrored = thumbnails(plant(radiographs[0][:4], tmp_path, lambda image, number: image.flip(-1)))
    plain = find_matches(mirrored, sets[0])
    turned = find_matches(mirrored, sets[0], CopyOptions(mirrored=True))
    assert max(match.correlation for match in plain) < 0.9
    assert [(match.other, match.mirrored) for match in turned] == [(index, True) for index in range(4)]
    assert min(match.correlation for match in turned) > 0.99


def test_the_same_file_is_a_copy_without_a_look(sets):
    matches = find_matches(sets[0].pick([5, 7]), sets[0])
    assert [(match.other, match.correlation, match.same_file) for match in matches] == [(5, 1.0, True), (7, 1.0, True)]


def test_apart_leaves_out_the_own_patient(sets):
    matches = find_matches(sets[0].pick([0, 1]), sets[0], apart=True)
    assert all(match.other > 1 for match in matches)
    lone = sets[0].pick([0, 1])
    assert find_matches(lone, lone, apart=True) == [None, None]


def test_an_image_without_texture_is_nobodys_copy(sets, tmp_path):
    save_image(torch.full((3, 64, 64), 0.5), tmp_path / "grey.png")
    match, = find_matches(thumbnails([Record(tmp_path / "grey.png", "")]), sets[0])
    assert match.correlation == 0


def test_correlation_over_shifts_is_numpys():
    """Against numpy's own coefficient of the two windows, shift by shift."""
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 48, 48)).astype(np.float32)
    second[5:40, 4:39] = 0.5 * first[3:38, 5:40] + 0.2 * second[5:40, 4:39]
    margin, size = 3 + 2, 38
    inner = first[margin:margin + size, margin:margin + size].ravel()
    values = {}
    for down, right in ((down, right) for down in range(-2, 3) for right in range(-2, 3)):
        top, left = margin - down, margin - right
        values[down, right] = np.corrcoef(inner, second[top:top + size, left:left + size].ravel())[0, 1]
    best = max(values, key=values.get)
    value, shift = shifted_correlation(first, second, 2)
    assert best == (-2, 1) and shift == best and value == pytest.approx(values[best], abs=1e-6)


def test_textures_are_scipys():
    from scipy.ndimage import gaussian_filter

    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    grey = image[0].mean(0).reshape(32, 2, 32, 2).mean((1, 3)).numpy().astype(np.float64)
    expected = gaussian_filter(grey, 1, mode="nearest", truncate=3) - gaussian_filter(grey, 2.5, mode="nearest", radius=8)
    assert np.allclose(texture(image, 32, 1.0, 2.5)[0].numpy(), expected, atol=1e-5)
    assert unit(torch.zeros(1, 4, 4)).eq(0).all()


def test_the_threshold_keeps_its_promise():
    """Best of many normal correlations: other such draws pass the threshold about as often as it says, and seldomer, not more often,
    where there are copies among those that it is set by."""
    rng = np.random.default_rng(0)
    null, other = (np.tanh(0.15 * rng.standard_normal((count, 500)).max(1)) for count in (500, 20_000))
    for sample, least in ((null, 0.003), (np.concatenate([null, np.full(50, 0.999)]), 0.0001)):
        threshold = choose_threshold(sample, 0.01)
        assert least < np.mean(other >= threshold.value) < 0.02
        assert threshold.false_alarms == pytest.approx(0.01) and LOWEST < threshold.value < 0.7
    assert choose_threshold(null, 0.001).value > choose_threshold(null, 0.01).value


def test_thresholds_stay_within_bounds():
    rng = np.random.default_rng(0)
    low, high = (choose_threshold(np.tanh(centre + width * rng.gumbel(size=100)), 0.001)
                 for centre, width in ((0.05, 0.03), (2.4, 0.1)))
    assert (low.value, high.value) == (LOWEST, HIGHEST)
    assert low.false_alarms < 0.001 < high.false_alarms
    few = choose_threshold([0.1] * (FEWEST - 1), 0.001)
    assert (few.value, few.false_alarms) == (WITHOUT, None) and "fewer than" in few.how


def test_sets_that_share_nothing_pass(radiographs, sets):
    check_leaks(*radiographs, cache=sets[2])
    assert not find_leaks(*radiographs, pictures=False)


def test_a_leaked_patient_is_refused(radiographs):
    train, test = radiographs
    test = [dataclasses.replace(test[0], patient=train[0].patient), dataclasses.replace(test[1], patient=train[0].patient), *test[2:]]
    with pytest.raises(DataError, match=rf"training and the test set share 1 patients with 2 images .*{train[0].patient}"):
        check_leaks(train, test, pictures=False)


def test_a_leaked_file_is_refused(radiographs):
    train, test = radiographs
    with pytest.raises(DataError, match=r"share 1 files .*000003\.png"):
        check_leaks(train, [*test, dataclasses.replace(train[3], patient="another")], pictures=False)


def test_re_encoded_images_are_refused_with_their_count(radiographs, sets, tmp_path):
    train, test = radiographs
    again = plant(train[:3], tmp_path / "again", CHANGES["gain"], 60)
    with pytest.raises(DataError, match=r"share 3 images that were saved anew .*0\.jpg is .*000000\.png"):
        check_leaks(train, [*test, *again], cache=sets[2])
    leaks = find_leaks(train[:30], again, cache=sets[2])  # too few for a threshold of their own
    assert [other for _, other in leaks.again] == [record.image for record in train[:3]] and leaks.threshold.value == WITHOUT


def test_when_all_is_leaked_all_is_found(radiographs, sets, tmp_path):
    again = plant(radiographs[0][:24], tmp_path / "again", CHANGES["exact"], 60)
    assert len(find_leaks(radiographs[0], again, cache=sets[2]).again) == 24
