"""DICOM files as grey or colour values, by the standard's own steps: modality, window, photometric interpretation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, Missing

DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"


def read_dicom(path: str | Path) -> np.ndarray:
    """The picture, (H, W) or (H, W, 3) float32 in [0, 1].

    Values go through the rescale slope and intercept, then the file's VOI table or first window; without one, the range
    of the stored bits is the scale. MONOCHROME1 is inverted, so that bright is dense as elsewhere. DataError for a file
    without pixels, with several frames, or compressed in a way that nothing installed can decode.
    """
    path = Path(path)
    dataset = _open(path)
    _check(path, dataset)
    stored = _decode(path, dataset)
    interpretation = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if stored.ndim == 3 or interpretation == "PALETTE COLOR":
        return _colour(dataset, stored, interpretation)
    values = _scale(dataset, stored)
    if not np.isfinite(values).all():
        raise DataError(f"{path} gives pixels that are not finite numbers: its rescale or window values are broken")
    return 1 - values if interpretation == "MONOCHROME1" else values


def _open(path: Path) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise Missing(f"reading {path} needs pydicom: pip install pydicom") from error
    try:
        return pydicom.dcmread(path, force=False)
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DataError(f"{path} is not a DICOM file, or damaged: {error}") from error


def _check(path: Path, dataset: Any) -> None:
    from .image import MAX_PIXELS

    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = getattr(dataset.get("SOPClassUID"), "name", "unknown kind")
        raise DataError(f"{path} is a DICOM file without pixels ({kind}); leave it out")
    try:
        frames, high, wide = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not say how many rows and columns it has; it is damaged") from error
    if frames > 1:
        raise DataError(f"{path} holds {frames} frames; save the one that is meant as a file of its own")
    if high * wide > MAX_PIXELS:
        raise DataError(f"{path} has {wide} x {high} pixels, more than {MAX_PIXELS:,}; scale it down first")


def _decode(path: Path, dataset: Any) -> np.ndarray:
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    try:
        return dataset.pixel_array
    except Exception as error:
        if syntax is not None and syntax.is_compressed and _undecodable(error):
            raise DataError(f"{path} is compressed as {syntax.name}, which nothing installed can decode. "
                            f"Install a decoder: {DECODERS}") from error
        raise DataError(f"{path}: its pixels cannot be read: {error}") from error


def _undecodable(error: Exception) -> bool:
    """Whether pydicom failed for lack of a plug-in rather than for damage."""
    text = str(error).lower()
    return isinstance(error, (NotImplementedError, ImportError)) or any(
        phrase in text for phrase in ("missing dependencies", "missing required dependencies", "no available", "not available",
                                      "no decoders", "no pixel data decoders", "unable to decode as the", "plugins are missing"))


def _scale(dataset: Any, stored: np.ndarray) -> np.ndarray:
    """Rescaled and windowed to [0, 1]."""
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if "VOILUTSequence" in dataset:
        from pydicom.pixels import apply_voi

        looked_up = apply_voi(np.rint(stored * slope + intercept).astype(np.int32), dataset)
        return (looked_up / np.float32(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)).astype(np.float32)
    values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    window = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if None in window:
        bits = int(dataset.get("BitsStored", 8 * stored.dtype.itemsize))
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.get("PixelRepresentation") else (0, 2**bits - 1)
        low, high = sorted((low * slope + intercept, high * slope + intercept))
        return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return _window(values, *window, str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR"))


def _window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, onto [0, 1]."""
    if function == "SIGMOID":
        return (1 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1).astype(np.float32)
    return np.clip((values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5, 0, 1).astype(np.float32)


def _colour(dataset: Any, stored: np.ndarray, interpretation: str) -> np.ndarray:
    if interpretation == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        stored = apply_color_lut(stored, dataset)
        return (stored[..., :3] / np.float32(np.iinfo(stored.dtype).max)).astype(np.float32)
    return (stored[..., :3] / np.float32(2 ** int(dataset.get("BitsStored", 8)) - 1)).astype(np.float32)


def _number(dataset: Any, name: str, default: float) -> float:
    value = _first(dataset.get(name))
    return default if value is None else value


def _first(value: Any) -> float | None:
    """The first of a DICOM value that may be absent, single or many."""
    if value is None or value == "":
        return None
    return float(value[0]) if hasattr(value, "__len__") and not isinstance(value, str) else float(value)
