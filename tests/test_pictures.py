"""JPEG, PNG and colour DICOM open alike in both packages, or are refused for the same reason.

The files are written here by hand, so that their grey levels are known without any decoder.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)
from sklearn.datasets import load_sample_image

from egma_prep.errors import NOTES, BadInputError, Reject
from egma_prep.etl.make_part import load_reading
from egma_prep.etl.parts import Job
from egma_prep.etl.run import planned_subjects
from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed, image_size
from egma_prep.options import ImageOptions, Options
from egma_prep.sources.reading import PlannedReading
from egma_prep.sources.registry import with_defaults_of
from egma_prep.synth import write_tree
from egma_train.errors import UnreadableImageError
from egma_train.evaluate.images.frames import read_frame, to_frame
from egma_train.evaluate.images.pictures import grey_of_picture

Pixels = NDArray[np.uint8]
REAL = Path(__file__).parent.parent.parent / "shared" / "real" / "images"

RNG = np.random.default_rng(19)
SOFT = cv2.resize(RNG.uniform(0, 255, (7, 6)).astype(np.float32), (300, 360))
XRAY: Pixels = np.clip(SOFT + RNG.normal(0, 4, SOFT.shape), 0, 255).astype(np.uint8)
GREY_16 = (XRAY // 16 * np.uint16(256)).astype(np.uint16)  # steps of 17 in 255, of 4,369 in 65,535


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    rows: NDArray[np.generic] | list[bytes],
    colour_type: int,
    depth: int = 8,
    width: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Write a PNG of unfiltered rows: an array of big-endian samples, or packed bytes."""
    height, width = len(rows), width or len(rows[0])
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    packed = b"".join(
        b"\0" + bytes(memoryview(np.ascontiguousarray(row)).cast("B")) for row in rows
    )
    data = chunk(b"IDAT", zlib.compress(packed, 1))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + before + data + after + chunk(b"IEND")


def png_16(values: NDArray[np.integer], declared: bytes = b"") -> bytes:
    before = chunk(b"sBIT", declared) if declared else b""
    return png(values.astype(">u2"), 0 if values.ndim == 2 else 2, 16, before=before)


def packed(values: Pixels, depth: int) -> list[bytes]:
    bits = np.unpackbits(values[..., None], axis=2)[..., 8 - depth :]
    return [row.tobytes() for row in np.packbits(bits.reshape(len(values), -1), axis=1)]


def interlaced(values: Pixels) -> bytes:
    """Write seven passes (PNG specification, 8.2), each the rows of a picture of its own."""
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2)]
    passes.append((1, 2, 0, 1))
    rows = [row for y, down, x, across in passes for row in values[y::down, x::across]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8, 0, 0, 0, 1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND")


def jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def pillow(pixels: Pixels, mode: str, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def prepared(data: bytes) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    values, notes = framed(data, "x", frame_of(*image_size(data, "x")))
    return values.astype(np.int16), notes


def evaluated(data: bytes, folder: Path) -> NDArray[np.int16]:
    (folder / "x").write_bytes(data)
    return read_frame(folder / "x").astype(np.int16)


def in_frame(grey: Pixels) -> NDArray[np.int16]:
    """Pad to a square with zeros and let OpenCV average by area."""
    height, width = grey.shape
    side = max(width, height)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side), np.uint8)
    square[top : top + height, left : left + width] = grey
    return cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA).astype(np.int16)


def tinted(
    blue: tuple[float, float], green: tuple[float, float], red: tuple[float, float]
) -> Pixels:
    """Colour the X-ray: each channel runs from its first to its second level."""
    share = XRAY[..., None] / 255
    low, high = np.array([blue, green, red]).T
    return np.clip(low + (high - low) * share + 0.5, 0, 255).astype(np.uint8)


GREY_OF_3 = np.dstack([XRAY] * 3)
SEPIA = tinted((0, 180), (0, 225), (0, 255))
BLUE_FILM = tinted((70, 255), (25, 240), (15, 215))
RED_FILM_OF_ONE_HUE = tinted((0, 90), (0, 110), (40, 255))
BLUE_SHADOWS = np.clip(
    XRAY[..., None] + np.array([60, 10, 0]) * (1 - XRAY[..., None] / 255) ** 2, 0, 255
).astype(np.uint8)


def marked() -> Pixels:
    made = GREY_OF_3.copy()
    cv2.putText(made, "PHANTOM AP", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 255), 2)
    return made


def luma(pixels: Pixels) -> Pixels:
    weights = np.array([0.114, 0.587, 0.299])  # Rec. 601, blue first
    return np.floor(pixels @ weights + 0.5).astype(np.uint8)


FOUR_BITS = (XRAY >> 4).astype(np.uint8)
PALETTE = chunk(b"PLTE", bytes(level for level in range(256) for _ in "rgb"))
WITH_ALPHA = np.dstack([XRAY, np.full_like(XRAY, 255)])
NO_NOTES: tuple[str, ...] = ()
FEW = ("tiny_grey_range",)
OWN, DECLARED = ("png_16_bit_own_maximum",), ("png_16_bit_declared_maximum",)
CLEAR = ("transparency_ignored",)
ANIMATED = {
    "before": chunk(b"acTL", struct.pack(">II", 2, 0)),
    "after": chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 300, 360, 0, 0, 1, 10, 0, 0))
    + chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(b"\0" * 301 * 360)),
}
TURNED = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06" + bytes(7)  # orientation 6
OPENED: dict[str, tuple[bytes, Pixels, tuple[str, ...]]] = {
    "8 bits of grey": (png(XRAY, 0), XRAY, NO_NOTES),
    "4 bits": (png(packed(FOUR_BITS, 4), 0, 4, 300), FOUR_BITS * np.uint8(17), NO_NOTES),
    "2 bits": (png(packed(XRAY >> 6, 2), 0, 2, 300), (XRAY >> 6) * np.uint8(85), FEW),
    "1 bit": (png(packed(XRAY >> 7, 1), 0, 1, 300), (XRAY >> 7) * np.uint8(255), FEW),
    "grey with transparency, all opaque": (png(WITH_ALPHA, 4), XRAY, NO_NOTES),
    "grey, half of it transparent": (png(np.dstack([XRAY, XRAY]), 4), XRAY, CLEAR),
    "one grey level transparent": (
        png(XRAY, 0, before=chunk(b"tRNS", b"\0\x80")), XRAY, CLEAR,
    ),
    "a gamma": (png(XRAY, 0, before=chunk(b"gAMA", struct.pack(">I", 100_000))), XRAY, NO_NOTES),
    "a gamma of three channels": (
        png(GREY_OF_3, 2, before=chunk(b"gAMA", struct.pack(">I", 100_000))), XRAY, NO_NOTES,
    ),
    "turned by EXIF": (png(XRAY, 0, before=chunk(b"eXIf", TURNED)), XRAY, NO_NOTES),
    "a damaged comment": (
        png(XRAY, 0, before=chunk(b"tEXt", b"Comment\0PHANTOM")[:-1] + b"?"), XRAY, NO_NOTES,
    ),
    "three equal channels": (png(GREY_OF_3, 2), XRAY, NO_NOTES),
    "three equal channels and transparency": (
        png(np.dstack([GREY_OF_3, np.full_like(XRAY, 255)]), 6), XRAY, NO_NOTES,
    ),
    "a palette of greys": (png(XRAY, 3, before=PALETTE), XRAY, NO_NOTES),
    "a palette in 4 bits": (
        png(packed(FOUR_BITS, 4), 3, 4, 300, before=chunk(b"PLTE", bytes(range(0, 240, 5)))),
        luma(np.array([[i * 15 + 10, i * 15 + 5, i * 15] for i in range(16)])[FOUR_BITS]),
        NO_NOTES,
    ),
    "interlaced": (interlaced(XRAY), XRAY, NO_NOTES),
    "animated: its still image": (png(XRAY, 0, **ANIMATED), XRAY, NO_NOTES),
    "16 bits, of which 12 are used": (png_16(GREY_16), XRAY // 16 * np.uint8(17), OWN),
    "16 bits that declare 12 and hold them": (
        png_16(XRAY.astype(np.uint16) * 8, b"\x0c"),
        np.floor(XRAY * 8.0 / 4095 * 255 + 0.5).astype(np.uint8),
        DECLARED,
    ),
    "16 bits that declare 12 and were scaled": (
        png_16(XRAY.astype(np.uint16) * 257, b"\x0c"), XRAY, DECLARED,
    ),
    "16 bits of three channels": (
        png_16(np.dstack([XRAY.astype(np.uint16) * 257] * 3), b"\x10\x10\x10"), XRAY, DECLARED,
    ),
    "red letters": (png(marked()[..., ::-1], 2), luma(marked()), NO_NOTES),
    "sepia": (png(SEPIA[..., ::-1], 2), luma(SEPIA), ("tinted_image",)),
    "blue film": (png(BLUE_FILM[..., ::-1], 2), luma(BLUE_FILM), ("tinted_image",)),
    "a film blue in its shadows": (
        png(BLUE_SHADOWS[..., ::-1], 2), luma(BLUE_SHADOWS), ("tinted_image",),
    ),
    "a film strong in one hue": (
        png(RED_FILM_OF_ONE_HUE[..., ::-1], 2), luma(RED_FILM_OF_ONE_HUE), ("tinted_image",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPENED)
def test_a_png_has_the_grey_levels_that_were_written(kind: str, tmp_path: Path) -> None:
    data, grey, notes = OPENED[kind]
    found, noted = prepared(data)
    assert np.abs(found - in_frame(grey)).max() <= 1
    assert np.abs(evaluated(data, tmp_path) - found).max() <= 1
    assert noted == notes


JPEGS: dict[str, tuple[bytes, Pixels, tuple[str, ...]]] = {
    "grey": (jpeg(XRAY), XRAY, NO_NOTES),
    "three equal channels": (jpeg(GREY_OF_3, 75), XRAY, NO_NOTES),
    "red letters": (jpeg(marked(), 75), luma(marked()), NO_NOTES),
    "sepia": (jpeg(SEPIA, 75), luma(SEPIA), ("tinted_image",)),
    "blue film": (jpeg(BLUE_FILM, 75), luma(BLUE_FILM), ("tinted_image",)),
    "blue shadows": (jpeg(BLUE_SHADOWS, 75), luma(BLUE_SHADOWS), ("tinted_image",)),
    "stored as RGB": (pillow(SEPIA[..., ::-1], "RGB", "JPEG", quality=90, keep_rgb=True),
                      luma(SEPIA), ("tinted_image",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_near_the_grey_levels_that_were_written(kind: str, tmp_path: Path) -> None:
    data, grey, notes = JPEGS[kind]
    found, noted = prepared(data)
    assert (np.abs(found - in_frame(grey)) <= 4).mean() >= 0.99  # what JPEG loses
    assert np.abs(evaluated(data, tmp_path) - found).max() <= 1
    assert noted == notes


def heatmap_over_the_xray() -> Pixels:
    spot = np.zeros_like(XRAY)
    cv2.circle(spot, (150, 150), 60, 255, -1)
    heat = cv2.applyColorMap(cv2.GaussianBlur(spot, (0, 0), 25), cv2.COLORMAP_JET)
    return cv2.addWeighted(GREY_OF_3, 0.6, heat, 0.4, 0).astype(np.uint8)


def colour_gradients() -> Pixels:
    down, across = np.mgrid[:360, :300] / 360
    return (255 * np.dstack([across, down, 1 - across])).astype(np.uint8)


def boxed(*boxes: tuple[slice, slice, tuple[int, int, int]]) -> Pixels:
    """Lay solid boxes over the X-ray, blue, green, red."""
    made = GREY_OF_3.copy()
    for down, across, colour in boxes:
        made[down, across] = colour
    return made


NINTH = slice(100, 220), slice(100, 200)  # of 360 x 300
HALF = slice(0, 180), slice(0, 300)
MANY_HUES: dict[str, Callable[[], Pixels]] = {
    "a red box over a ninth of the X-ray": lambda: boxed((*NINTH, (0, 0, 255))),
    "a blue box over a ninth": lambda: boxed((*NINTH, (255, 0, 0))),
    "a yellow box over a ninth": lambda: boxed((*NINTH, (0, 255, 255))),
    "a red box over half": lambda: boxed((*HALF, (0, 0, 255))),
    "boxes of a light and a dark red": lambda: boxed(
        (slice(0, 90), slice(0, 300), (0, 0, 110)), (slice(270, 360), slice(0, 300), (0, 0, 255))
    ),
    "a red box over half of a sepia film": lambda: np.where(
        np.arange(360)[:, None, None] < 180, np.uint8([0, 0, 255]), SEPIA
    ),
    "a photograph of a temple": lambda: load_sample_image("china.jpg")[..., ::-1],
    "a photograph of a flower": lambda: load_sample_image("flower.jpg")[..., ::-1],
    "gradients": colour_gradients,
    "noise of all colours": lambda: RNG.integers(0, 256, (360, 300, 3), np.uint8),
    "a heatmap over the X-ray": heatmap_over_the_xray,
    **{
        f"false colours: {name}": lambda name=name: cv2.applyColorMap(  # type: ignore[misc]
            XRAY, getattr(cv2, f"COLORMAP_{name.upper()}")
        )
        for name in ("jet", "viridis", "hot", "turbo", "inferno", "cool")
    },
}


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("name", MANY_HUES)
def test_many_hues_are_refused_unless_the_source_has_photographs(
    name: str, kind: str, tmp_path: Path
) -> None:
    pixels = np.ascontiguousarray(MANY_HUES[name]())
    data = cv2.imencode(f".{kind}", pixels)[1].tobytes()
    with pytest.raises(BadInputError, match="is in colour") as caught:
        prepared(data)
    assert caught.value.reason == "not_a_grey_image"
    with pytest.raises(UnreadableImageError, match="in colour"):
        evaluated(data, tmp_path)
    taken, _ = framed(data, "x", frame_of(*image_size(data, "x")), ImageOptions(colour="luma"))
    assert (np.abs(taken.astype(int) - in_frame(luma(pixels))) <= 4).mean() >= 0.99


def test_the_hue_is_judged_without_looking_at_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    genuine = cv2.cvtColor

    def counted(pixels: Pixels, code: int) -> Pixels:
        seen.append((code, pixels.shape[0] * pixels.shape[1]))
        return genuine(pixels, code)

    monkeypatch.setattr(cv2, "cvtColor", counted)
    prepared(png(cv2.resize(SEPIA, (2400, 2000))[..., ::-1], 2))
    assert max(n for code, n in seen if code == cv2.COLOR_BGR2YCrCb) <= 512 * 512


def dicom(
    pixels: NDArray[np.generic], kind: str, syntax: str = ExplicitVRLittleEndian, **more: object
) -> bytes:
    """Write a secondary capture of samples as they are, or of a JPEG's bytes."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "2.25.19"
    made.Rows, made.Columns = XRAY.shape
    made.SamplesPerPixel, made.PlanarConfiguration = (1 if pixels.ndim == 2 else 3), 0
    made.PhotometricInterpretation, made.PixelRepresentation = kind, 0
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelData = pixels.tobytes()
    for name, value in more.items():
        setattr(made, name, value)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def ybr(rgb: Pixels) -> Pixels:
    """PS3.3 C.7.6.3.1.2, YBR_FULL."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    made = rgb @ weights.T + np.array([0, 128, 128])
    return np.clip(np.floor(made + 0.5), 0, 255).astype(np.uint8)


def halved(full: Pixels) -> Pixels:
    """Store Y Y Cb Cr of each two pixels."""
    left, right = full[:, 0::2], full[:, 1::2]
    return np.stack([left[..., 0], right[..., 0], left[..., 1], left[..., 2]], axis=2)


def encapsulated(data: bytes) -> dict[str, object]:
    return {"syntax": JPEGBaseline8Bit, "PixelData": pydicom.encaps.encapsulate([data])}


SEPIA_RGB = np.ascontiguousarray(SEPIA[..., ::-1])
TABLES = {
    f"{name}PaletteColorLookupTable{part}": value
    for name, top in (("Red", 255), ("Green", 225), ("Blue", 180))
    for part, value in (
        ("Descriptor", [256, 0, 16]),
        ("Data", np.floor(np.arange(256) / 255 * top * 257 + 0.5).astype("<u2").tobytes()),
    )
}
DICOMS = {
    "RGB": dicom(SEPIA_RGB, "RGB"),
    "RGB, plane by plane": dicom(SEPIA_RGB.transpose(2, 0, 1), "RGB", PlanarConfiguration=1),
    "RGB of 16 bits": dicom(SEPIA_RGB.astype(np.uint16) * 257, "RGB"),
    "RGB of 12 bits": dicom(SEPIA_RGB.astype(np.uint16) * 16, "RGB", BitsStored=12, HighBit=11),
    "RGB, header incomplete": dicom(SEPIA_RGB, "RGB", SamplesPerPixel=None),
    "YBR_FULL": dicom(ybr(SEPIA_RGB), "YBR_FULL"),
    "YBR_FULL_422": dicom(halved(ybr(SEPIA_RGB)), "YBR_FULL_422"),
    "a JPEG": dicom(SEPIA, "YBR_FULL_422", **encapsulated(jpeg(SEPIA))),
    "a palette": dicom(XRAY, "PALETTE COLOR", **TABLES),
}


@pytest.mark.parametrize("kind", DICOMS)
def test_a_tinted_dicom_becomes_its_luma_by_the_rule_of_pictures(kind: str, tmp_path: Path) -> None:
    found, noted = prepared(DICOMS[kind])
    apart = np.abs(found - in_frame(luma(SEPIA)))
    assert (apart <= (4 if kind == "a JPEG" else 2)).mean() >= 0.999
    assert np.abs(evaluated(DICOMS[kind], tmp_path) - found).max() <= 1
    assert "tinted_image" in noted


@pytest.mark.parametrize("kind", ["JPEG", "JPEG-LS", "JPEG 2000"])
def test_colours_are_not_decoded_by_what_ends_the_process_at_damage(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DICOMS["a JPEG"]
    if kind == "JPEG-LS":
        plain = pydicom.dcmread(io.BytesIO(DICOMS["RGB"]))
        plain.compress(JPEGLSLossless)
        file = io.BytesIO()
        plain.save_as(file)
        data = file.getvalue()
    elif kind == "JPEG 2000":
        frame = pillow(SEPIA_RGB, "RGB", "JPEG2000", irreversible=False, no_jp2=True)
        pixels = pydicom.encaps.encapsulate([frame])
        data = dicom(SEPIA, "YBR_RCT", JPEG2000Lossless, PixelData=pixels)
    monkeypatch.setattr(gdcm.Image, "GetBuffer", lambda self: pytest.fail("gdcm was asked"))
    found, _ = prepared(data)
    assert (np.abs(found - in_frame(luma(SEPIA))) <= 4).mean() >= 0.999
    assert np.abs(evaluated(data, tmp_path) - found).max() <= 1


FALSE_COLOURS = cv2.applyColorMap(XRAY, cv2.COLORMAP_JET)
COLOURED_DICOMS = {
    "RGB": dicom(FALSE_COLOURS[..., ::-1], "RGB"),
    "YBR_FULL": dicom(ybr(FALSE_COLOURS[..., ::-1]), "YBR_FULL"),
    "a JPEG": dicom(FALSE_COLOURS, "YBR_FULL_422", **encapsulated(jpeg(FALSE_COLOURS))),
}


@pytest.mark.parametrize("kind", COLOURED_DICOMS)
def test_a_dicom_of_many_hues_is_refused_as_a_picture_is(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is in colour") as caught:
        prepared(COLOURED_DICOMS[kind])
    assert caught.value.reason == "not_a_grey_image"
    with pytest.raises(UnreadableImageError, match="in colour"):
        evaluated(COLOURED_DICOMS[kind], tmp_path)


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL_422", "a JPEG"])
def test_a_coloured_dicom_that_ends_early_is_truncated(kind: str, tmp_path: Path) -> None:
    whole = pydicom.dcmread(io.BytesIO(DICOMS[kind]))
    half = whole.PixelData[: len(whole.PixelData) // 4 * 2]
    if kind == "a JPEG":
        half = pydicom.encaps.encapsulate([jpeg(SEPIA)[:9000]])
    cut = dicom(SEPIA, whole.PhotometricInterpretation, whole.file_meta.TransferSyntaxUID,
                PixelData=half)  # fmt: skip
    with pytest.raises(BadInputError) as caught:
        prepared(cut)
    assert caught.value.reason == "truncated_image"
    with pytest.raises(UnreadableImageError, match="cut off"):
        evaluated(cut, tmp_path)


class _Photographs:
    colour = "luma"


class _XRays:
    pass


@pytest.mark.parametrize(
    ("source", "chosen", "taken"),
    [(_Photographs, "", "luma"), (_XRays, "", "refuse"), (_Photographs, "refuse", "refuse"),
     (_XRays, "luma", "luma")],
)  # fmt: skip
def test_a_source_of_photographs_takes_colours_unless_the_user_says_otherwise(
    source: type, chosen: str, taken: str
) -> None:
    options = with_defaults_of(source(), Options(image=ImageOptions(colour=chosen)))
    assert options.image.colour == taken
    assert options.data_half["image"]["colour"] == taken  # what a part's key is made of


def frame_header(data: bytes, at: int, value: int) -> bytes:
    """Change a byte of a JPEG's frame header: 0 its marker, 3 bits, 8 components."""
    start = data.index(b"\xff\xc0") + 1 + at
    return data[:start] + bytes([value]) + data[start + 1 :]


GREY_JPEG = jpeg(XRAY)
HOLLOW = png(XRAY, 0)
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "GIF": (pillow(XRAY, "L", "GIF"), "unsupported_image", "a GIF file"),
    "TIFF": (pillow(XRAY, "L", "TIFF"), "unsupported_image", "a TIFF file"),
    "BMP": (pillow(XRAY, "L", "BMP"), "unsupported_image", "a BMP file"),
    "WebP": (pillow(XRAY, "RGB", "WEBP"), "unsupported_image", "a WebP file"),
    "JPEG 2000": (pillow(XRAY, "L", "JPEG2000"), "unsupported_image", "a JPEG 2000 file"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(99), "unsupported_image", "a HEIC or AVIF file"),
    "JPEG XL": (b"\xff\x0a" + bytes(99), "unsupported_image", "a JPEG XL file"),
    "CMYK JPEG": (pillow(GREY_OF_3, "CMYK", "JPEG"), "unsupported_image", "4 colours"),
    "12-bit JPEG": (frame_header(GREY_JPEG, 3, 12), "unsupported_image", "12 bits"),
    "lossless JPEG": (frame_header(GREY_JPEG, 0, 0xC3), "unsupported_image", "JPEG"),
    "JPEG-LS": (frame_header(GREY_JPEG, 0, 0xF7), "unsupported_image", "JPEG"),
    "a web page": (b"<!DOCTYPE html><p>PHANTOM", "not_an_image", "no|neither"),
    "a cut PNG": (HOLLOW[: len(HOLLOW) // 2], "truncated_image", "end marker"),
    "a PNG without its last byte": (HOLLOW[:-1], "truncated_image", "end marker"),
    "a PNG cut to its signature": (HOLLOW[:8], "truncated_image", "end marker"),
    "a PNG whose rest is zeros": (
        HOLLOW[: len(HOLLOW) // 2] + bytes(len(HOLLOW) // 2), "undecodable_image", "checksum",
    ),
    "a PNG with fewer rows than it says": (
        png(XRAY[:100], 0).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 100, 8, 0, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 360, 8, 0, 0, 0, 0)),
        ), "undecodable_image", "cannot be decoded",
    ),
    "a PNG without rows": (
        png(XRAY, 0).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 360, 8, 0, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 0, 8, 0, 0, 0, 0)),
        ), "undecodable_image", "no PNG header|cannot be decoded",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_refused_by_both_for_what_it_is(kind: str, tmp_path: Path) -> None:
    data, reason, told = REFUSED[kind]
    with pytest.raises(BadInputError, match=told) as caught:
        prepared(data)
    assert caught.value.reason == reason
    with pytest.raises(UnreadableImageError, match="convert" if "unsup" in reason else told):
        evaluated(data, tmp_path)


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    facts=st.tuples(*[st.sampled_from([0, 1, 2, 3, 4, 6, 8, 16])] * 2, *[st.integers(0, 2)] * 3),
    rows=st.binary(max_size=400),
    palette=st.binary(max_size=30),
)
def test_any_header_gives_the_same_frame_or_a_reason_in_both(
    size: tuple[int, int], facts: tuple[int, ...], rows: bytes, palette: bytes
) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, *facts))
    parts = (header, chunk(b"PLTE", palette), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND"))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    try:
        found, _ = prepared(data)
    except BadInputError as error:
        assert error.reason in ("undecodable_image", "not_a_grey_image")
        with pytest.raises(UnreadableImageError):
            grey_of_picture(data)
    else:
        assert np.abs(to_frame(grey_of_picture(data)).astype(int) - found).max() <= 1


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(HOLLOW) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_another_picture(at: int, bit: int) -> None:
    damaged = bytearray(HOLLOW)
    damaged[at] ^= 1 << bit
    with pytest.raises(BadInputError):
        prepared(bytes(damaged))
    with pytest.raises(UnreadableImageError):
        grey_of_picture(bytes(damaged))


def bomb(side: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    zeros = chunk(b"IDAT", zlib.compress(bytes(10**6), 9))
    return b"\x89PNG\r\n\x1a\n" + header + zeros + chunk(b"IEND")


BOMB = bomb(30_000)


def test_the_size_of_a_png_is_known_before_it_is_decoded(tmp_path: Path) -> None:
    assert image_size(BOMB, "x") == (30_000, 30_000)
    with pytest.raises(UnreadableImageError, match="30000 x 30000 pixels are too many"):
        evaluated(BOMB, tmp_path)


def test_an_image_of_a_tiny_grey_range_is_noted_even_with_a_white_letter_in_it() -> None:
    dim = (XRAY >> 3).astype(np.uint8)  # 32 grey levels, as a table read wrongly once gave
    cv2.putText(dim, "L", (5, 22), cv2.FONT_HERSHEY_PLAIN, 1.6, 255, 2)
    assert prepared(png(dim, 0))[1] == ("tiny_grey_range",)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job, PlannedReading]:
    home = tmp_path_factory.mktemp("pictures")
    write_tree(home / "data", 3, small=True, seed=7)
    job = Job(home / "data", None, home / "out", "mimic_eye", Options())
    readings = [one for each in planned_subjects(job.layout, job.files()) for one in each.readings]
    return home / "data", job, readings[0]


def loaded(
    tree: tuple[Path, Job, PlannedReading], data: bytes
) -> tuple[NDArray[np.uint8], dict[str, int]] | Reject:
    """Make a reading whose image has other bytes, under the name that it had."""
    root, job, planned = tree
    files = job.files()
    path = root / job.layout.load(planned, files, job.options.source).image_path
    path.unlink()
    path.write_bytes(data)
    made = load_reading(planned, job, files, {})
    if isinstance(made, Reject):
        return made
    columns, notes = made
    return np.frombuffer(columns["shard"]["image"][0], np.uint8).reshape(224, 224), notes


def test_a_png_in_the_place_of_a_jpeg_is_written_and_what_was_made_of_it_counted(
    tree: tuple[Path, Job, PlannedReading],
) -> None:
    made = loaded(tree, png_16(GREY_16))
    assert not isinstance(made, Reject)
    values, notes = made
    assert np.abs(values - in_frame(XRAY // 16 * np.uint8(17))).max() <= 1
    assert notes["png_16_bit_own_maximum"] == 1
    assert all(name in NOTES for name in notes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(BOMB, "oversized_image", id="a bomb"),
        pytest.param(png(FALSE_COLOURS[..., ::-1], 2), "not_a_grey_image", id="colours"),
        pytest.param(REFUSED["TIFF"][0], "unsupported_image", id="a TIFF file"),
    ],
)
def test_an_image_that_is_not_taken_rejects_its_reading_in_one_line(
    data: bytes, reason: str, tree: tuple[Path, Job, PlannedReading]
) -> None:
    made = loaded(tree, data)
    assert isinstance(made, Reject) and made.reason == reason
    assert "\n" not in made.message and "CXR-JPG" in made.message


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real")
@pytest.mark.parametrize("name", sorted(path.name for path in REAL.glob("*.png")))
def test_a_real_png_opens_as_its_pixels_are(name: str) -> None:
    found, noted = prepared((REAL / name).read_bytes())
    with Image.open(REAL / name) as picture:
        assert np.abs(found - in_frame(np.asarray(picture))).max() <= 1
    assert np.abs(read_frame(REAL / name).astype(np.int16) - found).max() <= 1
    assert not noted
