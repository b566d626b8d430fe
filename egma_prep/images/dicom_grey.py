"""Stored DICOM values to 8-bit grey: as MIMIC-CXR-JPG was made, or as the header shows them."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray

_PERCENTILES = (0.5, 99.5)
_DISPLAY_BITS = 8

FloatArray = NDArray[np.float64]
ToValues = Callable[[FloatArray], FloatArray]


class Lut(NamedTuple):
    """A lookup table: the input that its first entry is for, and its entries."""

    first: int
    entries: FloatArray

    def of(self, values: FloatArray) -> FloatArray:
        """Look values up; those beyond an end get the entry at that end."""
        at = np.floor(values + 0.5).astype(np.int64) - self.first
        return self.entries[np.clip(at, 0, len(self.entries) - 1)]


def as_mimic_cxr_jpg(stored: NDArray[np.integer], inverted: bool) -> NDArray[np.uint8]:
    """Make the pixels that MIMIC-CXR-JPG made of stored values.

    Johnson et al. 2019, "MIMIC-CXR-JPG" (arXiv 1901.07042), and the function that its authors show
    in github.com/MIT-LCP/mimic-cxr, issue 16, in its order: from minimum to maximum onto 0..255,
    fractions cut off; then MONOCHROME1 inverted; then OpenCV's histogram equalisation (and JPEG,
    OpenCV's quality of 95). Rescale, windows and tables play no part.

    Parameters
    ----------
    stored : ndarray
        ``(rows, columns)``, without unused bits. Theirs does not mask those, CheXpert's code,
        otherwise the same, does; the standard says that they mean nothing.
    inverted : bool
        Whether the image is MONOCHROME1.
    """
    least, most = int(stored.min()), int(stored.max())
    steps = np.arange(most - least + 1)
    table = (steps / max(most - least, 1) * 255).astype(np.uint8)  # their order of operations
    shown = (~table if inverted else table)[stored.astype(np.int64) - least]
    return np.asarray(cv2.equalizeHist(shown), dtype=np.uint8)


def as_shown(
    stored: NDArray[np.integer], header: pydicom.Dataset, inverted: bool
) -> tuple[NDArray[np.uint8], list[str]]:
    """Show stored values as their header asks for.

    Modality table or rescale; then the first usable VOI table, or window; else 8 bits as they are,
    or the range between percentiles. MONOCHROME1 is inverted last.

    Returns
    -------
    pixels : ndarray
        Like `stored`, uint8.
    notes : list of str
        Of `errors.NOTES`: what of the header was passed over.
    """
    notes: list[str] = []
    least = int(stored.min())
    index = stored.astype(np.int64) - least  # (rows, columns)
    inputs = np.arange(least, least + int(index.max()) + 1, dtype=np.float64)
    present = np.bincount(index.ravel()) > 0
    to_values = _modality(header, inputs, present, notes)
    values = to_values(inputs)
    share = _voi_share(header, values, present, notes)
    if share is None:
        low, high = _range_ends(header, to_values, values, index)
        share = (values - low) / (high - low) if high > low else np.zeros(len(values))
    share = np.clip(share, 0, 1)
    shown = np.floor(255 * (1 - share if inverted else share) + 0.5).astype(np.uint8)
    return shown[index], notes


def _modality(
    header: pydicom.Dataset, inputs: FloatArray, present: NDArray[np.bool_], notes: list[str]
) -> ToValues:
    """Make the function from stored values to the modality's (PS3.3 C.11.1)."""
    for table in _tables(header, "ModalityLUTSequence", inputs, notes):
        if not _hides(table.of(inputs) / table.entries.max(), inputs, present):
            return table.of
        notes.append("dicom_table_passed_over")
    slope = (numbers(header, "RescaleSlope") or [1.0])[0]
    intercept = (numbers(header, "RescaleIntercept") or [0.0])[0]
    if math.isnan(slope) or math.isnan(intercept) or not slope:
        notes.append("dicom_rescale_passed_over")
        slope, intercept = 1.0, 0.0
    return lambda stored: stored * slope + intercept


def _voi_share(
    header: pydicom.Dataset, values: FloatArray, present: NDArray[np.bool_], notes: list[str]
) -> FloatArray | None:
    """Bring values to 0 to 1 by what the header names as of interest; None if it names nothing.

    What would show all of an image as one grey level, though its values differ, is passed over.

    Table before window: a maker who gives both drew the curve in the table, of which the window is
    the straight part at best; pydicom's ``apply_voi_lut``, so most of the field, does the same.
    """
    for table in _tables(header, "VOILUTSequence", values, notes):
        # Many say 16 bits and end at 4095: white is the largest entry, not the largest number.
        share = table.of(values) / table.entries.max()
        if not _hides(share, values, present):
            return share
        notes.append("dicom_table_passed_over")
    centres, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    pairs = list(zip(centres, widths, strict=False))
    for number, (centre, width) in enumerate(pairs):
        share = _window_share(values, centre, width, function)
        if share is not None and not _hides(share, values, present):
            notes += ["dicom_window_passed_over"] * (number > 0)
            return share
    notes += ["dicom_window_passed_over"] * bool(centres or widths)
    return None


def _hides(share: FloatArray, values: FloatArray, present: NDArray[np.bool_]) -> bool:
    """Tell whether values that differ, of those in the image, become one grey level."""
    levels = np.floor(255 * np.clip(share[present], 0, 1) + 0.5)
    return bool(np.ptp(levels) == 0 and np.ptp(values[present]) > 0)


def _window_share(
    values: FloatArray, centre: float, width: float, function: str
) -> FloatArray | None:
    """Apply a window (PS3.3 C.11.2.1.2 and C.11.2.1.3); None if it is none."""
    if math.isnan(centre) or math.isnan(width) or width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width < 1:
        # LINEAR has no such width. After a small rescale slope it can be meant all the same;
        # of whole values it would leave black and white.
        several = len(np.unique(values[np.abs(values - centre) <= width / 2])) > 1
        return (values - centre) / width + 0.5 if several else None
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _range_ends(
    header: pydicom.Dataset, to_values: ToValues, values: FloatArray, index: NDArray[np.integer]
) -> tuple[float, float]:
    """Say which values are black and white where the header does not."""
    bits = whole(header, "BitsStored")
    if bits <= _DISPLAY_BITS:  # made to be looked at: a stretch would move every grey level
        below = 2 ** (bits - 1) if whole(header, "PixelRepresentation") else 0
        ends = to_values(np.array([-below, 2.0**bits - 1 - below]))
        return float(ends.min()), float(ends.max())
    low, high = _percentiles(values, np.bincount(index.ravel()))
    if low == high:  # a few bright pixels on a plain ground
        low, high = values.min(), values.max()
    return float(low), float(high)


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


def _tables(
    header: pydicom.Dataset, name: str, inputs: FloatArray, notes: list[str]
) -> Iterator[Lut]:
    """Yield the usable lookup tables of a sequence; note those that are not."""
    little_endian = header.original_encoding[1] is not False
    for item in header.get(name) or ():
        known = isinstance(item, pydicom.Dataset)  # not bytes of an unknown kind
        table = read_lut(item, float(inputs.max()), little_endian) if known else None
        if table is not None:
            yield table
        else:
            notes.append("dicom_table_passed_over")


def read_lut(item: pydicom.Dataset, greatest_input: float, little_endian: bool) -> Lut | None:
    """Read a table by its own length, sign and maximum, since its descriptor often errs.

    Parameters
    ----------
    item : Dataset
        Of a Modality or VOI LUT sequence; its descriptor (PS3.3 C.11.1.1.1) has the number of
        entries (0: 65,536), the first input, signed or not, and the bits of an entry.
    greatest_input : float
        Of the image: a first input beyond it is a negative one.

    Returns
    -------
    Lut or None
        None if descriptor or data are missing, more than half of the entries are, or all are one.
    """
    descriptor = _words(item, "LUTDescriptor", little_endian)
    words = _words(item, "LUTData", little_endian)
    if len(descriptor) != 3 or not len(words):
        return None
    n_entries, first, bits = (int(value) for value in descriptor)
    entries = _entries(words, n_entries or 2**16, bits)
    if entries is None:
        return None
    first -= 2**16 * (first >= 2**15 and first > greatest_input)
    return Lut(first, entries) if np.ptp(entries) else None


def _entries(words: NDArray[np.integer], n_entries: int, bits: int) -> FloatArray | None:
    """Tell bytes from words by the length of the data: makers say 16 bits of packed bytes too.

    Data of neither length ends too early: entries of 8 bits that leave no upper byte in use come
    one a word.
    """
    n_bytes = 2 * len(words)
    packed = n_entries <= n_bytes <= n_entries + 1
    if not packed and n_bytes < 2 * n_entries:
        packed = bits <= 8 and bool((words >> 8).any())
        if not packed and n_bytes < n_entries:
            return None
    entries = words.astype("<u2").view(np.uint8) if packed else words  # the lower byte first
    return entries[:n_entries].astype(np.float64)


def _words(item: pydicom.Dataset, name: str, little_endian: bool) -> NDArray[np.integer]:
    """Read an element's unsigned 16-bit words, whether it came as numbers or as bytes."""
    try:
        value: Any = item.get(name)
        if isinstance(value, bytes):
            even = value + b"\0" * (len(value) % 2)
            return np.frombuffer(even, "<u2" if little_endian else ">u2")
        return np.atleast_1d(np.array([] if value is None else value)).astype(np.int64) & 0xFFFF
    except (TypeError, ValueError):
        return np.array([], np.int64)


def numbers(header: pydicom.Dataset, name: str) -> list[float]:
    """Read an element's numbers, none if it is absent or blank; NaN for what is none."""
    try:
        value: Any = header.get(name)
    except (TypeError, ValueError):  # text that pydicom cannot make a number of
        value = getattr(header.get_item(name), "value", None)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.strip("\0 ").split("\\") if value.strip("\0 ") else None
    if value is None:
        return []
    return [_number(one) for one in np.atleast_1d(np.array(value, dtype=object))]


def _number(value: Any) -> float:
    try:
        number = float(str(value).strip("\0 "))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def whole(header: pydicom.Dataset, name: str) -> int:
    """Read an element's whole number; 0 if it has none."""
    found = numbers(header, name)
    return int(found[0]) if found and not math.isnan(found[0]) else 0
