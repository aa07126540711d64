"""Inception against clean-fid's own pipeline: its TorchScript archive, its resize, its features of a folder."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from medtune.data.image import read_image
from medtune.errors import Missing, ModelError
from medtune.evaluation.extractor import EXTRACTORS, make_extractor
from medtune.evaluation.networks.conversion import convert
from medtune.evaluation.networks.inception import build_inception
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional


class Layer(nn.Module):
    """A convolution of the archive, with a batch norm that has no scale."""

    def __init__(self, width, out, kernel=(1, 1), stride=1, padding=(0, 0)):
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.zeros(out, width, *kernel))
        self.beta, self.mean, self.var = (nn.Parameter(torch.zeros(out)) for _ in range(3))

    def forward(self, x):
        x = functional.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
        return functional.batch_norm(x, self.mean, self.var, None, self.beta, False, 0.0, 1e-3).relu()


def row(width, *layers, pool=None):
    """A tower: an optional pool, and convolutions of (out, kernel, stride)."""
    parts = [("pool", pool)] if pool is not None else []
    for index, (out, kernel, stride) in enumerate(layers):
        padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else (0, 0)
        parts.append((f"conv_{index}" if index else "conv", Layer(width, out, kernel, stride, padding)))
        width = out
    return nn.Sequential(OrderedDict(parts))


def mean():
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


class Same(nn.Module):
    """Blocks A and C: a convolution and three towers."""

    def __init__(self, conv, *towers):
        super().__init__()
        self.conv = conv
        self.tower, self.tower_1, self.tower_2 = towers

    def forward(self, x):
        return torch.cat([self.conv(x), self.tower(x), self.tower_1(x), self.tower_2(x)], 1)


class Shrink(nn.Module):
    """Block B."""

    def __init__(self, conv, tower):
        super().__init__()
        self.conv, self.tower, self.pool = conv, tower, nn.MaxPool2d(3, 2)

    def forward(self, x):
        return torch.cat([self.conv(x), self.tower(x), self.pool(x)], 1)


class Shrink2(nn.Module):
    """Block D."""

    def __init__(self, tower, tower_1):
        super().__init__()
        self.tower, self.tower_1, self.pool = tower, tower_1, nn.MaxPool2d(3, 2)

    def forward(self, x):
        return torch.cat([self.tower(x), self.tower_1(x), self.pool(x)], 1)


class Wide(nn.Module):
    """Block E."""

    def __init__(self, width, pool):
        super().__init__()
        self.conv, self.tower_conv = Layer(width, 320), Layer(width, 384)
        self.tower_1_conv, self.tower_1_conv_1 = Layer(width, 448), Layer(448, 384, (3, 3), 1, (1, 1))
        self.tower_mixed_conv, self.tower_1_mixed_conv = (Layer(384, 384, (1, 3), 1, (0, 1)) for _ in range(2))
        self.tower_mixed_conv_1, self.tower_1_mixed_conv_1 = (Layer(384, 384, (3, 1), 1, (1, 0)) for _ in range(2))
        self.tower_2_pool, self.tower_2_conv = pool, Layer(width, 192)

    def forward(self, x):
        a, b = self.tower_conv(x), self.tower_1_conv_1(self.tower_1_conv(x))
        return torch.cat([self.conv(x), self.tower_mixed_conv(a), self.tower_mixed_conv_1(a), self.tower_1_mixed_conv(b),
                          self.tower_1_mixed_conv_1(b), self.tower_2_conv(self.tower_2_pool(x))], 1)


def block_a(width, out):
    return Same(Layer(width, 64), row(width, (48, (1, 1), 1), (64, (5, 5), 1)),
                row(width, (64, (1, 1), 1), (96, (3, 3), 1), (96, (3, 3), 1)), row(width, (out, (1, 1), 1), pool=mean()))


def block_c(mid):
    return Same(Layer(768, 192), row(768, (mid, (1, 1), 1), (mid, (1, 7), 1), (192, (7, 1), 1)),
                row(768, (mid, (1, 1), 1), (mid, (7, 1), 1), (mid, (1, 7), 1), (mid, (7, 1), 1), (192, (1, 7), 1)),
                row(768, (192, (1, 1), 1), pool=mean()))


class Archive(nn.Module):
    """The network of inception-2015-12-05.pt by its layers' names; features of inputs in -1 to 1 are ``layers(x)``."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(OrderedDict([
            ("conv", Layer(3, 32, (3, 3), 2)), ("conv_1", Layer(32, 32, (3, 3))), ("conv_2", Layer(32, 64, (3, 3), 1, (1, 1))),
            ("pool0", nn.MaxPool2d(3, 2)), ("conv_3", Layer(64, 80)), ("conv_4", Layer(80, 192, (3, 3))),
            ("pool1", nn.MaxPool2d(3, 2)),
            ("mixed", block_a(192, 32)), ("mixed_1", block_a(256, 64)), ("mixed_2", block_a(288, 64)),
            ("mixed_3", Shrink(Layer(288, 384, (3, 3), 2), row(288, (64, (1, 1), 1), (96, (3, 3), 1), (96, (3, 3), 2)))),
            *((f"mixed_{index}", block_c(mid)) for index, mid in ((4, 128), (5, 160), (6, 160), (7, 192))),
            ("mixed_8", Shrink2(row(768, (192, (1, 1), 1), (320, (3, 3), 2)),
                                row(768, (192, (1, 1), 1), (192, (1, 7), 1), (192, (7, 1), 1), (192, (3, 3), 2)))),
            ("mixed_9", Wide(1280, mean())), ("mixed_10", Wide(2048, nn.MaxPool2d(3, 1, 1))), ("pool2", nn.AvgPool2d(8, 8))]))
        self.output = nn.Linear(2048, 1008)

    def forward(self, x):
        return self.output(self.layers(x).flatten(1))


@pytest.fixture(scope="module")
def archive(tmp_path_factory, randomise):
    """A TorchScript archive of the true names and shapes, with random weights, where clean-fid looks for it."""
    path = tmp_path_factory.mktemp("archive") / "inception-2015-12-05.pt"
    torch.jit.script(randomise(Archive())).save(str(path))
    return path


@pytest.fixture(scope="module")
def weights(archive):
    """The same, converted."""
    made = convert(archive, archive.with_suffix(".safetensors"))
    assert made.what == "clean-fid's Inception" and not made.foreign
    return archive.with_suffix(".safetensors")


@pytest.fixture(scope="module")
def reference(archive, pictures):
    """clean-fid's features (3, 2048) of the folder of pictures."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(archive.parent), download=False, resize_inside=False).eval()
    return get_folder_features(str(pictures), network, num_workers=0, batch_size=3, device=torch.device("cpu"), mode="clean",
                               verbose=False)


def close(values, expected):
    """The largest difference, relative to the largest value."""
    return float(np.abs(np.asarray(values) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max())


def test_features_are_those_of_clean_fid(weights, reference, pictures, read, record_property):
    extractor = make_extractor("inception", weights=str(weights), device="cpu")
    values = extractor.features(read(pictures))
    assert values.shape == reference.shape == (3, 2048) and reference.std(0).mean() > 1e-3 * np.abs(reference).max()
    error = close(values, reference)
    record_property("measured", {"Inception against clean-fid": error})
    assert error < 1e-5


def test_pytorch_fids_file_of_the_same_weights_gives_the_same(weights, reference, pictures, tmp_path):
    torch.save({name: value for name, value in load_file(weights).items() if "num_batches" not in name}, tmp_path / "pt_inception.pth")
    extractor = make_extractor("inception", weights=str(tmp_path / "pt_inception.pth"), device="cpu")
    values = extractor.features(read_image(pictures / "0.png")[None])
    assert close(values, reference[:1]) < 1e-5
    assert extractor.id != make_extractor("inception", weights=str(weights), device="cpu").id


def test_the_network_is_that_of_pytorch_fid(weights, monkeypatch):
    """Block by block: with clean-fid's copy of pytorch-fid's network, which takes inputs in 0 to 1."""
    from cleanfid import inception_pytorch

    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: load_complete(weights))
    theirs = inception_pytorch.InceptionV3([3], resize_input=False).eval()
    ours = build_inception().eval()
    ours.load_state_dict(load_complete(weights))
    ours.fc = nn.Identity()
    inputs = torch.rand((1, 3, 299, 299), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert close(ours(2 * inputs - 1), theirs(inputs)[0].flatten(1)) < 1e-6


def load_complete(path):
    """The file's tensors with the batch norms' counters that it lacks."""
    return {**{name: value for name, value in build_inception().state_dict().items() if "num_batches" in name}, **load_file(path)}


def test_missing_and_wrong_weights_are_said(weights, archive, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTUNE_WEIGHTS", str(tmp_path))
    assert "inception-2015-12-05.safetensors" in EXTRACTORS["inception"].missing()
    with pytest.raises(Missing, match=r"convert-weights inception-2015-12-05\.pt"):
        make_extractor("inception")
    with pytest.raises(ModelError, match=r"is a TorchScript archive.*medtune convert-weights"):
        make_extractor("inception", weights=str(archive))
    tensors = load_file(weights)
    del tensors["Mixed_7c.branch_pool.conv.weight"], tensors["fc.bias"]
    save_file({**tensors, "extra.weight": torch.zeros(2), "fc.weight": torch.zeros(1000, 2048)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"2 tensors are missing \(Mixed_7c\.branch_pool\.conv\.weight, fc\.bias\); 1 belong to "
                                         r"something else \(extra\.weight\); 1 are of another shape \(fc\.weight \(1000, 2048\)"):
        make_extractor("inception", weights="other.safetensors")
    (tmp_path / "inception-2015-12-05.safetensors").hardlink_to(weights)
    assert EXTRACTORS["inception"].missing() is None and make_extractor("inception").id.startswith("inception-")
