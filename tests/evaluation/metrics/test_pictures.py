"""Metrics of the pictures themselves: MS-SSIM within a prompt, grey levels and spectra, against other implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from medtune.data.image import save_image
from medtune.data.record import Record
from medtune.evaluation.extractor import make_extractor
from medtune.evaluation.features import Features, extract
from medtune.evaluation.measures.structural_similarity import Pyramid, ms_ssim
from medtune.evaluation.metric import make_metric
from medtune.evaluation.metrics import ms_ssim as within_a_prompt
from medtune.evaluation.metrics.ms_ssim import choose


def smooth(seed: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """A picture (C, H, W) of soft blobs."""
    coarse = torch.rand((1, shape[0], 24, 24), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic")[0].clamp(0, 1)


def noisy(image: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    return (image + sigma * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Nine images of three captions, three of each that are more and more alike, and one image alone; 176 px."""
    folder, records = tmp_path_factory.mktemp("drawn"), []
    for index in range(10):
        prompt, turn = divmod(index, 3)
        image = noisy(smooth(prompt, (1, 176, 176)), 0.3 / (1 + prompt), seed=index)
        save_image(image, folder / f"{index}.png")
        records.append(Record(folder / f"{index}.png", f"prompt {prompt}", seed=turn))
    return Features(np.zeros((10, 2), np.float32), tuple(records), size=176)


@pytest.mark.parametrize("shape", [(1, 176, 176), (3, 192, 208), (1, 512, 512)])
def test_ms_ssim_equals_pytorch_msssim(shape):
    reference = pytest.importorskip("pytorch_msssim")
    x = smooth(1, shape).double()
    window = torch.exp(-((torch.arange(11).double() - 5) ** 2) / 4.5)[None, None, None].repeat(shape[0], 1, 1, 1)
    for y in (x, noisy(x, 0.05), noisy(smooth(2, shape).double(), 0.2), 1 - x):
        expected = reference.ms_ssim(x[None], y[None], data_range=1.0, win=window / window[0].sum())
        assert ms_ssim(Pyramid.of(x), Pyramid.of(y)) == pytest.approx(float(expected), abs=1e-6)


def test_ms_ssim_of_grey_is_that_of_three_equal_channels():
    x, y = smooth(1, (1, 176, 176)), smooth(2, (1, 176, 176))
    assert ms_ssim(Pyramid.of(x), Pyramid.of(y)) == pytest.approx(ms_ssim(*(Pyramid.of(one.expand(3, -1, -1)) for one in (x, y))))
    assert len(Pyramid.of(x.expand(3, -1, -1)).pixels[0]) == 1


def test_within_a_prompt_is_the_mean_over_prompts_of_the_mean_over_pairs(drawn):
    score = make_metric("ms-ssim").score(drawn, drawn)
    images = [Pyramid.of(drawn.image(index)) for index in range(9)]
    each = [np.mean([ms_ssim(images[i], images[j]) for i, j in ((p, p + 1), (p, p + 2), (p + 1, p + 2))]) for p in (0, 3, 6)]
    assert score.value == pytest.approx(np.mean(each), rel=1e-9) and each[0] < each[1] < each[2]
    assert make_metric("ms-ssim").figure(drawn, drawn.pick([0, 1, 2, 3, 4])) == pytest.approx(
        (each[0] + ms_ssim(images[3], images[4])) / 2, rel=1e-9)


def test_pairs_without_a_group_are_those_of_the_others(drawn):
    metric, groups = make_metric("ms-ssim"), np.arange(10) % 4
    _, without = metric.without(drawn, drawn, groups, groups)
    parts = [drawn.pick(np.flatnonzero(groups != group)) for group in range(4)]
    assert without == pytest.approx([metric.figure(drawn, part) for part in parts], rel=1e-9)


def test_pairs_are_spread_over_prompts_and_images():
    records = tuple(Record(Path(f"{index}.png"), f"prompt {index % 3}") for index in range(30))
    features = Features(np.zeros((30, 2)), records)
    chosen = choose(features, 12)
    assert [len(pairs) for pairs in chosen] == [4, 4, 4] and chosen == choose(features, 12)
    assert all(len({image for pair in pairs for image in pair}) == 5 for pairs in chosen)  # each with the next
    every = choose(features, 10_000)
    assert [len({frozenset(pair) for pair in pairs}) for pairs in every] == [45, 45, 45] == [len(pairs) for pairs in every]
    assert [len(pairs) for pairs in choose(features, 2)] == [1, 1]
    for count in range(2, 8):
        pairs, = choose(features.pick(range(0, 3 * count, 3)), 10_000)
        assert len({frozenset(pair) for pair in pairs}) == len(pairs) == count * (count - 1) // 2


def test_a_pair_is_computed_once(drawn, monkeypatch):
    make_metric("ms-ssim").score(drawn, drawn)
    monkeypatch.setattr(within_a_prompt, "ms_ssim", None)  # not to be called
    assert make_metric("ms-ssim").score(drawn, drawn.pick(range(9)), "a class").value is not None


def test_what_has_no_ms_ssim_is_a_reason(drawn, tmp_path):
    metric = make_metric("ms-ssim", least=2)
    assert "no two generated images share a caption" in metric.score(drawn, drawn.pick([0, 3, 6, 9])).reason
    assert "without image files" in metric.score(drawn, Features(np.zeros((9, 2)))).reason
    small = Features(np.zeros((3, 2)), drawn.records[:3], size=175)
    assert "175 x 175 pixels" in metric.score(small, small).reason
    assert metric.score(drawn, Features(np.zeros((3, 2)), drawn.records[:3], size=176)).value is not None
    save_image(smooth(0, (1, 200, 176)), tmp_path / "other.png")
    mixed = Features(np.zeros((2, 2)), (drawn.records[0], Record(tmp_path / "other.png", "prompt 0")), fit="none")
    assert "not of one size" in metric.score(drawn, mixed).reason


def test_copies_are_wholly_alike(drawn):
    fake = drawn.pick([0, 0, 0, 3, 3, 3, 6, 6])
    assert make_metric("ms-ssim").score(drawn, fake).value == pytest.approx(1)


def pixels(count: int, seed: int, side: int = 128, gain: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    images = torch.stack([smooth(seed * 1000 + index, (1, side, side)) for index in range(count)])
    return (gain * images + offset).clamp(0, 1).expand(-1, 3, -1, -1)


def features(name: str, images: torch.Tensor) -> Features:
    extractor = make_extractor(name)
    return Features(extractor.features(images).numpy(), (), extractor)


def test_intensity_equals_scipys_wasserstein():
    from scipy.stats import wasserstein_distance

    real, fake = pixels(10, 1), pixels(12, 2, gain=0.7, offset=0.1)
    levels = [(images[:, 0] * 255).round().numpy().ravel() for images in (real, fake)]
    score = make_metric("intensity").score(features("intensity", real), features("intensity", fake))
    assert score.value == pytest.approx(wasserstein_distance(*levels) / 255, rel=1e-5)


def test_intensity_of_a_shift_is_the_shift():
    real = 0.2 + 0.5 * pixels(10, 1)
    score = make_metric("intensity").score(features("intensity", real), features("intensity", real + 51 / 255))
    assert score.value == pytest.approx(0.2, abs=1e-6)
    black, white = torch.zeros(8, 3, 32, 32), torch.ones(8, 3, 32, 32)
    assert make_metric("intensity").score(features("intensity", black), features("intensity", white)).value == pytest.approx(1)


def test_histograms_are_numpys():
    images = pixels(2, 3)
    counts = np.stack([np.histogram(image[0].numpy() * 255, bins=256, range=(-0.5, 255.5))[0] for image in images])
    assert np.allclose(make_extractor("intensity").features(images).numpy(), counts / counts.sum(1, keepdims=True), atol=1e-6)


def test_spectrum_of_white_noise_is_flat_and_its_variance():
    noise = 0.5 + 0.1 * torch.randn((16, 1, 256, 256), generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    powers = 10 ** (make_extractor("spectrum").features(noise).double().numpy() / 10)
    assert np.allclose(powers.mean(0)[16:], 0.01, rtol=0.08) and powers[:, 16:].mean() == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("shape", [(256, 256), (192, 256)])
def test_spectrum_is_numpys(shape):
    """Band by band, of a wave: all its power where its frequency is."""
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * (rows * 30 / shape[0] + columns * 40 / shape[1]))
    found = make_extractor("spectrum").features(torch.from_numpy(wave).float().expand(1, 3, -1, -1))[0].numpy()
    assert found.argmax() == int(np.ceil(np.hypot(30 / shape[0], 40 / shape[1]) * 128)) - 1
    window = np.outer(*(np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 for side in shape))
    power = np.abs(np.fft.fft2((wave - wave.mean()) * window)) ** 2 / (window**2).sum()
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    for band in (0, 10, 40, 63):
        mean = power[(radius > band / 128) & (radius <= (band + 1) / 128 + 1e-12)].mean()
        assert found[band] == pytest.approx(10 * np.log10(max(mean, 1e-8)), abs=1e-3)


def test_spectrum_distance_of_a_gain_is_its_decibels():
    """Contrast of a half is a quarter of the power: 6.02 decibels in every band; only then does it not matter which band."""
    noise = 0.1 * torch.randn((8, 1, 128, 128), generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    score = make_metric("spectrum").score(features("spectrum", 0.5 + noise), features("spectrum", 0.5 + noise / 2))
    assert score.value == pytest.approx(20 * np.log10(2), rel=1e-4)


def test_small_and_constant_images_have_a_spectrum():
    for side in (8, 33, 64):
        found = make_extractor("spectrum").features(torch.rand(2, 3, side, side))
        assert found.shape == (2, 64) and found.isfinite().all()
    assert (make_extractor("spectrum").features(torch.full((1, 3, 64, 64), 0.4)) == -80).all()


@pytest.mark.parametrize("name", ["intensity", "spectrum"])
@pytest.mark.parametrize("interval", ["jackknife", "percentile", "bca"])
def test_they_have_every_interval(name, interval):
    real, fake = features(name, pixels(30, 1, 64)), features(name, pixels(30, 2, 64, 0.8))
    score = make_metric(name, interval=interval).score(real, fake)
    assert score.low < score.value < score.high and score.interval == interval


def test_they_are_read_by_extract_like_any_other(drawn):
    for name in ("intensity", "spectrum"):
        found = extract(drawn.records, make_extractor(name), size=64)
        assert make_metric(name).score(found, found).value == pytest.approx(0, abs=1e-9)
