"""DICOM files, written here by pydicom or taken from its own test files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from medtune.data.dicom import read_dicom
from medtune.data.image import read_image
from medtune.errors import DataError
from PIL import Image

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import MPEG2MPML, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless, RLELossless  # noqa: E402

RAMP = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)


def write(path, pixels=RAMP, bits=12, syntax=ExplicitVRLittleEndian, data=None, **tags):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if pixels.ndim < 3 or pixels.shape[-1] != 3 else pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = data or pixels.tobytes()
    dataset["PixelData"].VR = "OB" if syntax.is_compressed or pixels.itemsize == 1 else "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def test_without_a_window_the_stored_bits_are_the_scale(tmp_path):
    write(tmp_path / "a.dcm")
    assert np.allclose(read_dicom(tmp_path / "a.dcm"), RAMP / 4095, atol=1e-6)


def test_monochrome1_is_inverted(tmp_path):
    write(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    assert np.allclose(read_dicom(tmp_path / "a.dcm"), 1 - RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(tmp_path, function):
    dataset = write(tmp_path / "a.dcm", WindowCenter=[1500, 3], WindowWidth=[1800, 7], VOILUTFunction=function,
                    RescaleSlope=2, RescaleIntercept=-100)
    rescaled = RAMP * 2.0 - 100
    reference = pydicom.pixels.apply_windowing(rescaled, dataset)
    low, high = -100, 4095 * 2 - 100  # the range onto which pydicom puts a window's
    assert np.allclose(read_dicom(tmp_path / "a.dcm"), (reference - low) / (high - low), atol=2e-3)


def test_signed_values(tmp_path):
    pixels = np.array([[-2048, 0], [1000, 2047]], np.int16)
    write(tmp_path / "a.dcm", pixels, WindowCenter=0, WindowWidth=2001)
    assert np.allclose(read_dicom(tmp_path / "a.dcm"), [[0, 0.50025], [1, 1]], atol=1e-3)


def test_colour_and_the_way_through_read_image(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 255
    write(tmp_path / "a.dcm", pixels, bits=8)
    image = read_image(tmp_path / "a.dcm", 8)
    assert image[0].min() == 1 and image[1:].max() == 0
    write(tmp_path / "no-ending", RAMP)
    assert read_image(tmp_path / "no-ending", 8)[0, 7, 7] == pytest.approx(1), "known by its magic, not its name"


def test_a_voi_table_is_applied(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 100, 16]  # entries, first value, bits
    table.LUTData = [65535 - value * 16 for value in range(4096)]
    table["LUTData"].VR = "US"
    write(tmp_path / "a.dcm", VOILUTSequence=[table], RescaleSlope=1, RescaleIntercept=100)
    assert np.allclose(read_dicom(tmp_path / "a.dcm"), (65535 - RAMP * 16.0) / 65535, atol=1e-6)


def test_compressed_files_that_can_be_decoded(tmp_path):
    dataset = write(tmp_path / "a.dcm")
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    assert np.allclose(read_dicom(tmp_path / "rle.dcm"), RAMP / 4095, atol=1e-6)
    pixels = (RAMP // 16).astype(np.uint8)
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, format="JPEG", quality=100)
    write(tmp_path / "jpeg.dcm", pixels, bits=8, syntax=JPEGBaseline8Bit, data=encapsulate([coded.getvalue()]))
    assert np.abs(read_dicom(tmp_path / "jpeg.dcm") - pixels / 255).max() < 0.02


@pytest.mark.parametrize("syntax", [JPEGLSLossless, MPEG2MPML])
def test_compressed_without_a_decoder_names_one(tmp_path, syntax):
    if syntax == JPEGLSLossless and pydicom.pixels.get_decoder(syntax).is_available:
        pytest.skip("a JPEG-LS decoder is installed")
    write(tmp_path / "a.dcm", syntax=syntax, data=encapsulate([b"\xff\xd8" + bytes(50) + b"\xff\xd9"]))
    with pytest.raises(DataError, match=r"pylibjpeg") as caught:
        read_dicom(tmp_path / "a.dcm")
    assert "a.dcm" in str(caught.value) and syntax.name in str(caught.value)


def test_files_that_cannot_be_used(tmp_path):
    dataset = write(tmp_path / "none.dcm")
    del dataset.PixelData
    dataset.save_as(tmp_path / "none.dcm", enforce_file_format=True)
    write(tmp_path / "frames.dcm", np.zeros((3, 8, 8), np.uint16), NumberOfFrames=3)
    write(tmp_path / "bomb.dcm", Rows=20_000, Columns=20_000)
    write(tmp_path / "short.dcm", data=RAMP.tobytes()[:40])
    write(tmp_path / "broken.dcm", RescaleSlope="NaN")
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "frames.dcm").read_bytes()[:140])
    for name, reason in {"none": "without pixels", "frames": "3 frames", "bomb": "20000 x 20000", "short": "cannot be read",
                         "broken": "finite", "cut": "damaged|without pixels"}.items():
        with pytest.raises(DataError, match=reason) as caught:
            read_dicom(tmp_path / f"{name}.dcm")
        assert f"{name}.dcm" in str(caught.value)


def test_a_real_ct_slice():
    path = get_testdata_file("CT_small.dcm", download=False)
    dataset, values = pydicom.dcmread(path), read_dicom(path)
    assert values.shape == (dataset.Rows, dataset.Columns) and 0 <= values.min() < values.max() <= 1
    assert np.corrcoef(values.ravel(), dataset.pixel_array.ravel())[0, 1] > 0.999
