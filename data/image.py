"""Image files to tensors and back: PNG, JPEG, WebP, TIFF, BMP, GIF, JPEG 2000 and DICOM."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..errors import ConfigError, DataError
from ..files import hash_file, whole
from .record import Box

MAX_PIXELS = 100_000_000
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".dcm", ".dicom")
FITS = ("crop", "pad", "none")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000")


def read_image(path: str | Path, size: int = 512, fit: str = "crop") -> torch.Tensor:
    """The image as (3, H, W) float32 in [0, 1].

    ``fit`` brings it to ``size`` x ``size``: ``crop`` scales the shorter side and cuts the longer one about its middle,
    ``pad`` scales the longer side and adds black, ``none`` leaves the image as stored.
    DataError for a file that cannot be used.
    """
    image = _place(_decode(Path(path)), size, fit, Image.Resampling.BICUBIC)
    values = np.asarray(image, np.float32) if image.mode == "F" else np.asarray(image, np.float32) / 255
    values = np.clip(values, 0, 1)
    return torch.from_numpy(np.repeat(values[None], 3, 0) if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1)))


def read_mask(path: str | Path, size: int = 512, fit: str = "crop") -> torch.Tensor:
    """A mask file as (1, H, W) of 0 and 1: any pixel above zero is in the region. Placed as ``read_image`` places."""
    image = _decode(Path(path))
    values = np.asarray(image)
    region = Image.fromarray(((values if values.ndim == 2 else values.max(2)) > 0).astype(np.uint8))
    return torch.from_numpy(np.asarray(_place(region, size, fit, Image.Resampling.NEAREST), np.float32)[None])


def open_image(path: str | Path) -> Image.Image:
    """The image as stored, in 8 bits, grey (L) or RGB."""
    image = _decode(Path(path))
    return image if image.mode != "F" else Image.fromarray(np.rint(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8))


def save_image(image: torch.Tensor, path: str | Path) -> None:
    """Write (3, H, W) or (1, H, W) in [0, 1] as 8-bit PNG, whole or not at all; grey is kept as one channel."""
    path = Path(path)
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"an image of shape {tuple(image.shape)} cannot be written to {path}; it must be (3, H, W) or (1, H, W)")
    values = image.detach().float().cpu().numpy()
    if values.shape[0] == 3 and np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2]):
        values = values[:1]
    if not np.isfinite(values).all():
        raise DataError(f"the image for {path} has pixels that are not finite numbers; it was not written")
    levels = np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)
    picture = Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))
    with whole(path) as beside:
        picture.save(beside, format="PNG", compress_level=2)


def check_image(path: str | Path, decode: bool = False) -> tuple[int, int]:
    """(width, height) of an image that can be used, by its header or, with ``decode``, by all of it; otherwise DataError.

    DICOM files are read whole either way.
    """
    path = Path(path)
    start = _first_bytes(path)
    if decode or _is_dicom(path, start):
        return _decode(path).size
    with _open(path, start) as image:
        _check_ending(path, image.format)
        noted = image.format != "PNG" or "exif" in image.info  # a PNG without would be decoded whole to look for one
        return image.size[::-1] if noted and image.getexif().get(0x0112, 1) >= 5 else image.size


def _check_ending(path: Path, kind: str | None) -> None:
    """A PNG file that was cut short lacks its end mark: seen without decoding it."""
    if kind != "PNG":
        return
    with open(path, "rb") as file:
        file.seek(-min(path.stat().st_size, 4096), 2)
        if b"IEND" not in file.read():
            raise DataError(f"{path} is cut short: the end of the PNG is missing; copy it again or leave it out")


def hash_image(path: str | Path) -> str:
    """SHA-256 of the file's bytes."""
    return hash_file(path)


def transform_box(box: Box, shape: tuple[int, int], size: int = 512, fit: str = "crop") -> Box | None:
    """Where ``read_image`` puts a box of an image of (width, height); None where the crop leaves nothing of it."""
    wide, high, left, top = _layout(shape, size, fit)
    x, y = wide / shape[0], high / shape[1]
    edge = (wide, high) if fit == "none" else (size, size)
    x0, y0 = max(box.x * x - left, 0), max(box.y * y - top, 0)
    x1, y1 = min((box.x + box.width) * x - left, edge[0]), min((box.y + box.height) * y - top, edge[1])
    return Box(x0, y0, x1 - x0, y1 - y0, box.label) if x1 > x0 and y1 > y0 else None


def _layout(shape: tuple[int, int], size: int, fit: str) -> tuple[int, int, int, int]:
    """Scaled width and height, and the crop's left and top in it (negative: padding)."""
    if fit not in FITS:
        raise ConfigError(f"fit is {fit!r}; it must be one of: {', '.join(FITS)}")
    if fit == "none":
        return *shape, 0, 0
    if not isinstance(size, int) or size < 8:
        raise ConfigError(f"size is {size!r}; it must be a whole number of at least 8")
    scale = size / (min(shape) if fit == "crop" else max(shape))
    wide, high = (max(1, round(side * scale)) for side in shape)
    return wide, high, (wide - size) // 2, (high - size) // 2


def _place(image: Image.Image, size: int, fit: str, way: Image.Resampling) -> Image.Image:
    wide, high, left, top = _layout(image.size, size, fit)
    if image.size != (wide, high):
        image = image.resize((wide, high), way)
    return image if fit == "none" or image.size == (size, size) else image.crop((left, top, left + size, top + size))


def _is_dicom(path: Path, start: bytes) -> bool:
    return start[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _decode(path: Path) -> Image.Image:
    """The picture in mode L, RGB, or F (in [0, 1], from sources of more than 8 bits)."""
    start = _first_bytes(path)
    if _is_dicom(path, start):
        from .dicom import read_dicom

        values = read_dicom(path)
        return Image.fromarray(values if values.ndim == 2 else np.rint(values * 255).astype(np.uint8))
    with _open(path, start) as image:
        image.load()
        return _plain(path, ImageOps.exif_transpose(image))


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """FORMATS as far as this Pillow was built with them."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextlib.contextmanager
def _open(path: Path, start: bytes) -> Iterator[Image.Image]:
    """An image whose header is read and whose size is bearable; what Pillow says of damage becomes a DataError."""
    try:
        with _strict(), Image.open(path, formats=_formats()) as image:
            _check_size(path, image)
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has more than {MAX_PIXELS:,} pixels ({error}); scale it down first") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image: it begins with {start[:12]!r}. "
                        f"Known are {', '.join(FORMATS)} and DICOM.") from error
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short: {error}; copy it again or leave it out") from error


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not start:
        raise DataError(f"{path} is empty (0 bytes); copy it again or leave it out")
    return start


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Pillow without its warning on size (ours is an error) and without its leave to read torn files."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{path} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; scale it down first")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a JPEG with its own thumbnail
        raise DataError(f"{path} holds {frames} pictures; save the one that is meant on its own")


def _plain(path: Path, image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as L, RGB or F; transparency over black."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "F":
        return _float(path, image)
    if image.mode.startswith("I"):
        return _integers(path, image)
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _float(path: Path, image: Image.Image) -> Image.Image:
    values = np.asarray(image, np.float32)
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise DataError(f"{path} has {broken} pixels that are not finite numbers (NaN or infinity); mend or leave out the image")
    if values.min() < 0 or values.max() > 1:
        raise DataError(f"{path} has float pixels from {values.min():g} to {values.max():g}; they must lie in 0 to 1. "
                        "Scale them, or save the image in 8 or 16 bits.")
    return image


def _integers(path: Path, image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and image.format != "PNG" and (values.min() < 0 or values.max() > 65535):
        raise DataError(f"{path} has 32-bit pixels from {values.min()} to {values.max()}, for which no range is agreed; "
                        "save it in 8 or 16 bits")
    return Image.fromarray(values.astype(np.float32) / np.float32(65535))
