"""DICOM bytes to 8-bit grey pixels (DESIGN, "Image frame")."""

import contextlib
import io
import logging
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSTransferSyntaxes

from egma_prep.errors import BadInputError

_PERCENTILES = (0.5, 99.5)
_FAR = 1e9  # beyond every pixel value: where a window's output has come to its ends
_MAX_VALUES = 65536
_META_BEGINS = 144  # after the preamble and the element that holds its length
_MOST_BYTES = 2**28

FloatArray = NDArray[np.float64]

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it says becomes the reject's text


def dicom_size(data: bytes, path: str) -> tuple[int, int]:
    """Read width and height from a grey single-frame image's header.

    Raises
    ------
    BadInputError
        If it is no such image.
    """
    with _damage_named(path):
        _refuse_bomb(data, path)
        header = pydicom.dcmread(io.BytesIO(data))
        width, height = _whole(header, "Columns"), _whole(header, "Rows")
        frames, interpretation = _whole(header, "NumberOfFrames"), _interpretation(header)
        has_pixels = "PixelData" in header
    if not has_pixels or width < 1 or height < 1:
        raise BadInputError("not_an_image", path, f"{path} is a DICOM file without an image")
    if frames > 1 or interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        what = f"{path} holds {max(frames, 1)} frames of {interpretation or 'unnamed colours'}"
        raise BadInputError("not_a_grey_image", path, what)
    return width, height


def decode_dicom(data: bytes, path: str) -> NDArray[np.uint8]:
    """Decode and window an image of `dicom_size`'s kind.

    Returns
    -------
    ndarray
        ``(rows, columns)`` uint8, bright where MONOCHROME2 would be.

    Raises
    ------
    BadInputError
        If the pixels are damaged, cut off, or compressed in a way that no decoder knows.
    """
    with _damage_named(path):
        header = pydicom.dcmread(io.BytesIO(data))
        _check_length(header, path)
        if header.file_meta.TransferSyntaxUID in JPEGLSTransferSyntaxes:
            header.pixel_array_options(decoding_plugin="pyjpegls")  # faster than gdcm: benchmarks/
        return _grey(header, header.pixel_array)


def _refuse_bomb(data: bytes, path: str) -> None:
    """Refuse a deflated file that would fill the memory when pydicom inflates it at once."""
    begin = _META_BEGINS + int.from_bytes(data[_META_BEGINS - 4 : _META_BEGINS], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in data[_META_BEGINS:begin]:
        return
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[begin:], _MOST_BYTES)
    if len(inflated) == _MOST_BYTES:
        what = f"{path} inflates to more than {_MOST_BYTES:,} bytes"
        raise BadInputError("oversized_image", path, what)


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Turn the many ways in which pydicom and its decoders fail on damaged bytes into one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadInputError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadInputError("undecodable_image", path, f"{path}: {reason}") from None


def _whole(header: pydicom.Dataset, name: str) -> int:
    try:
        return int(header.get(name) or 0)
    except (TypeError, ValueError):
        return 0


def _interpretation(header: pydicom.Dataset) -> str:
    return str(header.get("PhotometricInterpretation", "")).strip()


def _check_length(header: pydicom.Dataset, path: str) -> None:
    if header.file_meta.TransferSyntaxUID.is_compressed:
        return
    wanted = header.Rows * header.Columns * header.BitsAllocated // 8
    if len(header.PixelData) < wanted:
        what = f"{path} has {len(header.PixelData):,} bytes of pixels instead of {wanted:,}"
        raise BadInputError("truncated_image", path, what)


def _grey(header: pydicom.Dataset, stored: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Look every stored value up in a table of grey levels."""
    least = int(stored.min())
    index = stored.astype(np.int64) - least  # (rows, columns)
    n_values = int(index.max()) + 1
    if n_values > _MAX_VALUES or not np.issubdtype(stored.dtype, np.integer):
        raise ValueError(f"pixels of {stored.dtype} with {n_values} values")
    values = apply_modality_lut(np.arange(least, least + n_values), header).astype(np.float64)
    share = _shown_share(header, values, index)
    if _interpretation(header) == "MONOCHROME1":
        share = 1 - share
    return np.floor(255 * share + 0.5).astype(np.uint8)[index]


def _shown_share(
    header: pydicom.Dataset, values: FloatArray, index: NDArray[np.integer]
) -> FloatArray:
    """Bring values to 0 to 1: by the window, else the lookup table, else percentiles."""
    if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        windowed = apply_windowing(np.append(values, [-_FAR, _FAR]), header)
        shown, (low, high) = windowed[:-2], windowed[-2:]
    elif header.get("VOILUTSequence"):
        shown = apply_voi(values.astype(np.int64), header)
        low, high = 0, 2 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
    else:
        shown, (low, high) = values, _percentiles(values, np.bincount(index.ravel()))
    spread = high - low
    if spread == 0:
        return np.zeros(len(values))
    return np.clip((np.asarray(shown, dtype=np.float64) - low) / spread, 0, 1)


def _percentiles(values: FloatArray, counts: NDArray[np.integer]) -> FloatArray:
    """Interpolate between order statistics, as `numpy.percentile` does, from a histogram."""
    order = np.argsort(values)
    ranks = np.cumsum(counts[order])  # pixels up to each value
    at = (ranks[-1] - 1) * np.array(_PERCENTILES) / 100
    lower = np.floor(at)
    below, above = (
        values[order][np.searchsorted(ranks, np.minimum(rank, ranks[-1] - 1), side="right")]
        for rank in (lower, lower + 1)
    )
    return below + (above - below) * (at - lower)
