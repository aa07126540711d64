"""Latents and text states are made once, are what the encoders give, and survive whatever happens to the disk or the process."""

from __future__ import annotations

import inspect
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from medtune.data.image import read_image, save_image
from medtune.data.record import Record
from medtune.errors import DataError, MedTuneError, ModelError
from medtune.training.cache import DiskStore, blank_channels, cache_latents, cache_text


class Stub:
    """A base whose autoencoder averages 8 x 8 pixels, and whose text encoder repeats the length of the prompt."""
    channels = 4

    def __init__(self, spread=0.0):
        self.vae, self.text_encoder, self.spread, self.encoded = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), spread, []
        for part in (self.vae, self.text_encoder):
            torch.nn.init.ones_(part.weight), torch.nn.init.ones_(part.bias)

    def posterior(self, images):
        self.encoded.append(images)
        grey = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8)
        mean = torch.cat([grey, grey * 2, grey * 3, grey * 4], 1)
        return mean, torch.full_like(mean, self.spread)

    def encode_images(self, images):
        return self.posterior(images)[0]

    def encode_prompts(self, prompts):
        self.encoded.append(prompts)
        return torch.stack([torch.full((77, 2), float(len(prompt))) for prompt in prompts])


@pytest.fixture
def records(tmp_path):
    """Five images of noise, brighter to the right, 64 px."""
    made = []
    for index in range(5):
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(index)) * torch.linspace(0.2, 1, 64)
        save_image(image, tmp_path / f"{index}.png")
        made.append(Record(tmp_path / f"{index}.png", f"caption {index}"))
    return made


def entries(folder):
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("disk", [False, True])
def test_latents_are_what_the_autoencoder_gives(records, tmp_path, disk):
    base = Stub()
    latents = cache_latents(base, records, tmp_path / "cache" if disk else None, size=64, flips=True)
    assert latents.shape == (4, 8, 8) and len(latents) == 5
    images = torch.stack([read_image(records[index].image, 64) for index in (3, 0)])
    images[1] = images[1].flip(-1)
    assert torch.equal(latents.batch([3, 0], [False, True]), base.encode_images(images))
    assert len(base.encoded) == 11  # each image once as it is and once mirrored, one at a time


def test_the_real_base_is_cached_exactly(base, phantoms):
    latents = cache_latents(base, phantoms[:2], size=128)
    with torch.no_grad():
        expected = torch.cat([base.encode_images(read_image(record.image, 128)[None]) for record in phantoms[:2]])
        states = base.encode_prompts([phantoms[1].caption])
    assert torch.equal(latents.batch([0, 1], [False, False]), expected)
    assert torch.equal(cache_text(base, [record.caption for record in phantoms[:2]]).batch([phantoms[1].caption]), states)


def test_a_sampled_posterior_is_its_mean_and_deviation_times_the_noise(records):
    noise = torch.randn(2, 4, 8, 8)
    mode = cache_latents(Stub(spread=0.5), records, size=64).batch([1, 2], [False, False], noise)
    sampled = cache_latents(Stub(spread=0.5), records, size=64, posterior="sample").batch([1, 2], [False, False], noise)
    torch.testing.assert_close(sampled - mode, 0.5 * noise)


def test_a_second_run_encodes_nothing(records, tmp_path):
    for count in (10, 0):
        base = Stub()
        cache_latents(base, records, tmp_path / "cache", size=64, flips=True)
        assert len(base.encoded) == count


def test_whatever_changes_the_latents_changes_the_entry(records, tmp_path):
    folder = tmp_path / "cache"
    cache_latents(Stub(), records, folder, size=64)
    other = Stub()
    other.vae.weight.data[0, 0] = 2
    for base, settings in [(Stub(), {"size": 128}), (Stub(), {"size": 64, "fit": "pad"}), (other, {"size": 64}),
                           (Stub(), {"size": 64, "posterior": "sample"})]:
        cache_latents(base, records, folder, **settings)
        assert len(base.encoded) == 5, settings
    save_image(torch.zeros(3, 64, 64), records[2].image)
    base = Stub()
    assert cache_latents(base, records, folder, size=64).batch([2], [False]).eq(0).all()
    assert len(base.encoded) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "html"])
def test_a_damaged_entry_is_made_again(records, tmp_path, damage):
    folder = tmp_path / "cache"
    expected = cache_latents(Stub(), records, folder, size=64).batch([0, 1, 2, 3, 4], [False] * 5)
    victim = entries(folder)[2]
    content = bytearray(victim.read_bytes())
    content[-3] ^= 0x10
    victim.write_bytes({"cut": content[:-40], "flip": content, "empty": b"", "html": b"<html>" * 50}[damage])
    base = Stub()
    latents = cache_latents(base, records, folder, size=64)
    assert len(base.encoded) == 1
    assert torch.equal(latents.batch([0, 1, 2, 3, 4], [False] * 5), expected)


def test_an_entry_that_vanishes_during_training_is_an_error_not_a_guess(records, tmp_path):
    latents = cache_latents(Stub(), records, tmp_path / "cache", size=64)
    for file in entries(tmp_path / "cache"):
        file.unlink()
    with pytest.raises(MedTuneError, match=r"vanished.*start again"):
        latents.batch([0], [False])


def test_every_bad_image_is_named_with_a_count(records, tmp_path):
    records[1].image.write_bytes(records[1].image.read_bytes()[:200])
    records[3].image.write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 5 images.*1\.png.*3\.png"):
        cache_latents(Stub(), records, size=64)


def test_latents_that_are_not_finite_name_the_image(records):
    base = Stub()
    base.posterior = lambda images: (torch.full((1, 4, 8, 8), float("nan")), torch.zeros(1, 4, 8, 8))
    with pytest.raises(DataError, match=r"0\.png.*not finite"):
        cache_latents(base, records, size=64)


def test_images_of_two_sizes_need_a_fit(records):
    save_image(torch.zeros(3, 64, 128), records[4].image)
    with pytest.raises(DataError, match=r"64 x 64.*128 x 64.*crop or pad"):
        cache_latents(Stub(), records, fit="none")


def test_each_caption_is_encoded_once_and_the_empty_one_too(tmp_path):
    for folder, count in ((None, 3), (tmp_path, 3), (tmp_path, 0)):
        base = Stub()
        states = cache_text(base, ["a", "abc", "a"], folder)
        assert len(base.encoded) == count
        assert states.batch(["abc", "", "a"]).mean((1, 2)).tolist() == [3, 0, 1]
    base.text_encoder.weight.data[0, 0] = 9
    cache_text(base, ["a"], tmp_path)
    assert len(base.encoded) == 2


def test_a_base_without_a_part_says_so(records):
    base = Stub()
    base.vae = base.text_encoder = None
    with pytest.raises(ModelError, match="without its autoencoder"):
        cache_latents(base, records)
    with pytest.raises(ModelError, match="without its text encoder"):
        cache_text(base, ["a"])


def test_a_full_disk_leaves_no_part_of_an_entry(records, tmp_path):
    folder = tmp_path / "cache"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(MedTuneError, match=r"(?s)cannot write.*space"):
            cache_latents(Stub(), records, folder, size=64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [file for file in folder.rglob("*") if file.is_file()]


def test_kill_9_while_an_entry_is_written_leaves_only_whole_ones(records, tmp_path):
    """Killed between the writing and the renaming of the third entry."""
    script = "import torch\n" + inspect.getsource(Stub) + textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from medtune.data.record import Record
        from medtune.training.cache import cache_latents
        rename, count = os.replace, [0]

        def replace(*names):
            count[0] += 1
            if count[0] == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*names)

        os.replace = replace
        records = [Record(Path({str(tmp_path)!r}) / f"{{index}}.png", "") for index in range(5)]
        cache_latents(Stub(), records, Path({str(tmp_path / "cache")!r}), size=64)
    """)
    done = subprocess.run([sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole = [file for file in entries(tmp_path / "cache") if not file.name.startswith(".")]
    assert len(whole) == 2
    store = DiskStore(tmp_path / "cache")
    assert all(store.read(file.stem) is not None for file in whole)
    base = Stub()
    latents = cache_latents(base, records, tmp_path / "cache", size=64)
    assert len(base.encoded) == 3
    expected = cache_latents(Stub(), records, size=64)
    assert torch.equal(latents.batch(range(5), [False] * 5), expected.batch(range(5), [False] * 5))


def test_blank_channels_are_a_mask_of_ones_and_mid_grey():
    base = Stub()
    assert blank_channels(base, (4, 8, 16)) is None
    base.channels = 9
    extra = blank_channels(base, (4, 8, 16))
    assert extra.shape == (1, 5, 8, 16)
    assert extra[0, :, 0, 0].tolist() == [1, 0.5, 1, 1.5, 2]
