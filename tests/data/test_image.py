"""Reading and writing image files, good and bad."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from medtune.data.image import check_image, open_image, read_image, read_mask, save_image, transform_box
from medtune.data.record import Box
from medtune.errors import ConfigError, DataError, MedTuneError
from PIL import Image, ImageFile

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.bmp"])
def test_grey_files_come_out_exactly(tmp_path, name):
    Image.fromarray(RAMP).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    image = read_image(tmp_path / name, fit="none")
    assert image.shape == (3, 16, 16) and image.dtype == torch.float32
    assert torch.equal(image, torch.from_numpy(RAMP / np.float32(255)).expand(3, 16, 16))


def test_jpeg_comes_out_nearly(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", quality=95)
    assert (read_image(tmp_path / "a.jpg", fit="none")[0] - torch.from_numpy(RAMP / np.float32(255))).abs().mean() < 0.02


def test_sixteen_bits_are_scaled_by_their_range_and_not_cut_to_eight(tmp_path):
    values = np.array([[0, 257, 32768, 65535]] * 4, np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert torch.allclose(read_image(tmp_path / name, fit="none")[1], torch.from_numpy(values / np.float32(65535)), atol=1e-7)
    assert np.asarray(open_image(tmp_path / "a.png"))[0].tolist() == [0, 1, 128, 255]


def test_palette_cmyk_and_transparency(tmp_path):
    colours = Image.new("RGB", (4, 4), (200, 40, 0))
    colours.quantize(4).save(tmp_path / "p.png")
    colours.convert("CMYK").save(tmp_path / "c.tif")
    Image.new("RGBA", (4, 4), (200, 40, 0, 0)).save(tmp_path / "t.png")
    Image.new("LA", (4, 4), (200, 128)).save(tmp_path / "la.png")
    for name in ("p.png", "c.tif"):
        assert (read_image(tmp_path / name, fit="none")[:, 0, 0] * 255).round().tolist() == pytest.approx([200, 40, 0], abs=2)
    assert read_image(tmp_path / "t.png", fit="none").max() == 0, "what is transparent lies over black"
    assert read_image(tmp_path / "la.png", fit="none")[0, 0, 0] * 255 == pytest.approx(100, abs=1)


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of the stored picture is the right of the real one
    stored = np.zeros((8, 16), np.uint8)
    stored[0] = 255
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png", fit="none")
    assert image.shape == (3, 16, 8) and image[0, :, -1].min() == 1 and image[0, :, 0].max() == 0
    assert check_image(tmp_path / "a.png") == check_image(tmp_path / "a.png", decode=True) == (8, 16)


def test_crop_cuts_the_longer_side_about_its_middle_and_pad_keeps_all(tmp_path):
    stored = np.zeros((16, 32), np.uint8)
    stored[:, 8:24] = 200
    Image.fromarray(stored).save(tmp_path / "a.png")
    cropped, padded = (read_image(tmp_path / "a.png", 16, fit)[0] * 255 for fit in ("crop", "pad"))
    assert torch.equal(cropped, torch.full((16, 16), 200.0))
    assert padded[:4].max() == 0 and padded[12:].max() == 0 and padded[8, 8] > 190


@pytest.mark.parametrize("fit", ["crop", "pad", "none"])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (33, 97)])
def test_boxes_go_where_the_image_goes(tmp_path, fit, shape):
    stored = np.zeros(shape[::-1], np.uint8)
    top = shape[1] // 2 - 3
    box = Box(14, top, 10, 8, "x")
    stored[top:top + 8, 14:24] = 255
    Image.fromarray(stored).save(tmp_path / "a.png")
    image, placed = read_image(tmp_path / "a.png", 200, fit)[0], transform_box(box, shape, 200, fit)
    rows, columns = (torch.nonzero((image > 0.5).any(axis)).ravel() for axis in (1, 0))
    found = columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    assert [placed.x, placed.y, placed.width, placed.height] == pytest.approx([float(value) for value in found], abs=1.6)
    assert placed.label == "x"
    mask = read_mask(tmp_path / "a.png", 200, fit)
    assert mask.shape == (1, *image.shape) and ((mask[0] > 0) == (image > 0.5)).float().mean() > 0.985


def test_a_box_that_the_crop_cuts_off_is_none():
    assert transform_box(Box(0, 0, 3, 10), (30, 10), 10, "crop") is None
    assert transform_box(Box(8, 0, 4, 10), (30, 10), 10, "crop").width == 2


def test_masks_are_zero_and_one(tmp_path):
    Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", fit="none").tolist() == [[[0, 1], [1, 1]]]


def test_what_is_written_is_read_back(tmp_path):
    colour = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    grey = colour[:1].expand(3, 8, 9)
    nearly = grey.clone()
    nearly[2] = 0
    for name, image in (("c.png", colour), ("n.png", nearly), ("g.png", grey)):
        save_image(image, tmp_path / name)
        assert (read_image(tmp_path / name, fit="none") - image).abs().max() <= 0.5 / 255 + 1e-6
    assert Image.open(tmp_path / "g.png").mode == "L" and Image.open(tmp_path / "c.png").mode == "RGB"


def test_a_failed_write_leaves_the_former_file(tmp_path, monkeypatch):
    save_image(torch.zeros(3, 8, 8), tmp_path / "a.png")

    def fail(self, path, **rest):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(MedTuneError, match="No space left"):
        save_image(torch.ones(3, 8, 8), tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", fit="none").max() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("image", [torch.full((3, 4, 4), float("nan")), torch.full((1, 4, 4), float("inf")), torch.zeros(4, 4, 3)])
def test_what_is_no_image_is_not_written(tmp_path, image):
    with pytest.raises(DataError, match=r"finite|shape"):
        save_image(image, tmp_path / "a.png")
    assert not any(tmp_path.iterdir())


def bad_files(folder):
    """Name -> what the error must say."""
    grain = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128)).astype(np.uint8))
    grain.save(folder / "whole.png")
    grain.save(folder / "whole.jpg")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:-200])
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-400])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture", encoding="utf-8")
    (folder / "bomb.png").write_bytes(png_header(20_000, 20_000))
    (folder / "large.png").write_bytes(png_header(10_001, 10_000))
    (folder / "head.png").write_bytes(png_header(64, 64)[:20])
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(folder / "nan.tif")
    Image.fromarray(np.full((4, 4), 4000, np.float32)).save(folder / "range.tif")
    Image.fromarray(np.full((4, 4), 100_000, np.int32)).save(folder / "int.tif")
    Image.new("L", (4, 4)).save(folder / "pages.tif", save_all=True, append_images=[Image.new("L", (4, 4))])
    (folder / "fake.dcm").write_bytes(b"not dicom at all")
    return {"cut.png": "cut short", "cut.jpg": "cut short", "empty.png": "0 bytes", "text.png": "not an image",
            "bomb.png": "more than 100,000,000 pixels", "large.png": "10001 x 10000 pixels", "head.png": "not an image|damaged",
            "nan.tif": "NaN", "range.tif": "0 to 1",
            "int.tif": "32-bit", "pages.tif": "2 pictures", "fake.dcm": "not a DICOM", "gone.png": "cannot read"}


def test_bad_files_are_refused_by_path_and_reason(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(DataError, match=reason) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_leave_to_read_torn_files_that_another_program_took_is_not_used(tmp_path, monkeypatch):
    bad_files(tmp_path)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError):
        read_image(tmp_path / "cut.jpg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_headers_show_most_of_it(tmp_path):
    seen_only_decoded = {"cut.jpg", "nan.tif", "range.tif", "int.tif"}
    for name in bad_files(tmp_path).keys() - seen_only_decoded:
        with pytest.raises(DataError):
            check_image(tmp_path / name)
    assert check_image(tmp_path / "whole.jpg") == (128, 128)


@pytest.mark.parametrize("size, fit", [(0, "crop"), (64, "stretch"), (-5, "pad"), (64.0, "crop")])
def test_sizes_and_fits_that_are_not(tmp_path, size, fit):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(ConfigError):
        read_image(tmp_path / "a.png", size, fit)
