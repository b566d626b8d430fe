"""DICOM files to grey pictures as their headers show them: ``image.dicom_grey = "window"``.

The evaluation lists' DICOM files (RSNA, SIIM) are no MIMIC-CXR, so what `egma_prep` does for those
alone, MIMIC-CXR-JPG's equalised histograms, has no place here.
"""

import contextlib
import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from egma_train.errors import UnreadableImageError
from egma_train.evaluate.images.colour import grey_of_colours

Frame = NDArray[np.uint8]
Values = NDArray[Any]

_PERCENTILES = (0.5, 99.5)
_MOST_BYTES = 2**28
_DEFLATED, _SEGMENTATION = "1.2.840.10008.1.2.1.99", "1.2.840.10008.5.1.4.1.1.66.4"
_NATIVE = {f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99", ".5")}  # and RLE
_DCT_JPEG = {f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 53, 55)}  # .53 and .55: retired
_JPEG_LS = {f"1.2.840.10008.1.2.4.{end}" for end in (80, 81)}
_LOSSLESS_JPEG = {f"1.2.840.10008.1.2.4.{end}" for end in (57, 70)}
_JPEG_2000 = {f"1.2.840.10008.1.2.4.{end}" for end in (90, 91)}
_READ = _NATIVE | _DCT_JPEG | _LOSSLESS_JPEG | _JPEG_LS | _JPEG_2000
_PALETTE = "PALETTE COLOR"
_COLOURS = (_PALETTE, "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
_SHORT = b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()

# As `warnings.simplefilter` adds; the comment, which matches all, tells it from the user's own.
_IGNORE = ("ignore", re.compile("(?#while egma_train reads DICOM)"), Warning, None, 0)
_lock, _undo, _readers = threading.Lock(), contextlib.ExitStack(), 0


def looks_like_dicom(data: bytes) -> bool:
    """Tell whether bytes are a DICOM file, with or without preamble, by content."""
    return _begin(data) is not None


def grey_of_dicom(data: bytes) -> Frame:
    """Decode a single frame to grey, ``(rows, columns)`` uint8, bright where it is dense.

    Modality table or rescale; then the first usable VOI table, or window, that leaves more than one
    grey level of values that differ; else 8 bits as they are, or the range between percentiles.
    MONOCHROME1 is inverted last. Colours become their luma.

    Raises
    ------
    UnreadableImageError
        If it is none, damaged, or of a kind that is not read.
    """
    with _quiet():
        try:
            header = _header(data)
            kind = _checked_kind(header, _ends_whole(header, data))
        except UnreadableImageError:
            raise
        except Exception:  # pydicom has many
            raise UnreadableImageError("a DICOM header that cannot be read") from None
        try:
            header.PhotometricInterpretation = kind  # pydicom knows capitals alone
            if header.file_meta.TransferSyntaxUID in _JPEG_2000:
                n = 3 if kind in _COLOURS and kind != _PALETTE else 1
                if _check_jpeg2000(header, n) and n == 1:
                    header.PixelRepresentation = 1  # the stream has the values, and their sign
            if kind in _COLOURS:
                return grey_of_colours(_colours(header, kind))
            stored = _stored(header)
        except UnreadableImageError:
            raise
        except Exception:  # each decoder has its own
            name = header.file_meta.TransferSyntaxUID.name
            raise UnreadableImageError(f"DICOM pixels that cannot be decoded ({name})") from None
        share = _share(header, stored)
    share = 1 - np.clip(share, 0, 1) if kind == "MONOCHROME1" else np.clip(share, 0, 1)
    return np.floor(255 * share + 0.5).astype(np.uint8)


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence pydicom while any thread reads; the last one restores what the first found."""
    import pydicom

    global _readers
    with _lock:
        if not _readers:
            settings, logger = pydicom.config.settings, logging.getLogger("pydicom")
            mode, level = settings.reading_validation_mode, logger.level
            _undo.callback(setattr, settings, "reading_validation_mode", mode)
            _undo.callback(logger.setLevel, level)
            _undo.callback(_unfilter, filters := cast(list[Any], warnings.filters))
            settings.reading_validation_mode = pydicom.config.IGNORE
            logger.setLevel(logging.CRITICAL + 1)
            filters.insert(0, _IGNORE)
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                _undo.close()


def _unfilter(filters: list[Any]) -> None:
    """Take out `_IGNORE` alone: `catch_warnings` would undo what other threads set meanwhile."""
    for one in (filters, cast(list[Any], warnings.filters)):  # the latter may be a copy
        with contextlib.suppress(ValueError):
            one.remove(_IGNORE)


# -- the file -------------------------------------------------------------------------------------


def _begin(data: bytes) -> int | None:
    """Find the first element: after the preamble, or where two that come first begin the file."""
    if data[128:132] == b"DICM":
        return 132
    for at in (0, 1):  # a stray byte, the padding of a lost file meta group
        for order in ("little", "big"):
            first = _element(data, at, order)
            second = first and _element(data, first[2], order)
            if first and second and first[0] in (2, 8) and second[0] in (2, 8, 16):
                return at
    return None


def _element(data: bytes, at: int, order: Any) -> tuple[int, int, int] | None:
    """Read an element's group, number and end; None if there is no whole one."""

    def number(begin: int, size: int) -> int:
        return int.from_bytes(data[begin : begin + size], order)

    kind, end = data[at + 4 : at + 6], len(data) + 1
    if kind in _SHORT:
        end = at + 8 + number(at + 6, 2)
    elif kind in _LONG:
        end = at + 12 + number(at + 8, 4)
    elif order == "little":  # implicit
        end = at + 8 + number(at + 4, 4)
    whole = at + 12 <= len(data) and end <= len(data)
    return (number(at, 2), number(at + 2, 2), end) if whole else None


def _header(data: bytes) -> Any:
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    at = _begin(data) or 0
    stray, deflated = at % 2, False
    while (found := _element(data, at, "little")) and found[0] == 2:  # the file meta group
        deflated |= found[1] == 16 and data[at + 8 : found[2]].strip(b"\0 ") == _DEFLATED.encode()
        at = found[2]
    if deflated:  # pydicom inflates at once, a bomb too
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[at:], _MOST_BYTES)
        if len(inflated) == _MOST_BYTES:
            raise UnreadableImageError(f"inflates to more than {_MOST_BYTES:,} bytes")
    header = pydicom.dcmread(io.BytesIO(data[stray:]), force=True)
    if not len(header):  # of a file that ends within compressed pixels pydicom keeps nothing
        header = pydicom.dcmread(io.BytesIO(data[stray:]), force=True, stop_before_pixels=True)
    if not header.file_meta.get("TransferSyntaxUID"):
        if "PixelData" in header and header["PixelData"].is_undefined_length:
            raise UnreadableImageError("compressed DICOM pixels without a transfer syntax: add it")
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return header


def _ends_whole(header: Any, data: bytes) -> bool:
    """Tell whether the last element, not yet looked at, ends where the file does."""
    last = header.get_item(max(header.keys())) if len(header) else None
    end = getattr(last, "value_tell", -1) + getattr(last, "length", 0)
    return bool((_begin(data) or 0) % 2 + end == len(data))


def _checked_kind(header: Any, ends_whole: bool) -> str:
    """Return how the pixels are to be understood; refuse what is no frame of whole numbers."""
    syntax = header.file_meta.TransferSyntaxUID
    kind = str(header.get("PhotometricInterpretation") or "").strip("\0 ").upper()
    frames, bits = _whole(header, "NumberOfFrames"), _whole(header, "BitsAllocated")
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise UnreadableImageError("DICOM of floating point pixels: scale them to 16 bits")
    if "EncapsulatedDocument" in header:
        raise UnreadableImageError("DICOM of a document: save its picture as a JPEG")
    pixels = _whole(header, "Rows") * _whole(header, "Columns")
    if "PixelData" not in header and pixels and ends_whole:
        raise UnreadableImageError("DICOM of no image: its pixels were taken out")
    if "PixelData" not in header and pixels:
        raise UnreadableImageError("cut off: a DICOM that ends before its pixels or amid them")
    if "PixelData" not in header or not pixels:
        raise UnreadableImageError("DICOM of no image")
    if syntax not in _READ:
        how = "decompress them (dcmconv, gdcmconv --raw)"
        raise UnreadableImageError(f"DICOM pixels compressed as {syntax.name}: {how}")
    if frames > 1:
        raise UnreadableImageError(f"DICOM of {frames} frames: save the one wanted by itself")
    if header.get("SOPClassUID") == _SEGMENTATION or bits == 1:
        raise UnreadableImageError("DICOM of a mask (segmentation), no picture")
    if not bits:
        raise UnreadableImageError("DICOM pixels of unsaid size: add BitsAllocated, 8 or 16")
    if bits not in (8, 16):
        raise UnreadableImageError(f"DICOM pixels of {bits} bits: scale them to 16")
    stored = _whole(header, "BitsStored")
    if _numbers(header, "BitsStored") and not 0 < stored <= bits:
        told = f"DICOM of {stored} bits in words of {bits}, by its header"
        raise UnreadableImageError(f"{told}: correct BitsStored there")
    if kind not in ("MONOCHROME1", "MONOCHROME2", *_COLOURS):
        raise UnreadableImageError(f"DICOM of {kind or 'unnamed colours'}, not one grey frame")
    return kind


def _colours(header: Any, kind: str) -> Frame:
    """Decode colours to ``(rows, columns, 3)`` blue, green, red, as OpenCV has them."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    samples = {_PALETTE: 1, "YBR_FULL_422": 2}.get(kind, 3)  # of the latter two pixels share two
    allocated = _whole(header, "BitsAllocated")
    usual = {"SamplesPerPixel": 1 if kind == _PALETTE else 3, "PlanarConfiguration": 0}
    usual |= {"PixelRepresentation": 0, "BitsStored": allocated}
    for name in usual:
        if not _numbers(header, name):
            setattr(header, name, usual[name])
    stored = int(header.BitsStored)
    wanted = int(header.Rows) * int(header.Columns) * allocated * samples // 8
    if not header.file_meta.TransferSyntaxUID.is_compressed and len(header.PixelData) < wanted:
        raise UnreadableImageError(f"cut off: {len(header.PixelData):,} of {wanted:,} bytes")
    if header.file_meta.TransferSyntaxUID in _DCT_JPEG | _LOSSLESS_JPEG:
        _, _, bits = _checked_jpeg(header, 1 if kind == _PALETTE else 3)
        header.BitsStored = bits  # pydicom would cut values that go beyond the header's
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _DCT_JPEG and (bits != 8 or syntax[-2:] in ("53", "55")):
        raise UnreadableImageError(
            f"DICOM colours of {bits} bits compressed as {syntax.name}: decompress them"
            " (dcmconv, gdcmconv --raw)"
        )
    # gdcm, which pydicom would ask first, ends the whole process at some damage.
    ours = _DCT_JPEG | _JPEG_2000
    decoder = "pyjpegls" if syntax in _JPEG_LS else "pillow" if syntax in ours else ""
    try:
        pixels = pixel_array(header, raw=kind == _PALETTE, decoding_plugin=decoder)
    except Exception:
        if syntax not in _JPEG_2000:
            raise
        # It alone reads alternating tile parts and more than 8 bits; what ends it is refused above.
        pixels = pixel_array(header, raw=kind == _PALETTE, decoding_plugin="gdcm")
    if kind == _PALETTE:
        pixels = apply_color_lut(pixels, header)
        # Some say entries of 16 bits and fill the lower 8.
        full = 65535 if pixels.dtype == np.uint16 and pixels.max() > 255 else 255
    else:  # pydicom has made RGB of YBR
        full = 2 ** max(stored, int(pixels.max()).bit_length()) - 1
    if pixels.ndim != 3:
        raise ValueError(f"pixels of shape {pixels.shape}")
    if full != 255:
        pixels = np.floor(pixels * (255 / full) + 0.5)
    return np.ascontiguousarray(pixels[..., 2::-1], dtype=np.uint8)


def _stored(header: Any) -> Values:
    """Decode the stored values, without the bits that the header calls unused."""
    allocated = _whole(header, "BitsAllocated")
    high = _whole(header, "HighBit") if _numbers(header, "HighBit") else -1
    usual = {"SamplesPerPixel": 1, "PixelRepresentation": 0}
    usual["BitsStored"] = high + 1 or allocated
    for name in usual:
        if not _numbers(header, name):
            setattr(header, name, usual[name])
    syntax, bits = header.file_meta.TransferSyntaxUID, int(header.BitsStored)
    if syntax in _DCT_JPEG | _LOSSLESS_JPEG:
        return _of_a_codec(header, _jpeg(header), bits)
    if syntax in _JPEG_LS:
        header.pixel_array_options(decoding_plugin="pyjpegls")  # faster than gdcm
    if syntax not in _NATIVE:
        header.BitsStored = allocated
        return _of_a_codec(header, _grey_frame(header.pixel_array), bits)
    wanted = int(header.Rows) * int(header.Columns) * allocated // 8
    if not syntax.is_compressed and len(header.PixelData) < wanted:
        raise UnreadableImageError(f"cut off: {len(header.PixelData):,} of {wanted:,} bytes")
    high = high if bits - 1 <= high < allocated else bits - 1  # the lowest bits where it is absent
    header.BitsStored = allocated  # pydicom would take the lowest bits, wherever HighBit is
    words = _grey_frame(header.pixel_array)
    header.BitsStored = bits
    if not 0 < bits <= allocated:
        raise ValueError(f"{bits} bits of {allocated}")
    return (words << (allocated - 1 - high)) >> (allocated - bits)


def _of_a_codec(header: Any, values: Values, bits: int) -> Values:
    """Take the values that were compressed, which may need more than the header's bits."""
    signed = _whole(header, "PixelRepresentation")
    half, least, most = 2 ** (bits - 1), int(values.min()), int(values.max())
    if signed and least >= 0 and half <= most < 2 * half:  # a sign that was not carried upwards
        values = values.astype(np.int64)
        values[values >= half] -= 2 * half
    elif least < -half or most >= (half if signed else 2 * half):
        bits = max(most, -1 - least).bit_length() + signed
    header.BitsStored = bits
    return values


def _grey_frame(pixels: Values) -> Values:
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.integer):
        raise ValueError(f"pixels of {pixels.dtype} and shape {pixels.shape}")
    return pixels


def _checked_jpeg(header: Any, samples: int) -> tuple[bytes, int, int]:
    """Take a JPEG out, its process and its bits; refuse what it should not be."""
    from pydicom.encaps import generate_frames

    frame = next(generate_frames(header.PixelData, number_of_frames=1))
    if frame.rfind(b"\xff\xd9") < 0:
        raise UnreadableImageError("cut off: no end marker of its JPEG")
    syntax, size = str(header.file_meta.TransferSyntaxUID), (int(header.Rows), int(header.Columns))
    process, bits, *found = _jpeg_facts(frame)
    lossless = syntax in _LOSSLESS_JPEG
    most = int(header.BitsAllocated)
    precisions = range(2, most + 1) if lossless else {8, min(12, most)}
    # gdcm ends the whole process at a JPEG that is other than it was told.
    if found != [*size, samples] or bits not in precisions or (process == 0xC3) != lossless:
        raise ValueError(f"a JPEG of process {process:x}, {bits} bits and size {found}")
    return frame, process, bits


def _check_jpeg2000(header: Any, samples: int) -> bool:
    """Refuse a JPEG 2000 whose SIZ segment (ISO 15444-1, A.5.1) is not of the header's image.

    Tell whether its first values have a sign.
    """
    from pydicom.encaps import generate_frames

    frame = next(generate_frames(header.PixelData, number_of_frames=1))
    at = frame.index(b"\xff\x4f\xff\x51")  # perhaps after the boxes of a JP2 file
    length, *axes, n = struct.unpack_from(">4xH2x8IH", frame, at)
    size, tiles = (_whole(header, "Columns"), _whole(header, "Rows")), 1
    sound = n == samples and length == 38 + 3 * n
    for wanted, end, begin, tile, first in zip(
        size, *np.reshape(axes, (4, 2)).tolist(), strict=True
    ):
        sound &= end - begin == wanted and first <= begin < first + tile
        tiles *= -(-(end - first) // max(tile, 1))
    for bits, across, down in np.reshape([*frame[at + 42 : at + 42 + 3 * n]], (-1, 3)):
        sound &= across == down == 1 and bits % 128 < _whole(header, "BitsAllocated")
    if not sound or tiles >= 65536:  # gdcm ends the whole process at some of these
        raise ValueError(f"a JPEG 2000 of {axes}")
    return frame[at + 42] >= 128


def _jpeg(header: Any) -> Values:
    """Decode a JPEG of 8 or 12 bits, retired processes included, or a lossless one."""
    import gdcm

    frame, process, bits = _checked_jpeg(header, 1)
    syntax, size = str(header.file_meta.TransferSyntaxUID), (int(header.Rows), int(header.Columns))
    if syntax in _LOSSLESS_JPEG or (bits == 8 and process != 0xC2 and syntax[-2:] in ("50", "51")):
        header.BitsStored = bits
        return _grey_frame(header.pixel_array)
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((size[1], size[0], 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    # Of 16 allocated bits gdcm tries another decoder first, which writes to stderr.
    image.SetPixelFormat(gdcm.PixelFormat(1, bits, bits, bits - 1, 0))
    values = image.GetBuffer().encode("utf-8", "surrogateescape")
    words = np.frombuffer(values, "<u2" if bits > 8 else "u1").reshape(size).astype(np.int64)
    signed = bool(_whole(header, "PixelRepresentation"))  # which a JPEG does not know
    return words - (words >= 1 << (bits - 1)) * (1 << bits) if signed else words


def _jpeg_facts(data: bytes) -> list[int]:
    """Read process, precision, rows, columns and samples, segment by segment up to the scan."""
    at = 2
    found: list[int] = []
    while data[at : at + 2] != b"\xff\xda":
        # gdcm ends the whole process at what libjpeg merely warns of in a header.
        unknown = data[at + 4 : at + 9] == b"JFIF\0" and data[at + 9] != 1
        if data[:2] != b"\xff\xd8" or data[at] != 0xFF or unknown:
            raise ValueError("a damaged JPEG header")
        if 0xC0 <= data[at + 1] < 0xD0 and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            found += struct.unpack_from(">xBxxBHHB", data, at)
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return found


# -- grey levels ----------------------------------------------------------------------------------


def _share(header: Any, stored: Values) -> Values:
    """Bring stored values to shares of white."""
    made = _lookups(header, "ModalityLUTSequence", float(stored.max()))
    table = next((one for one in made if not _hides(one(stored) / one.white, stored)), None)
    slope, intercept = (_numbers(header, f"Rescale{name}") for name in ("Slope", "Intercept"))
    a, b = (slope or [1.0])[0], (intercept or [0.0])[0]
    if not np.isfinite(a * b) or a == 0:
        a, b = 1.0, 0.0
    values = table(stored) if table else stored * a + b
    # A maker who gives a table and a window drew the curve in the table.
    for shown in _lookups(header, "VOILUTSequence", float(values.max())):
        looked_up = shown(values) / shown.white
        if not _hides(looked_up, values):
            return looked_up
    centres, widths = _numbers(header, "WindowCenter"), _numbers(header, "WindowWidth")
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    for centre, width in zip(centres, widths, strict=False):
        share = _window(values, centre, width, function)
        if share is not None and not _hides(share, values):
            return share
    bits, signed = _whole(header, "BitsStored"), _whole(header, "PixelRepresentation")
    if bits <= 8:  # made to be looked at
        ends = np.array([0, 2**bits - 1]) - (2 ** (bits - 1) if signed else 0)
        low, high = np.sort(table(ends) if table else ends * a + b)
    else:
        low, high = np.percentile(values, _PERCENTILES)
        if low == high:
            low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros(values.shape)


def _hides(share: Values, values: Values) -> bool:
    """Tell whether values that differ become one grey level, such as black or white."""
    ends = np.floor(255 * np.clip([share.min(), share.max()], 0, 1) + 0.5)
    return bool(ends[0] == ends[1] and values.min() < values.max())


def _window(values: Values, centre: float, width: float, function: str) -> Values | None:
    """Apply a window (PS3.3 C.11.2.1.2 and C.11.2.1.3); None if it is none."""
    if not np.isfinite(centre + width) or width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function != "LINEAR_EXACT" and width >= 1:
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return (values - (centre - 0.5)) / (width - 1) + 0.5
    if function != "LINEAR_EXACT":  # too narrow for LINEAR, unless a small slope made it so
        lowest, highest = values.min(), values.max()
        inside = np.unique(values[np.abs(values - centre) <= width / 2])
        if len(inside) < 2 or lowest == highest:
            return None
    return (values - centre) / width + 0.5


class _Lookup:
    """A lookup table by its own length, sign and maximum, since its descriptor often errs."""

    def __init__(self, first: int, entries: Values) -> None:
        self.first, self.entries = first, entries
        self.white = float(entries.max())

    def __call__(self, values: Values) -> Values:
        at = np.floor(values + 0.5).astype(np.int64) - self.first
        return self.entries[np.clip(at, 0, len(self.entries) - 1)]


def _lookups(header: Any, name: str, greatest_input: float) -> Iterator[_Lookup]:
    """Yield the usable tables of a sequence."""
    import pydicom

    little = header.original_encoding[1] is not False
    for item in header.get(name) or ():
        if not isinstance(item, pydicom.Dataset):
            continue
        descriptor, words = (_words(item, f"LUT{part}", little) for part in ("Descriptor", "Data"))
        if len(descriptor) != 3 or not len(words):
            continue
        count, first, bits = (int(one) for one in descriptor)
        count = count or 65536
        # Makers say 16 bits of packed bytes too: the length tells, unless the data ends too early.
        missing, pairs = count - len(words), len(words) * 2 in (count, count + 1)
        if pairs or (missing > 0 and bits <= 8 and words.max() > 255):  # two entries a word
            words = np.stack([words & 255, words >> 8], 1).ravel()
        elif missing > count / 2:
            continue
        if first > 32767 and first > greatest_input:
            first -= 65536
        entries = words[:count].astype(np.float64)
        if entries.min() < entries.max():
            yield _Lookup(first, entries)


def _words(item: Any, name: str, little: bool) -> Values:
    try:
        value = item.get(name)
        if isinstance(value, bytes):
            return np.frombuffer(value + b"\0" * (len(value) % 2), "<u2" if little else ">u2")
        return np.atleast_1d(np.array([] if value is None else value)).astype(np.int64) & 65535
    except (TypeError, ValueError):
        return np.array([], np.int64)


def _numbers(header: Any, name: str) -> list[float]:
    """Read an element's numbers, none if it is absent or blank; NaN for what is none."""
    try:
        value = header.get(name)
    except (TypeError, ValueError):
        value = getattr(header.get_item(name), "value", None)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.strip("\0 ").split("\\") if value.strip("\0 ") else None
    if value is None:
        return []
    found = []
    for one in np.atleast_1d(np.array(value, dtype=object)):
        try:
            found.append(float(str(one).strip("\0 ")))
        except ValueError:
            found.append(float("nan"))
    return found


def _whole(header: Any, name: str) -> int:
    found = _numbers(header, name)
    return int(found[0]) if found and np.isfinite(found[0]) else 0
