"""DICOM bytes to 8-bit pixels, grey or in colour (DESIGN, "Image frame")."""

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

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
    SegmentationStorage,
)

from egma_prep.errors import BadInputError
from egma_prep.images import Decoded
from egma_prep.images.dicom_bytes import elements_begin, file_meta, looks_like_dicom
from egma_prep.images.dicom_colour import COLOURS, PALETTE, decode_colours
from egma_prep.images.dicom_grey import as_mimic_cxr_jpg, as_shown, numbers, whole
from egma_prep.options import ImageOptions

_MOST_BYTES = 2**28
_NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
# Retired since 1998 and in archives still: spectral selection, full progression. pydicom knows no
# decoder for them; gdcm's libjpeg reads them, and 12 bits.
_DCT_JPEG = (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    UID("1.2.840.10008.1.2.4.53"),
    UID("1.2.840.10008.1.2.4.55"),
)
_LOSSLESS_JPEG = (JPEGLossless, JPEGLosslessSV1)
_JPEG_2000 = (JPEG2000Lossless, JPEG2000)
_READ = (
    *(*_NATIVE, RLELossless, *_DCT_JPEG, *_LOSSLESS_JPEG),
    *(*JPEGLSTransferSyntaxes, *_JPEG_2000),
)
_SIZ = b"\xff\x4f\xff\x51"  # with the start of the codestream, whose first segment it is
_JPEG_END = b"\xff\xd9"
_JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _LOSSLESS = 0xC2, 0xC3
# As `warnings.simplefilter` adds; the comment, which matches all, tells it from the user's own.
_IGNORE = ("ignore", re.compile("(?#while egma_prep reads DICOM)"), Warning, None, 0)


class _Quiet:
    """Silence pydicom while anyone reads: what it says becomes the reject's text.

    Its settings and Python's warnings belong to the whole process, so to the user's program too:
    the first thread that reads changes them, the last restores what the first found. Of the
    warnings' filters it takes out its own alone: `warnings.catch_warnings` brings back a whole
    list, with what another thread had set for a moment, or without what it has set for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._silence()
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._undo.close()

    def _silence(self) -> None:
        settings, logger = pydicom.config.settings, logging.getLogger("pydicom")
        mode, level = settings.reading_validation_mode, logger.level
        self._undo.callback(setattr, settings, "reading_validation_mode", mode)
        self._undo.callback(logger.setLevel, level)
        self._undo.callback(_unfilter, filters := _filters())
        settings.reading_validation_mode = pydicom.config.IGNORE
        logger.setLevel(logging.CRITICAL + 1)
        filters.insert(0, _IGNORE)


def _filters() -> list[Any]:
    return cast(list[Any], warnings.filters)


def _unfilter(filters: list[Any]) -> None:
    """Take `_IGNORE` out of the list it was put into, and out of a copy that is now in use."""
    for one in (filters, _filters()):
        with contextlib.suppress(ValueError):
            one.remove(_IGNORE)


_quiet = _Quiet()


def recognises(data: bytes) -> bool:
    """See `egma_prep.images.Decoder`."""
    return looks_like_dicom(data)


def decode(data: bytes, path: str, options: ImageOptions) -> Decoded:
    """See `egma_prep.images.Decoder`."""
    pixels, notes = decode_dicom(data, path, options.dicom_grey or "window")
    return Decoded(pixels, notes=notes)


def size_of(data: bytes, path: str) -> tuple[int, int]:
    """Read width and height from a single-frame image's header.

    Raises
    ------
    BadInputError
        If it is no such image, or of a kind that is not read.
    """
    with _quiet, _damage_named(path, "its header cannot be read"):
        header = _header(data, path)
        _check_kind(header, path, ends_whole=_ends_whole(header, data))
        return whole(header, "Columns"), whole(header, "Rows")


def decode_dicom(
    data: bytes, path: str, recipe: str = "window"
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode an image of a kind that `size_of` takes.

    Parameters
    ----------
    recipe : str
        For grey images ``mimic-cxr-jpg`` or ``window``: `as_mimic_cxr_jpg` or `as_shown`.

    Returns
    -------
    pixels : ndarray
        ``(rows, columns)`` uint8, bright where MONOCHROME2 would be; of an image in colour
        ``(rows, columns, 3)`` blue, green, red.
    notes : tuple of str
        Which of `errors.NOTES` are true of it.

    Raises
    ------
    BadInputError
        If the pixels are damaged or cut off.
    """
    with _quiet:
        with _damage_named(path, "its header cannot be read"):
            header = _header(data, path)
            _check_read(header, path)
            _check_length(header, path)
            notes = _completed(header)
        syntax = UID(header.file_meta.TransferSyntaxUID)
        told = header.BitsStored, header.PixelRepresentation
        with _damage_named(path, f"its pixels cannot be decoded ({syntax.name})"):
            if syntax in _JPEG_2000 and _check_jpeg2000(_first_frame(header), header):
                header.PixelRepresentation = 1  # pydicom would take the sign's bit for a value's
            if (interpretation := _interpretation(header)) in COLOURS:
                precision = 0
                if syntax in (*_DCT_JPEG, *_LOSSLESS_JPEG):
                    precision, _ = _check_jpeg(_first_frame(header), header, path)
                    if syntax in _DCT_JPEG[2:] or (syntax in _DCT_JPEG and precision != 8):
                        kind = f"colours of {precision} bits compressed as {syntax.name}"
                        how = "decompress them (dcmconv, gdcmconv --raw)"
                        raise BadInputError(
                            "unsupported_image", path, f"{path} holds {kind}: {how}"
                        )
                pixels = decode_colours(header, interpretation, precision)
                return pixels, (*notes, *_contradicted(header, told))
            stored, unused = _without_unused_bits(header, _stored_words(header, path))
        notes += ["dicom_unused_bits"] * unused + _contradicted(header, told)
        with _damage_named(path, "its header cannot be read"):
            inverted = interpretation == "MONOCHROME1"
            if recipe == "mimic-cxr-jpg":
                return as_mimic_cxr_jpg(stored, inverted), tuple(notes)
            pixels, more = as_shown(stored, header, inverted)
            return pixels, tuple(dict.fromkeys([*notes, *more]))


def _header(data: bytes, path: str) -> pydicom.Dataset:
    """Read a file, with or without preamble; say the transfer syntax where it does not."""
    syntax, begin = file_meta(data)
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom inflates at once; a bomb would fill the memory.
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[begin:], _MOST_BYTES)
        if len(inflated) == _MOST_BYTES:
            what = f"{path} inflates to more than {_MOST_BYTES:,} bytes"
            raise BadInputError("oversized_image", path, what)
    stray = 1 if elements_begin(data) == 1 else 0
    header = pydicom.dcmread(io.BytesIO(data[stray:]), force=True)
    if not len(header):  # of a file that ends within compressed pixels pydicom keeps nothing
        header = pydicom.dcmread(io.BytesIO(data[stray:]), force=True, stop_before_pixels=True)
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little_endian = header.original_encoding
        explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        if "PixelData" in header and header["PixelData"].is_undefined_length:
            what = f"{path} names no transfer syntax for its compressed pixels: add it"
            raise BadInputError("unsupported_image", path, what)
    return header


@contextlib.contextmanager
def _damage_named(path: str, what: str) -> Iterator[None]:
    """Turn the many ways in which pydicom and its decoders fail on damaged bytes into one."""
    try:
        yield
    except (BadInputError, MemoryError):
        raise
    except Exception:
        raise BadInputError("undecodable_image", path, f"{path}: {what}") from None


def _ends_whole(header: pydicom.Dataset, data: bytes) -> bool:
    """Tell whether the last element, not yet looked at, ends where the file does."""
    last = header.get_item(max(header.keys())) if len(header) else None
    if not isinstance(last, RawDataElement):
        return False
    stray = 1 if elements_begin(data) == 1 else 0
    return stray + last.value_tell + last.length == len(data)


def _check_kind(header: pydicom.Dataset, path: str, *, ends_whole: bool) -> None:
    """Refuse what is no single frame of whole numbers that a decoder here reads."""
    width, height = whole(header, "Columns"), whole(header, "Rows")
    _check_read(header, path)
    kind = UID(str(header.get("SOPClassUID") or "")).name or "of no class"
    pictured = width * height > 0 or "Image Storage" in kind
    if "PixelData" not in header and pictured and ends_whole:
        what = f"{path} is the header of a DICOM image ({kind}) whose pixels were taken out"
        raise BadInputError("not_an_image", path, what)
    if "PixelData" not in header and pictured:
        what = f"{path} ends before its pixels or amid them"
        raise BadInputError("truncated_image", path, what)
    if "PixelData" not in header or width < 1 or height < 1:
        what = f"{path} is a DICOM file without an image ({kind})"
        raise BadInputError("not_an_image", path, what)
    interpretation = _interpretation(header)
    if interpretation not in ("MONOCHROME1", "MONOCHROME2", *COLOURS):
        what = f"{path} is a DICOM image of {interpretation or 'unnamed colours'}"
        raise BadInputError("not_a_grey_image", path, what)


def _check_read(header: pydicom.Dataset, path: str) -> None:
    if unread := _unread_kind(header):
        raise BadInputError("unsupported_image", path, f"{path} holds {unread}")


def _unread_kind(header: pydicom.Dataset) -> str:
    """Name what no decoder here reads, and how to convert it; blank for what is read."""
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        return "floating point pixels: scale them to 16 bits"
    if "EncapsulatedDocument" in header:
        kind = header.get("MIMETypeOfEncapsulatedDocument") or "of no type"
        return f"a document ({kind}): save its picture as a JPEG"
    if "PixelData" not in header:
        return ""
    syntax = UID(header.file_meta.TransferSyntaxUID)
    frames, bits = whole(header, "NumberOfFrames"), whole(header, "BitsAllocated")
    if syntax not in _READ:
        return f"pixels compressed as {syntax.name}: decompress them (dcmconv, gdcmconv --raw)"
    if frames > 1:
        return f"{frames} frames: save the one that was read as a file of its own"
    if header.get("SOPClassUID") == SegmentationStorage or bits == 1:
        return "a mask (segmentation), no picture: take the image that it was drawn on"
    if not whole(header, "Rows") * whole(header, "Columns"):
        return ""  # no image
    if not bits:
        return "pixels of unsaid size: add BitsAllocated to its header, 8 or 16"
    if bits not in (8, 16):
        return f"pixels of {bits} bits: scale them to 16"
    stored = whole(header, "BitsStored")
    if numbers(header, "BitsStored") and not 0 < stored <= bits:
        return f"{stored} bits in words of {bits}, by its header: correct BitsStored there"
    return ""


def _contradicted(header: pydicom.Dataset, told: tuple[int, int]) -> list[str]:
    """Note what decoding has put right in a header."""
    found = header.BitsStored, header.PixelRepresentation
    return ["dicom_stream_contradicts"] * (found != told)


def _interpretation(header: pydicom.Dataset) -> str:
    return str(header.get("PhotometricInterpretation") or "").strip("\0 ").upper()


def _check_length(header: pydicom.Dataset, path: str) -> None:
    if UID(header.file_meta.TransferSyntaxUID).is_compressed:
        return
    samples = max(whole(header, "SamplesPerPixel"), 1)
    if _interpretation(header) == "YBR_FULL_422":
        samples = 2  # two pixels share their colour
    bits = whole(header, "BitsAllocated") * samples
    wanted = whole(header, "Rows") * whole(header, "Columns") * bits // 8
    if len(header.PixelData) < wanted:
        what = f"{path} has {len(header.PixelData):,} bytes of pixels instead of {wanted:,}"
        raise BadInputError("truncated_image", path, what)


def _completed(header: pydicom.Dataset) -> list[str]:
    """Give a header the usual value of what it must say and does not; note it."""
    allocated, high = whole(header, "BitsAllocated"), whole(header, "HighBit")
    coloured = _interpretation(header) in COLOURS and _interpretation(header) != PALETTE
    usual = ({"PlanarConfiguration": 0} if coloured else {}) | {
        "SamplesPerPixel": 3 if coloured else 1,
        "PixelRepresentation": 0,
        "BitsStored": high + 1 if "HighBit" in header else allocated,
    }
    missing = [name for name in usual if not numbers(header, name)]
    for name in missing:
        setattr(header, name, usual[name])
    header.PhotometricInterpretation = _interpretation(header)  # pydicom knows capitals alone
    return ["dicom_header_completed"] * bool(missing)


def _stored_words(header: pydicom.Dataset, path: str) -> NDArray[np.integer]:
    """Decode the pixels; words of `BitsAllocated`, unused bits included where they are kept."""
    syntax = UID(header.file_meta.TransferSyntaxUID)
    if syntax in (*_DCT_JPEG, *_LOSSLESS_JPEG):
        frame = _first_frame(header)
        precision, process = _check_jpeg(frame, header, path)
        plain = precision == 8 and process != _PROGRESSIVE
        if syntax in _DCT_JPEG[2:] or (syntax in _DCT_JPEG and not plain):
            return _by_gdcm(frame, header, precision)
    else:
        # pydicom would clear unused bits as if the used ones were always the lowest.
        precision = header.BitsAllocated
    if syntax in JPEGLSTransferSyntaxes:
        header.pixel_array_options(decoding_plugin="pyjpegls")  # faster than gdcm: benchmarks/
    bits, header.BitsStored = header.BitsStored, precision
    if not 0 < bits <= header.BitsAllocated:
        raise ValueError(f"{bits} bits of {header.BitsAllocated}")
    words = header.pixel_array
    header.BitsStored = bits
    if words.ndim != 2 or not np.issubdtype(words.dtype, np.integer):
        raise ValueError(f"pixels of {words.dtype} and shape {words.shape}")
    return words


def _without_unused_bits(
    header: pydicom.Dataset, words: NDArray[np.integer]
) -> tuple[NDArray[np.integer], bool]:
    """Take the `BitsStored` bits up to `HighBit` of each word (PS3.5, 8.1.1), with their sign.

    Returns
    -------
    values : ndarray
        Like `words`.
    unused : bool
        Whether any of the other bits says something else than the sign.
    """
    if UID(header.file_meta.TransferSyntaxUID) not in (*_NATIVE, RLELossless):
        return _values_of_a_codec(header, words), False
    allocated, stored = whole(header, "BitsAllocated"), whole(header, "BitsStored")
    high = whole(header, "HighBit") if "HighBit" in header else stored - 1
    if not stored - 1 <= high < allocated:
        high = stored - 1
    low = high + 1 - stored
    if low == 0 and words.dtype.kind == "u" and words.max() < 2**stored:
        return words, False  # nearly all files; the rest takes a third of the decoding
    values = (words << (allocated - 1 - high)) >> (allocated - stored)
    return values, not np.array_equal(values << low, words)


def _values_of_a_codec(header: pydicom.Dataset, words: NDArray[np.integer]) -> NDArray[np.integer]:
    """Take the values that were compressed; correct `BitsStored` where they go beyond it.

    Makers write 16 bits of precision for 12 in use, so that alone contradicts nothing.
    """
    stored, signed = header.BitsStored, header.PixelRepresentation
    low = -(2 ** (stored - 1)) if signed else 0
    least, most = int(words.min()), int(words.max())
    if low <= least and most < low + 2**stored:
        return words
    if signed and least >= 0 and most < 2**stored:  # a sign that was not carried upwards
        return np.where(words >= -low, words.astype(np.int64) - 2**stored, words)
    header.BitsStored = max(most, -1 - least).bit_length() + signed
    return words


def _first_frame(header: pydicom.Dataset) -> bytes:
    return next(generate_frames(header.PixelData, number_of_frames=1))


def _check_jpeg(frame: bytes, header: pydicom.Dataset, path: str) -> tuple[int, int]:
    """Read a JPEG's precision and its frame header's marker.

    gdcm ends the whole process at what libjpeg merely warns of in a header, and where a JPEG is not
    of the samples, the process or the precision that it was told; so such a one is refused here.
    """
    if frame.rfind(_JPEG_END) < 0:
        raise BadInputError("truncated_image", path, f"{path}: its JPEG has no end marker")
    (one,) = _jpeg_frames(frame)
    process, precision, *facts = struct.unpack_from(">xBxxBHHB", frame, one)
    if facts != [whole(header, name) for name in ("Rows", "Columns", "SamplesPerPixel")]:
        raise ValueError(f"a JPEG of {facts}")
    lossless = UID(header.file_meta.TransferSyntaxUID) in _LOSSLESS_JPEG
    most = header.BitsAllocated
    precisions = range(2, most + 1) if lossless else {8, min(12, most)}
    if (process == _LOSSLESS) != lossless or precision not in precisions:
        raise ValueError(f"a JPEG of process {process:x} and {precision} bits")
    return precision, process


def _check_jpeg2000(frame: bytes, header: pydicom.Dataset) -> bool:
    """Refuse a JPEG 2000 whose SIZ segment (ISO 15444-1, A.5.1) is not of the header's image.

    Tell whether its values have a sign.

    gdcm ends the whole process at a precision beyond 32 bits, at missing tiles and the like.
    """
    at = frame.index(_SIZ)  # some makers keep a JP2 file's boxes before it
    length, width, height, *offsets, n = struct.unpack_from(">4xH2x8IH", frame, at)
    left, top, tile_width, tile_height, tiles_left, tiles_top = offsets
    depths, *steps = (frame[at + 42 + one : at + 42 + 3 * n : 3] for one in range(3))
    of_header = [whole(header, name) for name in ("Columns", "Rows", "SamplesPerPixel")]
    deepest = whole(header, "BitsAllocated")
    if not (
        [width - left, height - top, n] == of_header
        and length == 38 + 3 * n
        and tiles_left <= left < tiles_left + tile_width
        and tiles_top <= top < tiles_top + tile_height
        and -(-(width - tiles_left) // tile_width) * -(-(height - tiles_top) // tile_height) < 2**16
        and all(depth % 128 < deepest for depth in depths)  # less one, below a bit for the sign
        and all(step == b"\1" * n for step in steps)
    ):
        raise ValueError(f"a JPEG 2000 of {[width - left, height - top, n]}")
    return n == 1 and depths[0] >= 128


def _jpeg_frames(data: bytes) -> list[int]:
    """Find the frame headers of a JPEG, segment by segment up to its first scan."""
    at, found = 2, []
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("no JPEG")
    while data[at : at + 2] != b"\xff\xda":
        if data[at] != 0xFF:
            raise ValueError("a JPEG whose segments do not follow each other")
        if data[at + 4 : at + 9] == b"JFIF\0" and data[at + 9] != 1:
            raise ValueError("a JPEG of an unknown JFIF version")
        found += [at] * (data[at + 1] in _JPEG_FRAME_HEADERS)
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return found


def _by_gdcm(frame: bytes, header: pydicom.Dataset, precision: int) -> NDArray[np.integer]:
    """Decode a JPEG that pydicom has no decoder for, in memory.

    Said to be allocated what it is precise to, gdcm takes the right one of its decoders at once;
    of 16 bits it tries another first, which writes to stderr.
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.Columns, header.Rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    syntax = gdcm.TransferSyntax.GetTSType(str(header.file_meta.TransferSyntaxUID))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(gdcm.PixelFormat(1, precision, precision, precision - 1, 0))
    values = image.GetBuffer().encode("utf-8", "surrogateescape")
    words = np.frombuffer(values, "<u2" if precision > 8 else np.uint8)
    words = words.reshape(header.Rows, header.Columns)
    if whole(header, "PixelRepresentation"):  # JPEG knows no sign: take its lowest bits' as one
        beyond = 8 * words.dtype.itemsize - precision
        return (words << beyond).view(f"i{words.dtype.itemsize}") >> beyond
    return words
