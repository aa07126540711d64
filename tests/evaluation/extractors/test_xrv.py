"""torchxrayvision's network against torchxrayvision itself: its reader, its resizer, its features and its findings."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from medtune.errors import Missing, ModelError
from medtune.evaluation.extractor import EXTRACTORS, make_extractor
from medtune.evaluation.extractors.xrv import resize
from medtune.evaluation.networks.conversion import convert
from medtune.evaluation.networks.xrv_labels import FINDINGS, OPERATING_POINTS
from safetensors.torch import load_file, save_file

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    xrv = pytest.importorskip("torchxrayvision")
skimage_io = pytest.importorskip("skimage.io")


@pytest.fixture(scope="module")
def network(randomise):
    """torchxrayvision's own network with random weights, as it is after loading published ones."""
    network = randomise(xrv.models.DenseNet())
    network.input_resolution = 224
    network.op_threshs = torch.tensor(xrv.models.model_urls["densenet121-res224-all"]["op_threshs"])
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    """The whole network pickled, as torchxrayvision publishes it, and converted."""
    folder = tmp_path_factory.mktemp("xrv")
    torch.save(network, folder / "densenet.pt")
    made = convert(folder / "densenet.pt", folder / "densenet.safetensors")
    assert made.what == "torchxrayvision's DenseNet-121" and made.foreign == []
    return folder / "densenet.safetensors"


@pytest.fixture(scope="module")
def folders(radiographs, pictures, read):
    """(folder, its images as an evaluation reads them), grey and in colour."""
    return [(folder, read(folder)) for folder in (radiographs, pictures)]


def theirs(path):
    """A picture as torchxrayvision reads it, (1, H, W) in -1024 to 1024."""
    image = skimage_io.imread(path)
    image = xrv.datasets.normalize(image, 255)
    return image[None] if image.ndim == 2 else image.mean(2)[None]


def in_pixels_under_pressure(folder):
    """Inputs (N, 1, 224, 224) as torchxrayvision's transforms make them."""
    crop, scale = xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)
    return torch.from_numpy(np.stack([scale(crop(theirs(path))) for path in sorted(folder.glob("*.png"))]))


def in_the_network(folder):
    """Inputs (N, 1, 512, 512), which the network resizes itself."""
    return torch.from_numpy(np.stack([theirs(path) for path in sorted(folder.glob("*.png"))]))


def close(values, expected):
    return float((values - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("convention", ["xrv", "network"])
def test_features_are_those_of_torchxrayvision(convention, network, weights, folders, record_property):
    extractor = make_extractor("xrv", weights=str(weights), convention=convention, device="cpu")
    inputs = in_pixels_under_pressure if convention == "xrv" else in_the_network
    errors = []
    for folder, images in folders:
        with torch.no_grad():
            expected = network.features2(inputs(folder))
        values = extractor.features(images)
        assert values.shape == expected.shape and expected.shape[1] == 1024 and expected.std(0).mean() > 1e-3 * expected.abs().max()
        errors.append(close(values, expected))
    record_property("measured", {f"xrv ({convention}) against torchxrayvision": max(errors)})
    assert max(errors) < 1e-5


def test_the_unit_convention_is_the_network_on_plain_grey(network, weights, radiographs, read):
    with torch.no_grad():
        maps = network.features(torch.stack([torch.from_numpy(skimage_io.imread(path)) for path in sorted(radiographs.glob("*.png"))])
                                [:, None].float() / 255)
    values = make_extractor("xrv", weights=str(weights), convention="unit", device="cpu").features(read(radiographs))
    assert close(values, maps.mean((2, 3))) < 1e-5 and (values < 0).any()


def test_each_convention_has_its_own_id(weights):
    assert len({make_extractor("xrv", weights=str(weights), convention=way).id for way in ("xrv", "network", "unit")}) == 3


def test_findings_are_those_of_torchxrayvision(network, weights, radiographs, read):
    labeller = make_extractor("xrv", weights=str(weights), convention="network", device="cpu").labeller()
    with torch.no_grad():
        expected = network(in_pixels_under_pressure(radiographs))
    values = labeller.features(read(radiographs))
    assert values.shape == (2, 18) and labeller.labels == FINDINGS and ((values >= 0) & (values <= 1)).all()
    assert torch.allclose(values, expected, atol=1e-5) and labeller.id.endswith("labels-all")


@pytest.mark.parametrize("learnt", OPERATING_POINTS)
def test_operating_points_and_names_are_the_published_ones(learnt):
    published = xrv.models.model_urls[f"densenet121-res224-{learnt}"]
    points = [float("nan") if point is None else point for point in OPERATING_POINTS[learnt]]
    assert np.array_equal(points, published["op_threshs"], equal_nan=True)
    renamed = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening", "": None}
    told = [None if point is None else name for name, point in zip(FINDINGS, OPERATING_POINTS[learnt])]
    assert told == [renamed.get(name, name) for name in published["labels"]]


def test_a_finding_that_was_not_learnt_is_not_told(weights):
    labeller = make_extractor("xrv", weights=str(weights), learnt="rsna").labeller()
    assert labeller.labels == ("Pneumonia", "Lung Opacity") and "learnt from RSNA's" in labeller.limits()[0]


@pytest.mark.parametrize("levels", [(0, 255), (200, 255), (0, 40)])
@pytest.mark.parametrize("size", [512, 224, 100, 1000])
def test_the_resize_is_torchxrayvisions(size, levels):
    image = np.random.default_rng(size).uniform(*levels, (size, size)).astype(np.float32) / 255 * 2048 - 1024
    assert np.allclose(resize(image), xrv.datasets.XRayResizer(224)(image[None])[0], atol=1e-3, rtol=1e-6)


def test_a_pickle_is_refused_and_said_how_to_convert(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDTUNE_WEIGHTS", str(tmp_path))
    with pytest.raises(Missing, match=r"xrv-densenet121-res224-all\.safetensors into .*releases/tag/v1.*medtune convert-weights"):
        make_extractor("xrv")
    assert EXTRACTORS["xrv"].missing().startswith("no weights: put")
    with pytest.raises(ModelError, match=r"pickle of more than tensors.*medtune convert-weights \S+densenet\.pt"):
        make_extractor("xrv", weights=str(weights.with_suffix(".pt")))


def test_another_network_is_refused(weights, tmp_path):
    tensors = {name: value for name, value in load_file(weights).items() if "denseblock4" not in name}
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match=r"not the weights of torchxrayvision's DenseNet-121: 160 tensors are missing \(features\."
                                         r"denseblock4\.denselayer1\.norm1\.weight, .* and 157 more\)"):
        make_extractor("xrv", weights=str(tmp_path / "part.safetensors"))


def test_pickles_of_before_torch_1_6_are_converted(network, weights, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(network, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    convert(tmp_path / "old.pt", tmp_path / "old.safetensors")
    old, new = load_file(tmp_path / "old.safetensors"), load_file(weights)
    assert old.keys() == new.keys() == network.state_dict().keys() and all(torch.equal(old[name], new[name]) for name in new)
    cut = (tmp_path / "old.pt").read_bytes()[:-1000]
    (tmp_path / "cut.pt").write_bytes(cut)
    with pytest.raises(ModelError, match="truncated"):
        convert(tmp_path / "cut.pt", tmp_path / "cut.safetensors")
    assert not (tmp_path / "cut.safetensors").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "old.pt", weights_only=True)  # what we avoid is indeed no plain file of tensors
