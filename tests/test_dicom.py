"""DICOM images: the grey levels of the standard's formulas, and damage by name."""

import io
import logging
import re
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import cv2
import jpeg_ls
import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
)

import egma_prep.images.dicom
import egma_train.evaluate.images.dicom
from egma_prep.errors import REASONS, BadInputError
from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed, image_size
from egma_prep.images.dicom import size_of
from egma_prep.images.dicom_bytes import looks_like_dicom
from egma_train.errors import UnreadableImageError
from egma_train.evaluate.images.dicom import grey_of_dicom

ROOT = Path(__file__).parent.parent
PICTURES = (".jpg", ".png", ".bmp", ".tiff")
CORPUS = sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm"))
RNG = np.random.default_rng(4)
TEXTURE = (RNG.integers(0, 4096, (60, 44)) // 3 + np.arange(44) * 30).astype(np.uint16)


def image(pixels: np.ndarray = TEXTURE, syntax: UID = ExplicitVRLittleEndian, **facts: object):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "2.25.7"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored, data.HighBit = (12, 11) if data.BitsAllocated == 16 else (8, 7)
    big = syntax == ExplicitVRBigEndian
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    data.add_new("PixelData", "OW", stored + b"\0" * (len(stored) % 2))
    for name, value in facts.items():
        setattr(data, name, value)
    return data


def decode_dicom(data: bytes, path: str, recipe: str = "window") -> np.ndarray:
    return egma_prep.images.dicom.decode_dicom(data, path, recipe)[0]


def packed(data: Dataset) -> bytes:
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def expected(
    pixels: np.ndarray,
    *,
    window: tuple[float, float] | None = None,
    slope: float = 1,
    intercept: float = 0,
    inverted: bool = False,
) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and the pinned percentiles, pixel by pixel, in float64."""
    values = pixels.astype(np.float64) * slope + intercept
    if window is None:
        low, high = np.percentile(values, [0.5, 99.5])
        share = np.clip((values - low) / (high - low), 0, 1)
    else:
        centre, width = window
        share = np.select(
            [values <= centre - 0.5 - (width - 1) / 2, values > centre - 0.5 + (width - 1) / 2],
            [0.0, 1.0],
            (values - (centre - 0.5)) / max(width - 1, 1e-12) + 0.5,
        )
    return 255 * (1 - share if inverted else share)


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(found - wanted).max() <= 0.5 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-500, 5000), st.integers(2, 6000), st.sampled_from([1, 0.5, 2.5]),
    st.integers(-1000, 1000), st.booleans(),
)  # fmt: skip
def test_a_window_maps_as_the_standard_says(
    centre: float, width: int, slope: float, intercept: int, inverted: bool
) -> None:
    centre = round(centre, 2)
    facts = {"WindowCenter": centre, "WindowWidth": width, "RescaleSlope": slope}
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    data = image(RescaleIntercept=intercept, PhotometricInterpretation=kind, **facts)
    wanted = expected(
        TEXTURE, window=(centre, width), slope=slope, intercept=intercept, inverted=inverted
    )
    if np.ptp(np.floor(wanted + 0.5)) == 0:  # black or white all over
        wanted = expected(TEXTURE, slope=slope, intercept=intercept, inverted=inverted)
    assert close(decode_dicom(packed(data), "x.dcm"), wanted)


@pytest.mark.parametrize("inverted", [False, True], ids=["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    "pixels",
    [TEXTURE, (TEXTURE.astype(np.int16) - 1500) // 2],
    ids=["12 bits", "signed"],
)
def test_without_a_window_the_percentiles_are_the_ends(pixels: np.ndarray, inverted: bool) -> None:
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    found = decode_dicom(packed(image(pixels, PhotometricInterpretation=kind)), "x.dcm")
    assert close(found, expected(pixels, inverted=inverted))


def test_of_several_windows_the_first_counts() -> None:
    data = image(WindowCenter=[2000, 100], WindowWidth=[3000, 10])
    assert close(decode_dicom(packed(data), "x"), expected(TEXTURE, window=(2000, 3000)))


def test_a_constant_image_is_black() -> None:
    assert not decode_dicom(packed(image(np.full((9, 9), 77, np.uint16))), "x").any()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_uncompressed_syntaxes_agree(syntax: UID) -> None:
    found = decode_dicom(packed(image(syntax=syntax)), "x")
    assert (found == decode_dicom(packed(image()), "x")).all()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda s: s.name)
def test_lossless_syntaxes_agree(syntax: UID) -> None:
    data = image()
    data.compress(syntax)
    assert data.file_meta.TransferSyntaxUID == syntax
    found = decode_dicom(packed(data), "x")
    assert (found == decode_dicom(packed(image()), "x")).all()


def test_jpeg_ls_is_decoded_by_the_faster_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    data = image()
    data.compress(JPEGLSLossless)
    used = []
    genuine = jpeg_ls.decode_pixel_data
    monkeypatch.setattr(
        jpeg_ls,
        "decode_pixel_data",
        lambda *given, **also: used.append(1) or genuine(*given, **also),
    )
    decode_dicom(packed(data), "x")
    assert used


def outcome(path: Path) -> str:
    data = path.read_bytes()
    try:
        width, height = image_size(data, path.name)
        found, _ = framed(data, path.name, frame_of(width, height, "pad"))
    except BadInputError as error:
        assert error.reason in REASONS
        assert path.name in str(error)
        return error.reason
    assert (found.shape, found.dtype) == ((224, 224), np.uint8)
    return "opens"


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_a_file_of_pydicoms_corpus_opens_or_is_rejected_by_name(path: Path) -> None:
    assert outcome(path)


def test_what_the_corpus_holds_opens_where_it_is_a_grey_image() -> None:
    found = {path.name: outcome(path) for path in CORPUS}
    opened = {name for name, what in found.items() if what == "opens"}
    assert {
        "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_jp2klossless.dcm", "image_dfl.dcm", "JPEG2000.dcm",
    } & {path.name for path in CORPUS} <= opened  # fmt: skip
    assert Counter(found.values())["opens"] >= 10
    assert found["MR_truncated.dcm"] == "truncated_image"
    assert found["rtplan.dcm"] == "not_an_image"


def test_the_same_slice_is_the_same_picture_in_every_lossless_syntax() -> None:
    slices = {path.name: path for path in CORPUS if path.name.startswith("MR_small")}
    reference = decode_dicom(slices.pop("MR_small.dcm").read_bytes(), "x")
    equal = [
        name
        for name, path in slices.items()
        if outcome(path) == "opens" and (decode_dicom(path.read_bytes(), "x") == reference).all()
    ]
    assert {"MR_small_RLE.dcm", "MR_small_bigendian.dcm"} <= set(equal)
    assert JPEG2000Lossless in {
        pydicom.dcmread(slices[name]).file_meta.TransferSyntaxUID for name in equal
    }


WHOLE = packed(image(WindowCenter=2000, WindowWidth=3000))


def tried(data: bytes) -> str:
    try:
        image_size(data, "x.dcm")
        decode_dicom(data, "x.dcm")
    except BadInputError as error:
        return error.reason
    return "opens"


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_file_cut_anywhere_is_rejected(percent: int) -> None:
    assert tried(WHOLE[: len(WHOLE) * percent // 100]) in REASONS


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - TEXTURE.nbytes), st.integers(0, 255))
def test_one_wrong_byte_in_the_header_never_raises_anything_else(at: int, byte: int) -> None:
    assert tried(WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]) in {*REASONS, "opens"}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"PhotometricInterpretation": "HSV"}, "not_a_grey_image"),
        ({"NumberOfFrames": 3}, "unsupported_image"),
        ({"Rows": 0}, "not_an_image"),
        ({"Rows": 6000}, "truncated_image"),
    ],
    ids=["colour", "a film", "no rows", "fewer pixels than it says"],
)
def test_other_images_are_named(facts: dict[str, object], reason: str) -> None:
    assert tried(packed(image(**facts))) == reason


# -- kinds that are not read ----------------------------------------------------------------------


def kind(syntax: UID = ExplicitVRLittleEndian, without: str = "", **facts: object) -> bytes:
    data = image(**facts)
    data.file_meta.TransferSyntaxUID = syntax
    if syntax != ExplicitVRLittleEndian:
        data.PixelData = encapsulate([b"PHANTOM "])
        data["PixelData"].is_undefined_length = True
    if without:
        del data[without]
    return packed(data)


KINDS = {
    "several frames": (kind(NumberOfFrames=3), "3 frames: save the one"),
    "HTJ2K": (kind(HTJ2KLossless), "High-Throughput JPEG 2000"),
    "MPEG": (kind(MPEG2MPML, NumberOfFrames=9), "MPEG2"),
    "a hierarchical JPEG": (kind(UID("1.2.840.10008.1.2.4.59")), "Hierarchical"),
    "a maker's own syntax": (
        kind(MPEG2MPML).replace(MPEG2MPML.encode(), b"1.2.3.4.5.6".ljust(len(MPEG2MPML), b"\0")),
        "1.2.3.4.5.6",
    ),
    "floating point pixels": (kind(without="PixelData", FloatPixelData=bytes(9 * 4)), "16 bits"),
    "a PDF": (
        kind(
            without="PixelData", EncapsulatedDocument=b"%PDF",
            MIMETypeOfEncapsulatedDocument="application/pdf",
        ),
        "a document (application/pdf)",
    ),
    "32 bits": (kind(BitsAllocated=32), "pixels of 32 bits"),
    "a segmentation": (kind(SOPClassUID=SegmentationStorage), "a mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_what_is_whole_but_not_read_says_so_and_asks_for_no_download(name: str) -> None:
    data, told = KINDS[name]
    with pytest.raises(BadInputError, match=re.escape(told)) as caught:
        image_size(data, "x.dcm")
    assert caught.value.reason == "unsupported_image"
    assert "download" not in str(caught.value)


def test_what_is_no_image_asks_for_no_download_either() -> None:
    data = packed(image(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=0))
    with pytest.raises(BadInputError, match=r"without an image \(Basic Text SR") as caught:
        image_size(data, "x.dcm")
    assert "download" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1])
def test_pixels_that_were_taken_out_are_told_from_a_file_cut_off(cut: int) -> None:
    data = kind(without="PixelData")
    data = data[: len(data) - cut]
    with pytest.raises(BadInputError) as caught:
        image_size(data, "x.dcm")
    assert caught.value.reason == ("truncated_image" if cut else "not_an_image")
    assert ("download" in str(caught.value)) == bool(cut)
    with pytest.raises(UnreadableImageError, match="cut off" if cut else "taken out"):
        grey_of_dicom(data)


def test_no_message_of_python_or_of_a_library_is_a_reason() -> None:
    broken = packed(image(BitsStored=77)), kind(JPEGExtended12Bit), kind(JPEG2000Lossless)
    for data in broken:
        with pytest.raises(BadInputError) as caught:
            decode_dicom(data, "x.dcm")
        said = str(caught.value)
        ours = (
            r": its (pixels cannot be decoded .*|JPEG has no end .*)| holds 77 bits in words of .*"
        )
        assert re.fullmatch(rf"x.dcm({ours})", said)


# gdcm ends the whole process at these: no exception, so not even pytest would be left.

GREY = cv2.imencode(".jpg", (TEXTURE // 16).astype(np.uint8))[1].tobytes()
FRAME_HEADER = GREY.index(b"\xff\xc0")


def edited(at: int, new: bytes, cut: int | None = None) -> bytes:
    return GREY[:at] + new + GREY[at + (len(new) if cut is None else cut) :]


JPEGS = {
    "an unknown version of JFIF": edited(GREY.index(b"JFIF") + 5, b"\x1f"),
    "bytes between its segments": edited(FRAME_HEADER, b"lost", 0),
    "12 bits in 8": edited(FRAME_HEADER + 4, b"\x0c"),
    "another process": edited(FRAME_HEADER + 1, b"\xc3"),
    "another size": edited(FRAME_HEADER + 5, b"\xff\xff\xff\xff"),
    "two samples a pixel": edited(FRAME_HEADER + 9, b"\2"),
    "no start": edited(0, b"\xff\xb1"),
    "two frame headers": edited(FRAME_HEADER, GREY[FRAME_HEADER : FRAME_HEADER + 13], 0),
}


def in_jpeg(frame: bytes, syntax: UID = JPEGBaseline8Bit, **facts: object) -> bytes:
    data = image(TEXTURE.astype(np.uint8), **facts)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([frame])
    data["PixelData"].is_undefined_length = True
    return packed(data)


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_would_end_the_process_is_refused_before(name: str) -> None:
    data = in_jpeg(JPEGS[name])
    assert tried(data) == "undecodable_image"
    with pytest.raises(UnreadableImageError, match="pixels that cannot be decoded"):
        grey_of_dicom(data)


JP2 = cv2.imencode(
    ".jp2", (TEXTURE // 16).astype(np.uint8), [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
)[1].tobytes()
CODESTREAM = JP2[JP2.index(b"\xff\x4f\xff\x51") :]
SIZ = {
    "55 bits": (42, b"\x36"),
    "more bits than its words": (42, b"\x08"),
    "two samples a pixel": (40, b"\x00\x02"),
    "another width": (8, b"\x01"),
    "another height": (12, b"\x01"),
    "tiles of no width": (24, bytes(4)),
    "more tiles than there may be": (24, b"\0\0\0\1\0\0\0\1\xf0"),
    "its first tile to the right of it": (32, b"\x01"),
    "no pixel a step": (43, b"\0"),
    "another length": (5, b"\xff"),
}


@pytest.mark.parametrize("name", SIZ)
def test_a_jpeg_2000_that_would_end_the_process_is_refused_before(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> None:
        pytest.exit("a decoder was asked")

    monkeypatch.setattr("pydicom.pixels.decoders.gdcm._decode_frame", ask)
    at, new = SIZ[name]
    data = in_jpeg(CODESTREAM[:at] + new + CODESTREAM[at + len(new) :], JPEG2000Lossless)
    assert tried(data) == "undecodable_image"
    with pytest.raises(UnreadableImageError, match="pixels that cannot be decoded"):
        grey_of_dicom(data)


@pytest.mark.parametrize("frame", [CODESTREAM, JP2], ids=["bare", "in the boxes of a JP2 file"])
def test_a_jpeg_2000_is_the_picture_that_was_compressed(frame: bytes) -> None:
    data = in_jpeg(frame, JPEG2000Lossless)
    assert (decode_dicom(data, "x.dcm") == TEXTURE // 16).all()
    assert (grey_of_dicom(data) == TEXTURE // 16).all()


def test_a_jpeg_2000_in_colour_whose_tiles_alternate_opens() -> None:
    """Pillow, whose decoder reads tile by tile, calls it broken; OpenCV's reads it."""
    (path,) = (path for path in CORPUS if path.name == "GDCMJ2K_TextGBR.dcm")
    data = path.read_bytes()
    codestream = np.frombuffer(data[data.index(b"\xff\x4f\xff\x51") :], np.uint8)
    assert (decode_dicom(data, "x.dcm") == cv2.imdecode(codestream, cv2.IMREAD_COLOR)).all()
    with pytest.raises(UnreadableImageError, match="in colour, not grey"):
        grey_of_dicom(data)


def test_colours_in_a_jpeg_of_a_retired_process_are_whole_but_not_read() -> None:
    frame = cv2.imencode(".jpg", np.dstack([TEXTURE // 16] * 3).astype(np.uint8))[1].tobytes()
    facts = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    data = in_jpeg(frame, UID("1.2.840.10008.1.2.4.53"), **facts)
    with pytest.raises(BadInputError, match="colours of 8 bits compressed as") as caught:
        decode_dicom(data, "x.dcm")
    assert caught.value.reason == "unsupported_image"
    assert "download" not in str(caught.value)
    with pytest.raises(UnreadableImageError, match="colours of 8 bits compressed as"):
        grey_of_dicom(data)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
def test_a_jpeg_of_8_bits_is_opencvs_picture(syntax: UID) -> None:
    found = decode_dicom(in_jpeg(GREY, syntax), "x.dcm").astype(int)
    assert abs(found - cv2.imdecode(np.frombuffer(GREY, np.uint8), 0)).max() <= 1


def test_a_progressive_jpeg_of_8_bits_in_the_retired_process_opens() -> None:
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    frame = cv2.imencode(".jpg", (TEXTURE // 16).astype(np.uint8), flags)[1].tobytes()
    data = in_jpeg(frame, UID("1.2.840.10008.1.2.4.55"))
    wanted = cv2.imdecode(np.frombuffer(frame, np.uint8), 0).astype(int)
    assert abs(decode_dicom(data, "x.dcm") - wanted).max() <= 1
    assert abs(grey_of_dicom(data) - wanted).max() <= 1


# -- without preamble -----------------------------------------------------------------------------


def bare(data: bytes, *, meta: bool) -> bytes:
    """Take the preamble off, and the file meta group too."""
    begin = 132 if meta else 144 + int.from_bytes(data[140:144], "little")
    return data[begin:]


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("meta", [True, False], ids=["with file meta", "without file meta"])
def test_a_file_without_preamble_is_the_same_image(syntax: UID, meta: bool) -> None:
    whole = packed(image(syntax=syntax, WindowCenter=2000, WindowWidth=3000))
    for data in (bare(whole, meta=meta), b" " + bare(whole, meta=meta)):
        assert image_size(data, "x") == (44, 60)
        assert (decode_dicom(data, "x") == decode_dicom(whole, "x")).all()


def test_compressed_pixels_that_do_not_say_how_are_not_guessed() -> None:
    data = image()
    data.compress(RLELossless)
    with pytest.raises(BadInputError, match="names no transfer syntax") as caught:
        image_size(bare(packed(data), meta=False), "x")
    assert caught.value.reason == "unsupported_image"


def test_no_other_file_is_taken_for_dicom() -> None:
    random = np.random.default_rng(0)
    others = [random.bytes(400) for _ in range(3000)]
    others += [bytes(400), b" " * 400, b"\x08\x00" * 200, b"\x02\x00\x00\x00UL\x04\x00", b""]
    others += [path.read_bytes() for path in ROOT.rglob("tests/*.py")]
    others += [cv2.imencode(end, TEXTURE.astype(np.uint8))[1].tobytes() for end in PICTURES]
    assert not any(map(looks_like_dicom, others))


# -- the surroundings -----------------------------------------------------------------------------


def test_settings_of_pydicom_are_as_before_after_calls_in_threads() -> None:
    def state() -> tuple[object, ...]:
        mode = pydicom.config.settings.reading_validation_mode
        return mode, logging.getLogger("pydicom").level, list(warnings.filters)

    before = state()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(tried, [WHOLE, WHOLE[:300], b"", WHOLE[:-9]] * 20))
    assert {"opens", "truncated_image"} <= set(found)
    assert state() == before


@pytest.mark.parametrize("package", [egma_prep.images.dicom, egma_train.evaluate.images.dicom])
@pytest.mark.parametrize("first_in", ["reader", "user"])
def test_what_another_thread_does_to_the_filters_of_warnings_meanwhile_stays_so(
    package: ModuleType, first_in: str
) -> None:
    quiet = package._quiet if package is egma_prep.images.dicom else package._quiet()
    before = list(warnings.filters)
    others = warnings.catch_warnings()
    contexts = [quiet, others] if first_in == "reader" else [others, quiet]
    for one in contexts:
        one.__enter__()
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("PHANTOM", UserWarning, stacklevel=1)
    assert not caught
    warnings.filterwarnings("error", "PHANTOM")
    for one in contexts:
        one.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_a_filter_set_while_another_thread_reads_is_kept() -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with egma_prep.images.dicom._quiet, egma_train.evaluate.images.dicom._quiet():
            warnings.filterwarnings("error", "PHANTOM")
        assert list(warnings.filters)[1:] == before
        with pytest.raises(UserWarning, match="PHANTOM"):
            warnings.warn("PHANTOM", UserWarning, stacklevel=1)


def test_the_size_is_known_without_decoding() -> None:
    assert size_of(packed(image(Rows=60000, Columns=60000)), "x") == (60000, 60000)
