"""Inpainting: masks, and what the U-Net reads of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.image import read_image, read_mask
from medtune.data.record import Box, Record
from medtune.errors import ConfigError, DataError
from medtune.training.draws import generator
from medtune.training.inflate import inflate
from medtune.training.inpainting import cache_inputs, check_inpainting, condition, make_mask, variants
from medtune.training.mask_shapes import random_mask
from medtune.training.objective import MASK_SHAPES, ObjectiveOptions
from medtune.training.options import TrainOptions
from PIL import Image

RANDOM, GIVEN, LESION = (ObjectiveOptions(inpainting=kind, whole_share=0.0) for kind in ("random", "given", "lesion"))
SMALL = TrainOptions(size=64, flips=True)


@pytest.fixture
def marked(tmp_path):
    """A record of 64 px with a mask of 16 x 8 pixels."""
    source = np.random.default_rng(0)
    Image.fromarray(source.integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "image.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[24:32, 16:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return Record(tmp_path / "image.png", "a", mask=tmp_path / "mask.png")


# -- masks


@pytest.mark.parametrize("shape", MASK_SHAPES)
@pytest.mark.parametrize("size", [(64, 64), (512, 384)])
def test_random_masks_cover_a_part(shape, size):
    objective = replace(RANDOM, mask_shapes=(shape,))
    masks = [random_mask(size, objective, generator(0, "mask", number)) for number in range(20)]
    shares = [mask.mean().item() for mask in masks]
    assert all(mask.shape == (1, *size) and set(mask.unique().tolist()) == {0, 1} for mask in masks)
    assert min(shares) > 0.01 and max(shares) < 0.9 and len(set(shares)) > 15
    assert all(torch.equal(mask, random_mask(size, objective, generator(0, "mask", number))) for number, mask in enumerate(masks))


def test_shapes_and_whole_images_have_their_shares():
    whole = [random_mask((64, 64), replace(RANDOM, whole_share=0.25), generator(0, number)).mean() == 1 for number in range(400)]
    assert 70 < sum(whole) < 130
    boxes = random_mask((64, 64), replace(RANDOM, mask_shapes=("box",)), generator(0, 0))
    rows = boxes[0].any(1)
    assert (boxes[0][rows].any(0) == boxes[0].any(0)).all()


def test_a_given_mask_is_the_records_own(marked):
    mask = make_mask(marked, (64, 64), GIVEN, SMALL, 0, 0)
    assert torch.equal(mask, read_mask(marked.mask, 64)) and mask.sum() == 128


def test_a_lesion_has_a_margin_that_the_seed_decides(marked):
    masks = [make_mask(marked, (64, 64), LESION, SMALL, 0, variant) for variant in range(30)]
    own = read_mask(marked.mask, 64)
    assert all((mask >= own).all() for mask in masks)
    margins = set()
    for mask in masks:
        rows, columns = (mask[0].any(side).nonzero().flatten() for side in (1, 0))
        margin = 24 - int(rows.min())
        assert (int(rows.max()), int(columns.min()), int(columns.max())) == (31 + margin, 16 - margin, 31 + margin)
        assert mask.sum() == (8 + 2 * margin) * (16 + 2 * margin)
        margins.add(margin)
    assert margins == set(range(9))  # up to an eighth of the side
    assert torch.equal(masks[3], make_mask(marked, (64, 64), LESION, SMALL, 0, 3))


def test_boxes_stand_in_for_a_mask(marked):
    boxed = Record(marked.image, "a", boxes=(Box(10, 20, 8, 4), Box(40.5, 40.5, 2, 2)))
    mask = make_mask(boxed, (64, 64), LESION, replace(SMALL, seed=1), 0, 0)
    assert mask[0, 20:24, 10:18].all() and mask[0, 40:43, 40:43].all() and mask.mean() < 0.6


def test_a_mask_that_marks_nothing_or_has_another_size(marked, tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "empty.png")
    Image.new("L", (32, 64)).save(tmp_path / "narrow.png")
    for name, words in (("empty", "nothing is marked"), ("narrow", "32 x 64, and its image 64 x 64")):
        record = replace(marked, mask=tmp_path / f"{name}.png")
        with pytest.raises(DataError, match=rf"{name}\.png.*{words}"):
            make_mask(record, (64, 64), GIVEN, replace(SMALL, fit="none"), 0, 0)
    with pytest.raises(DataError, match="nothing is marked"):
        make_mask(Record(marked.image, "a", boxes=(Box(100, 100, 4, 4),)), (64, 64), LESION, SMALL, 0, 0)


# -- what the U-Net reads


def test_mask_and_masked_image_are_those_of_comfyui_and_diffusers(marked):
    image, mask = read_image(marked.image, 64), read_mask(marked.mask, 64)
    small, hidden = condition(image, mask)
    assert small.shape == (1, 8, 8) and small.sum() == 2 and small[0, 3, 2:4].all()
    kept = mask.expand_as(image) == 0
    assert torch.equal(hidden[kept], image[kept]) and (hidden[~kept] == 0.5).all()


def test_the_channels_of_an_image_are_its_mask_and_what_the_autoencoder_sees(base, marked, tmp_path):
    for folder in (None, tmp_path / "cache"):
        inputs = cache_inputs(base, [marked], 0, (4, 8, 8), folder, objective=GIVEN, options=SMALL)
        batch = inputs.batch([0, 0], [False, True], [0, 0])
        assert batch.shape == (2, 5, 8, 8)
        for flip, channels in enumerate(batch):
            small, hidden = condition(read_image(marked.image, 64), read_mask(marked.mask, 64))
            if flip:
                small, hidden = small.flip(-1), hidden.flip(-1)
            assert torch.equal(channels[:1], small)
            torch.testing.assert_close(channels[1:], base.encode_images(hidden[None])[0])


def test_variants_differ_and_are_encoded_once(base, marked, tmp_path, monkeypatch):
    objective, done, encoded, encode = replace(RANDOM, mask_variants=3), [], [], base.encode_images
    monkeypatch.setattr(base, "encode_images", lambda images: encoded.append(len(images)) or encode(images))
    for _ in range(2):
        inputs = cache_inputs(base, [marked], 0, (4, 8, 8), tmp_path, objective=objective, options=replace(SMALL, flips=False),
                              on_progress=lambda *progress: done.append(progress))
    batch = inputs.batch([0, 0, 0], [False] * 3, [0, 1, 2])
    assert not torch.equal(batch[0], batch[1]) and not torch.equal(batch[1], batch[2])
    assert len(encoded) == 3 and done == [(1, 1), (1, 1)]
    assert variants(objective) == 3 and variants(GIVEN) == 1 and variants(ObjectiveOptions()) == 0


def test_images_of_the_class_are_filled_whole_where_masks_are_given(base, marked):
    unmarked = Record(marked.image, "class")
    inputs = cache_inputs(base, [marked, unmarked], 1, (4, 8, 8), None, objective=GIVEN, options=SMALL)
    assert inputs.batch([1], [False], [0])[0, 0].eq(1).all()
    inputs = cache_inputs(base, [marked, unmarked], 1, (4, 8, 8), None, objective=RANDOM, options=SMALL)
    assert not all(inputs.batch([1], [False], [variant])[0, 0].eq(1).all() for variant in range(4))


def test_every_mask_that_cannot_be_used_is_named(base, marked, tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "empty.png")
    records = [replace(marked, mask=tmp_path / "empty.png"), marked, replace(marked, image=Path("other.png"), mask=Path("gone.png"))]
    with pytest.raises(DataError, match=r"2 of 3 masks.*nothing is marked.*gone\.png"):
        cache_inputs(base, records, 0, (4, 8, 8), None, objective=GIVEN, options=SMALL)


# -- what is refused


def test_an_inpainting_objective_needs_a_base_that_can_be_told_of_masks(base, marked):
    with pytest.raises(ConfigError, match=r"inpainting is 'random'.*takes 4 channels.*Switch inflate on to widen it to 9"):
        check_inpainting(RANDOM, base, {"unet"}, [marked])
    check_inpainting(replace(RANDOM, inflate=True), base, {"unet"}, [marked])
    with pytest.raises(ConfigError, match="inflate is on and inpainting is off"):
        check_inpainting(ObjectiveOptions(inflate=True), base, {"unet"}, [marked])
    check_inpainting(ObjectiveOptions(), base, {"unet", "vae"}, [marked])
    inflate(base)
    check_inpainting(RANDOM, base, {"unet"}, [marked])
    with pytest.raises(ConfigError, match="takes 9 channels already"):
        check_inpainting(replace(RANDOM, inflate=True), base, {"unet"}, [marked])
    with pytest.raises(ConfigError, match="autoencoder is trained"):
        check_inpainting(RANDOM, base, {"unet", "vae"}, [marked])
    with pytest.raises(ConfigError, match=r"mask_shapes is empty.*box, stroke, blob"):
        check_inpainting(replace(RANDOM, mask_shapes=()), base, {"unet"}, [marked])


@pytest.mark.parametrize(("objective", "what"), [(GIVEN, "a mask:"), (LESION, "a mask or boxes:")])
def test_records_without_a_mask_are_named(base, marked, objective, what):
    boxed, bare = Record(Path("boxed.png"), "a", boxes=(Box(0, 0, 1, 1),)), Record(Path("bare.png"), "a")
    lacking = 2 if objective is GIVEN else 1
    with pytest.raises(DataError, match=rf"{lacking} of 3 records do not have {what}.*bare\.png.*set inpainting to random"):
        check_inpainting(replace(objective, inflate=True), base, {"unet"}, [marked, boxed, bare])
