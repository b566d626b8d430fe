"""Stored DICOM values to grey: windows, lookup tables and MIMIC-CXR-JPG's recipe, by hand."""

import json
import tempfile
from pathlib import Path

import cv2
import gdcm
import jpeg_ls
import numpy as np
import pydicom
import pytest
from conftest import run_etl
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLSLossless
from test_dicom import TEXTURE, close, expected, image, packed

from egma_prep.errors import BadInputError
from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed, image_size
from egma_prep.images.dicom import decode_dicom
from egma_prep.options import Options
from egma_prep.sources.registry import sources, with_defaults_of
from egma_prep.synth import write_tree
from egma_prep.synth.dicom import equalised
from egma_train.errors import UnreadableImageError
from egma_train.evaluate.images.dicom import grey_of_dicom

RAMP = np.tile(np.arange(4096, dtype=np.uint16), (3, 1))
BYTES = (TEXTURE // 23).astype(np.uint8)  # 0 to about 120


def shown(data: Dataset, recipe: str = "window") -> tuple[np.ndarray, tuple[str, ...]]:
    return decode_dicom(packed(data), "x.dcm", recipe)


# -- windows --------------------------------------------------------------------------------------

PASSED_OVER = ("dicom_window_passed_over",)
WINDOWS = {
    "width 0": ([2000], [0], None),
    "a negative width": ([2000], [-100], None),
    "a width below 1 that holds one whole value": ([2000], [0.5], None),
    "no centre": ([], [1000], None),
    "all of the image above it": ([0], [1], None),
    "all of the image below it": ([50000], [400], None),
    "all of it above, then a good one": ([0, 1500], [1, 1000], (1500, 1000)),
    "width 0, then a good one": ([2000, 1500], [0, 1000], (1500, 1000)),
    "more centres than widths, none good": ([2000, 1500], [0], None),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_an_unusable_window_gives_way_to_the_next_or_to_percentiles(name: str) -> None:
    centres, widths, used = WINDOWS[name]
    found, notes = shown(image(WindowCenter=centres, WindowWidth=widths))
    assert close(found, expected(TEXTURE, window=used))
    assert notes == PASSED_OVER


@pytest.mark.parametrize("text", [b"wide", b"    ", b"1,5E", b"nan "])
def test_a_window_that_is_no_number_gives_way_to_percentiles(text: bytes) -> None:
    data = packed(image(WindowCenter=2000, WindowWidth=7373)).replace(b"7373", text)
    found, notes = decode_dicom(data, "x.dcm")
    assert close(found, expected(TEXTURE))
    assert notes == PASSED_OVER


def test_more_centres_than_widths_leave_the_first_window_as_it_is() -> None:
    found, notes = shown(image(WindowCenter=[2000, 9], WindowWidth=3000))
    assert close(found, expected(TEXTURE, window=(2000, 3000)))
    assert notes == ()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_a_window_below_1_is_used_where_a_small_slope_made_it_so(function: str) -> None:
    """The ramp of 4,096 steps of 0.0001, shown whole."""
    facts = {"RescaleSlope": "0.0001", "RescaleIntercept": "0", "VOILUTFunction": function}
    found, notes = shown(image(RAMP, WindowCenter="0.20475", WindowWidth="0.4095", **facts))
    assert abs(found[0] - 255.0 * RAMP[0] / 4095).max() <= 0.5 + 1e-6
    assert notes == ()


def test_a_sigmoid_window_is_the_standards_curve() -> None:
    found, _ = shown(image(RAMP, WindowCenter=2000, WindowWidth=900, VOILUTFunction="SIGMOID"))
    wanted = [255 / (1 + np.exp(-4 * (value - 2000) / 900)) for value in range(4096)]
    assert abs(found[0] - wanted).max() <= 0.5 + 1e-6


def test_an_unknown_function_is_taken_as_linear() -> None:
    data = image(WindowCenter=2000, WindowWidth=3000, VOILUTFunction="CURVED")
    assert close(shown(data)[0], expected(TEXTURE, window=(2000, 3000)))


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_table_that_leaves_one_grey_level_is_passed_over(name: str) -> None:
    beyond = table(3, 8000, 16, np.array([7, 7, 60000]))  # TEXTURE ends before 8,000
    data = image(**{name: Sequence([beyond])})
    found, notes = shown(data)
    assert close(found, expected(TEXTURE))
    assert notes == ("dicom_table_passed_over",)


def test_an_image_of_one_value_keeps_its_window() -> None:
    found, notes = shown(image(TEXTURE * 0 + 7, WindowCenter=0, WindowWidth=1))
    assert (found == 255).all() and notes == ()


# -- 8 bits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("facts", [{}, {"WindowCenter": 9, "WindowWidth": 0}], ids=["", "width 0"])
def test_8_bits_without_a_window_are_grey_levels_as_they_are(kind: str, facts: dict) -> None:
    found, _ = shown(image(BYTES, PhotometricInterpretation=kind, **facts))
    assert (found == (255 - BYTES if kind == "MONOCHROME1" else BYTES)).all()


def test_8_bits_in_words_of_16_are_grey_levels_too() -> None:
    data = image(BYTES.astype(np.uint16), BitsStored=8, HighBit=7)
    assert (shown(data)[0] == BYTES).all()


@pytest.mark.parametrize("slope", [2, -2])
def test_a_rescale_of_8_bits_moves_no_grey_level_but_its_sign_counts(slope: int) -> None:
    found, _ = shown(image(BYTES, RescaleSlope=slope, RescaleIntercept=-30))
    assert (found == (BYTES if slope > 0 else 255 - BYTES)).all()


# -- lookup tables --------------------------------------------------------------------------------


def table(n: int, first: int, bits: int, entries: np.ndarray | None, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [n, first % 2**16, bits])
    if entries is not None and vr == "US":
        item.add_new(0x00283006, "US", [int(entry) for entry in entries])
    elif entries is not None:
        item.add_new(0x00283006, vr, entries.tobytes())
    return item


def voi(item: Dataset, pixels: np.ndarray = RAMP, **facts: object) -> Dataset:
    return image(pixels, VOILUTSequence=Sequence([item]), **facts)


def looked_up(values: np.ndarray, first: int, entries: np.ndarray) -> np.ndarray:
    """PS3.3 C.11.2.1.1 value by value, its largest entry white."""
    last, white = len(entries) - 1, int(entries.max())
    at = [min(max(int(value) - first, 0), last) for value in values.ravel()]
    levels = [255 * int(entries[one]) / white for one in at]
    return np.reshape(levels, values.shape)


CURVE = (4095 * np.linspace(0, 1, 4096) ** 2).astype("<u2")
EIGHT = (255 * np.linspace(0, 1, 4096) ** 2).astype("<u2")
LONG = np.linspace(0, 65535, 65536).astype("<u2")
SIGNED = (np.tile(np.arange(-2048, 2048), (3, 1))).astype(np.int16)
TABLES = {
    "16 bits that end at 4095": (table(4096, 0, 16, CURVE), RAMP, 0, CURVE),
    "12 bits": (table(4096, 0, 12, CURVE), RAMP, 0, CURVE),
    "8 bits, one a word": (table(4096, 0, 8, EIGHT), RAMP, 0, EIGHT),
    "8 bits, one a word, as bytes": (table(4096, 0, 8, EIGHT, "OW"), RAMP, 0, EIGHT),
    "8 bits, two a word": (table(4096, 0, 8, EIGHT.astype(np.uint8), "OW"), RAMP, 0, EIGHT),
    "8 bits, two a word, as numbers": (
        table(4096, 0, 8, EIGHT.astype(np.uint8).view("<u2")), RAMP, 0, EIGHT,
    ),
    "16 bits by name, bytes by length": (
        table(4096, 0, 16, EIGHT.astype(np.uint8), "OW"), RAMP, 0, EIGHT,
    ),
    "16 bits by name, an odd number of bytes": (
        table(4095, 0, 16, EIGHT[:4095].astype(np.uint8), "OW"), RAMP, 0, EIGHT[:4095],
    ),
    "8 bits, one a word, that end too early": (
        table(4096, 0, 8, EIGHT[:4000]), RAMP, 0, EIGHT[:4000],
    ),
    "8 bits, two a word, that end too early": (
        table(4096, 0, 8, EIGHT[:4000].astype(np.uint8), "OW"), RAMP, 0, EIGHT[:4000],
    ),
    "an odd number of bytes": (
        table(4095, 0, 8, EIGHT[:4095].astype(np.uint8), "OW"), RAMP, 0, EIGHT[:4095],
    ),
    "0, so 65,536 entries": (table(0, 0, 16, LONG, "OW"), RAMP * 16, 0, LONG),
    "a negative first input": (table(4096, -2048, 16, CURVE), SIGNED, -2048, CURVE),
    "a large first input": (table(4096, 50_000, 16, CURVE), RAMP + 50_000, 50_000, CURVE),
    "values beyond both ends": (table(2000, 1000, 16, CURVE[:2000]), RAMP, 1000, CURVE[:2000]),
    "fewer entries than it says": (table(4096, 0, 16, CURVE[:4000]), RAMP, 0, CURVE[:4000]),
    "more entries than it says": (table(4000, 0, 16, CURVE), RAMP, 0, CURVE[:4000]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_voi_table_is_read_by_its_own_length_sign_and_maximum(name: str) -> None:
    item, pixels, first, entries = TABLES[name]
    found, notes = shown(voi(item, pixels, BitsStored=16, HighBit=15))
    assert close(found, looked_up(pixels, first, entries))
    assert notes == ()
    assert (grey_of_dicom(packed(voi(item, pixels, BitsStored=16, HighBit=15))) == found).all()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_table_of_bytes_is_read_in_the_files_order(syntax: str, bits: int) -> None:
    entries = (EIGHT if bits == 8 else CURVE).astype("<u2")
    stored = entries.astype(np.uint8).view("<u2") if bits == 8 else entries
    stored = stored.astype(">u2") if syntax == ExplicitVRBigEndian else stored
    data = voi(table(4096, 0, bits, stored, "OW"), RAMP, syntax=syntax)
    assert close(shown(data)[0], looked_up(RAMP, 0, entries))


def test_a_negative_first_input_after_a_rescale_is_known_by_the_values() -> None:
    data = voi(table(4096, -1024, 16, CURVE), RescaleSlope=1, RescaleIntercept=-1024)
    assert close(shown(data)[0], looked_up(RAMP, 0, CURVE))


def test_a_table_counts_before_a_window() -> None:
    data = voi(table(4096, 0, 16, CURVE), WindowCenter=2000, WindowWidth=100)
    assert close(shown(data)[0], looked_up(RAMP, 0, CURVE))


def without(name: str) -> Dataset:
    item = table(4096, 0, 16, CURVE)
    del item[name]
    return item


@pytest.mark.parametrize(
    "item",
    [
        *(without("LUTDescriptor"), without("LUTData"), Dataset()),
        *(table(4096, 0, 16, CURVE * 0), table(4096, 0, 16, CURVE[:2000])),
    ],
    ids=["no descriptor", "no data", "nothing", "all zeros", "less than half of its entries"],
)
def test_an_unusable_table_gives_way_to_the_window(item: Dataset) -> None:
    found, notes = shown(voi(item, TEXTURE, WindowCenter=2000, WindowWidth=3000))
    assert close(found, expected(TEXTURE, window=(2000, 3000)))
    assert notes == ("dicom_table_passed_over",)
    assert close(
        grey_of_dicom(packed(voi(item, TEXTURE, WindowCenter=2000, WindowWidth=3000))), found
    )


def test_an_unusable_table_gives_way_to_the_next() -> None:
    data = image(RAMP, VOILUTSequence=Sequence([Dataset(), table(4096, 0, 16, CURVE)]))
    assert close(shown(data)[0], looked_up(RAMP, 0, CURVE))


def test_a_modality_table_comes_before_the_window() -> None:
    """12 bits an entry, which the standard does not know."""
    square = (np.arange(4096, dtype=np.int64) ** 2 // 4096).astype("<u2")
    facts = {"WindowCenter": 2000, "WindowWidth": 3000}
    data = image(RAMP, ModalityLUTSequence=Sequence([table(4096, 0, 12, square)]), **facts)
    assert close(shown(data)[0], expected(square[RAMP], window=(2000, 3000)))


@pytest.mark.parametrize("slope", ["0", "none"])
def test_an_unusable_rescale_is_left_out(slope: str) -> None:
    data = packed(image(RescaleSlope="7373", RescaleIntercept=5)).replace(
        b"7373", slope.encode().ljust(4)
    )
    found, notes = decode_dicom(data, "x.dcm")
    assert close(found, expected(TEXTURE))
    assert notes == ("dicom_rescale_passed_over",)


# -- bits -----------------------------------------------------------------------------------------


def test_unused_bits_mean_nothing_and_are_counted() -> None:
    data = image(RAMP | 0xA000)
    found, notes = shown(data)
    assert (found == shown(image(RAMP))[0]).all()
    assert notes == ("dicom_unused_bits",)


def test_values_in_the_upper_bits_are_the_same_values() -> None:
    found, notes = shown(image(RAMP << 4, HighBit=15))
    assert (found == shown(image(RAMP))[0]).all()
    assert notes == ()


def test_signed_values_of_12_bits_keep_their_sign() -> None:
    low = image((SIGNED & 0xFFF).astype(np.uint16), PixelRepresentation=1)
    assert (shown(low)[0] == shown(image(SIGNED))[0]).all()


def compressed(pixels: np.ndarray, syntax: int, **facts: object) -> Dataset:
    """Compress without loss by gdcm, then change the header."""
    own = {"BitsStored": 16, "HighBit": 15} if pixels.dtype.kind == "i" else {}
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dcm"
        path.write_bytes(packed(image(pixels, **own)))
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        made = pydicom.dcmread(path)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


LOSSLESS_JPEG = gdcm.TransferSyntax.JPEGLosslessProcess14_1
J2K, JPEG_LS = gdcm.TransferSyntax.JPEG2000Lossless, gdcm.TransferSyntax.JPEGLSLossless
IN_10, IN_8 = {"BitsStored": 10, "HighBit": 9}, {"BitsStored": 8, "HighBit": 7}
CONTRADICTED = ("dicom_stream_contradicts",)
STREAMS: dict[str, tuple[np.ndarray, int, dict[str, int], tuple[str, ...]]] = {
    "JPEG of 12 bits in 10": (RAMP, LOSSLESS_JPEG, IN_10, CONTRADICTED),
    "JPEG of 12 bits in 8": (RAMP, LOSSLESS_JPEG, IN_8, CONTRADICTED),
    "JPEG of 12 bits in 12": (RAMP, LOSSLESS_JPEG, {}, ()),
    "JPEG of 12 bits in 16": (RAMP, LOSSLESS_JPEG, {"BitsStored": 16, "HighBit": 15}, ()),
    "JPEG, signed, in 10": (SIGNED, LOSSLESS_JPEG, IN_10, CONTRADICTED),
    "JPEG, signed, in 12": (SIGNED, LOSSLESS_JPEG, {"BitsStored": 12, "HighBit": 11}, ()),
    "JPEG, its sign not carried upwards": (
        SIGNED & 0xFFF, LOSSLESS_JPEG, {"BitsStored": 12, "HighBit": 11}, (),
    ),
    "JPEG-LS of 12 bits in 10": (RAMP, JPEG_LS, IN_10, CONTRADICTED),
    "JPEG 2000 of 12 bits in 10": (RAMP, J2K, IN_10, CONTRADICTED),
    "JPEG 2000 of 12 bits in 8": (RAMP, J2K, IN_8, CONTRADICTED),
    "JPEG 2000, signed, called unsigned": (SIGNED, J2K, {"PixelRepresentation": 0}, CONTRADICTED),
    "JPEG 2000, signed": (SIGNED, J2K, {}, ()),
}  # fmt: skip


@pytest.mark.parametrize("kind", STREAMS)
def test_compressed_values_count_where_the_header_denies_their_bits_or_sign(kind: str) -> None:
    values, syntax, facts, wanted = STREAMS[kind]
    centre = 2048 if values is RAMP else 0
    data = compressed(values, syntax, WindowCenter=centre, WindowWidth=4096, **facts)
    meant = np.where(values > 2047, values.astype(int) - 4096, values) if centre == 0 else values
    grey = expected(meant, window=(centre, 4096))
    found, notes = shown(data)
    assert close(found, grey)
    assert notes == wanted
    assert close(grey_of_dicom(packed(data)), grey)
    del data.WindowCenter  # then bits tell whether values are grey levels already
    low, high = np.percentile(meant, [0.5, 99.5])
    levels = 255 * np.clip((meant - low) / (high - low), 0, 1)
    for found in (shown(data)[0], grey_of_dicom(packed(data))):
        assert close(found, levels)


def test_colours_of_more_bits_than_their_header_says_do_not_wrap() -> None:
    """Of 12 bits in 10: three equal channels, so the luma is the value's share of 4,095."""
    data = image(RAMP, BitsStored=16, HighBit=15)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.PixelData = np.dstack([RAMP] * 3).tobytes()
    frame = jpeg_ls.encode(np.dstack([RAMP] * 3))
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = encapsulate([bytes(frame)])
    data["PixelData"].is_undefined_length = True
    data.BitsStored, data.HighBit = 10, 9
    found, notes = shown(data)
    assert close(found[..., 0], RAMP / 4095 * 255) and close(found[..., 2], RAMP / 4095 * 255)
    assert notes == CONTRADICTED
    assert close(grey_of_dicom(packed(data)), RAMP / 4095 * 255)


@pytest.mark.parametrize("kind", [b"monochrome2", b"Monochrome1"])
def test_code_strings_in_small_letters_are_the_same_codes(kind: bytes) -> None:
    data = packed(image(RAMP, WindowCenter=2048, WindowWidth=4096)).replace(b"MONOCHROME2", kind)
    grey = expected(RAMP, window=(2048, 4096), inverted=kind == b"Monochrome1")
    for found in (decode_dicom(data, "x.dcm")[0], grey_of_dicom(data)):
        assert close(found, grey)


@pytest.mark.parametrize("bits", [0, 17])
def test_bits_that_cannot_be_are_named_and_ask_for_no_download(bits: int) -> None:
    data = packed(image(RAMP, BitsStored=bits))
    for work in (lambda: image_size(data, "x.dcm"), lambda: decode_dicom(data, "x.dcm")):
        with pytest.raises(BadInputError, match=f"holds {bits} bits in words of 16") as caught:
            work()
        assert caught.value.reason == "unsupported_image"
        assert "correct BitsStored" in str(caught.value) and "download" not in str(caught.value)
    with pytest.raises(UnreadableImageError, match=f"{bits} bits in words of 16.*: correct"):
        grey_of_dicom(data)


def test_a_header_without_the_size_of_its_words_is_named() -> None:
    data = image(RAMP)
    del data.BitsAllocated
    with pytest.raises(BadInputError, match="add BitsAllocated"):
        image_size(packed(data), "x.dcm")
    with pytest.raises(UnreadableImageError, match="add BitsAllocated"):
        grey_of_dicom(packed(data))


def test_a_header_without_what_it_must_say_is_completed_and_counted() -> None:
    data = image()
    for name in ("BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"):
        del data[name]
    found, notes = shown(data)
    assert close(found, expected(TEXTURE))
    assert notes == ("dicom_header_completed",)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "absent",
    [
        {"HighBit": "absent"},
        {"HighBit": "blank"},
        {"BitsStored": "absent"},
        {"BitsStored": "absent", "HighBit": "blank"},
    ],
    ids=str,
)
def test_a_header_without_its_bits_is_as_bright_in_the_evaluation(
    absent: dict[str, str], kind: str
) -> None:
    """Of 12 bits in words of 16, shown by a window: no other reading has these grey levels."""
    facts = {"WindowCenter": 2000, "WindowWidth": 3000, "PhotometricInterpretation": kind}
    data = image(**facts)
    for name, how in absent.items():
        if how == "absent":
            delattr(data, name)
        else:
            setattr(data, name, None)
    wanted = expected(TEXTURE, window=(2000, 3000))
    found = grey_of_dicom(packed(data))
    assert close(found, 255 - wanted if kind == "MONOCHROME1" else wanted)


HIDDEN = {
    "black": ({"WindowCenter": 50000, "WindowWidth": 400}, None),
    "white": ({"WindowCenter": 0, "WindowWidth": 1}, None),
    "white, by a curve": (
        {"WindowCenter": -9000, "WindowWidth": 9, "VOILUTFunction": "SIGMOID"}, None,
    ),
    "black, inverted": (
        {"WindowCenter": 0, "WindowWidth": 1, "PhotometricInterpretation": "MONOCHROME1"}, None,
    ),
    "black, then a good one": (
        {"WindowCenter": [50000, 2000], "WindowWidth": [400, 3000]}, (2000, 3000),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_a_window_that_leaves_one_grey_level_is_passed_over_in_the_evaluation(name: str) -> None:
    facts, window = HIDDEN[name]
    pixels = TEXTURE + 1  # so that the least is above the lowest window
    wanted = expected(pixels, window=window)
    found = grey_of_dicom(packed(image(pixels, **facts)))
    assert close(found, 255 - wanted if "Photometric" in str(facts) else wanted)


def test_a_table_that_leaves_one_grey_level_is_passed_over_in_the_evaluation() -> None:
    """The curve is of inputs beyond all values, whose first entry they get."""
    item = table(4096, 20_000, 16, CURVE)
    wanted = expected(TEXTURE, window=(2000, 3000))
    shown_by = {"WindowCenter": 2000, "WindowWidth": 3000}
    assert close(grey_of_dicom(packed(voi(item, TEXTURE, **shown_by))), wanted)
    modality = image(TEXTURE, ModalityLUTSequence=Sequence([item]), **shown_by)
    assert close(grey_of_dicom(packed(modality)), wanted)


@pytest.mark.parametrize("value", [0, 7, 3000])
def test_a_picture_of_one_value_is_shown_by_its_window_all_the_same(value: int) -> None:
    pixels = np.full((90, 90), value, np.uint16)
    data = packed(image(pixels, WindowCenter=50, WindowWidth=100))
    assert close(grey_of_dicom(data), expected(pixels, window=(50, 100)))


def test_few_bright_pixels_on_a_plain_ground_are_seen() -> None:
    pixels = np.zeros((90, 90), np.uint16)
    pixels[3, :9] = 1000
    assert shown(image(pixels))[0][3, 4] == 255


def test_an_image_of_few_grey_levels_is_counted() -> None:
    for pixels, few in ((TEXTURE, False), (1000 + TEXTURE % 9, True), (TEXTURE * 0, True)):
        data = packed(image(pixels.astype(np.uint16), WindowCenter=1010, WindowWidth=1000))
        _, notes = framed(data, "x.dcm", frame_of(*image_size(data, "x.dcm")))
        assert notes == ("tiny_grey_range",) * few


# -- MIMIC-CXR-JPG --------------------------------------------------------------------------------


def mimic_cxr_jpg(stored: np.ndarray, inverted: bool) -> np.ndarray:
    """Johnson et al. 2019, pixel by pixel: scale, cut off, invert, equalise."""
    least, most = int(stored.min()), int(stored.max())
    eight = [int((int(v) - least) / (most - least) * 255) for v in stored.ravel()]
    eight = [255 - v for v in eight] if inverted else eight
    counts = [eight.count(level) for level in range(256)]
    darkest = next(level for level in range(256) if counts[level])
    others = len(eight) - counts[darkest]
    up_to = [sum(counts[darkest + 1 : level + 1]) for level in range(256)]
    return np.reshape([round(255 * up_to[v] / others) for v in eight], stored.shape)


@pytest.mark.parametrize("inverted", [False, True], ids=["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("pixels", [TEXTURE, BYTES], ids=["12 bits", "8 bits"])
def test_mimic_cxr_jpgs_recipe_is_followed_and_the_rest_of_the_header_ignored(
    pixels: np.ndarray, inverted: bool
) -> None:
    facts = {"WindowCenter": 100, "WindowWidth": 0, "RescaleSlope": -3, "RescaleIntercept": 7}
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    data = image(pixels, PhotometricInterpretation=kind, **facts)
    found, notes = shown(data, "mimic-cxr-jpg")
    assert abs(found - mimic_cxr_jpg(pixels, inverted)).max() <= 1  # halves, in 32 bits
    assert notes == ()


def test_an_image_of_one_value_stays_plain_in_mimic_cxr_jpgs_recipe() -> None:
    found, _ = shown(image(np.full((9, 9), 7, np.uint16)), "mimic-cxr-jpg")
    assert not found.any()


def test_the_phantoms_equalise_as_opencv_does() -> None:
    for pixels in (BYTES, (TEXTURE % 251).astype(np.uint8), np.full((5, 5), 9, np.uint8)):
        wanted = cv2.equalizeHist(pixels) if np.ptp(pixels) else pixels * 0
        assert (equalised(pixels) == wanted).all()


# -- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eye_gaze", "mimic_cxr", "mimic_eye", "reflacx"])
def test_a_source_of_mimic_cxrs_images_takes_mimic_cxr_jpgs_recipe(name: str) -> None:
    chosen = with_defaults_of(sources()[name], Options()).image.dicom_grey
    assert chosen == "mimic-cxr-jpg"


def test_another_source_takes_the_window() -> None:
    class Other:
        name, looks_like = "other", "PHANTOM"

    assert with_defaults_of(Other(), Options()).image.dicom_grey == "window"


def test_the_recipe_is_the_sources_unless_it_is_chosen_and_a_change_makes_images_again(
    tmp_path: Path,
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_tree(data, 6, small=True, layout="reflacx", dicom=True)
    for path in data.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.WindowWidth = 0
        header.save_as(path)

    def ran(*more: str) -> tuple[str, dict, str]:
        result = run_etl(data, out, *more)
        assert result.exit_code == 0, result.output
        run = json.loads((out / "run.json").read_text())
        return run["options"]["image"]["dicom_grey"], run["counts"]["notes"], result.output

    recipe, notes, said = ran()
    assert recipe == "mimic-cxr-jpg" and "dicom_window_passed_over" not in notes
    assert "dicom_grey" not in said
    recipe, notes, said = ran("--set", "image.dicom_grey=window")
    assert recipe == "window" and notes["dicom_window_passed_over"] > 0
    assert "with a DICOM window that cannot be used" in said
    assert ran()[0] == "window"  # kept
    assert ran("--set", 'image.dicom_grey=""')[0] == "mimic-cxr-jpg"
