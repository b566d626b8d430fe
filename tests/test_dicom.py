"""DICOM images: the grey levels of the standard's formulas, and damage by name."""

import io
from collections import Counter
from pathlib import Path

import jpeg_ls
import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import egma_prep.dicom
from egma_prep.dicom import dicom_size
from egma_prep.errors import REASONS, BadInputError
from egma_prep.geometry import frame_of
from egma_prep.images import framed, image_size

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
    return egma_prep.dicom.decode_dicom(data, path, recipe)[0]


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


def test_the_size_is_known_without_decoding() -> None:
    assert dicom_size(packed(image(Rows=60000, Columns=60000)), "x") == (60000, 60000)
