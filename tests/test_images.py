"""JPEG bytes to frames, against OpenCV's own area resize of the whole padded picture."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed, image_size, to_frame
from egma_prep.images.jpeg import HALF_SIZE_FROM_PX, decode_jpeg, parse_jpeg
from egma_prep.options import ImageOptions

Pixels = NDArray[np.uint8]


def _texture(width: int, height: int, seed: int = 0) -> Pixels:
    """Something like an X-ray: soft shadows, film noise, ribs, wires and a coin or two."""
    rng = np.random.default_rng([seed, width, height])
    soft = cv2.resize(rng.uniform(40, 215, (9, 7)).astype(np.float32), (width, height), None, 0, 0)
    grain = rng.standard_normal((height, width), dtype=np.float32) * 6
    canvas = np.clip(soft + grain, 0, 255).astype(np.uint8)
    side = max(width, height)
    for _ in range(12):
        at = [int(value * side) for value in rng.uniform(0, 1, 4)]
        grey, thick = int(rng.integers(0, 256)), int(rng.integers(1, max(2, side // 400)))
        cv2.line(canvas, (at[0], at[1]), (at[2], at[3]), grey, thick)
    for _ in range(5):
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        cv2.circle(canvas, (x, y), int(side * rng.uniform(0.01, 0.06)), int(rng.integers(256)), -1)
    return canvas


def _jpeg(pixels: Pixels, *options: int) -> bytes:
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])
    assert done
    return data.tobytes()


def _whole_decode(data: bytes) -> Pixels:
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert pixels is not None
    return np.asarray(pixels, dtype=np.uint8)


def _resized(pixels: Pixels) -> NDArray[np.int16]:
    """Pad to a square with zeros and let OpenCV average by area."""
    height, width = pixels.shape
    side = max(width, height)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA).astype(np.int16)


def _framed(data: bytes, colour: str = "refuse") -> NDArray[np.int16]:
    frame = frame_of(*image_size(data, "x.jpg"))
    return framed(data, "x.jpg", frame, ImageOptions(colour=colour))[0].astype(np.int16)


SMALL = [
    (424, 509),
    (509, 424),
    (337, 289),
    (425, 511),
    (341, 341),
    (224, 224),
    (225, 300),
    (1, 230),
]
HALVED = [(2544, 3056), (3056, 2544), (2545, 3057), (2751, 2750)]
FULL = [(2500, 2048), (1793, 1791)]
SIZE = "{0[0]} x {0[1]}".format


@pytest.mark.parametrize("size", [*SMALL, (2545, 3057)], ids=SIZE)
def test_a_full_decode_is_averaged_like_the_padded_square(size: tuple[int, int]) -> None:
    pixels = _texture(*size)
    frame = frame_of(*size)
    found = to_frame(pixels, 1, frame).astype(np.int16)
    assert np.abs(found - _resized(pixels)).max() <= 1


@pytest.mark.parametrize("size", [(509, 424), (337, 289), (2545, 1801)], ids=SIZE)
def test_stretching_averages_like_the_whole_image(size: tuple[int, int]) -> None:
    pixels = _texture(*size)
    found = to_frame(pixels, 1, frame_of(*size, "stretch")).astype(np.int16)
    expected = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA).astype(np.int16)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("size", [*SMALL, *HALVED, *FULL], ids=SIZE)
def test_reduced_decoding_cannot_be_seen_in_the_frame(size: tuple[int, int]) -> None:
    data = _jpeg(_texture(*size))
    difference = np.abs(_framed(data) - _resized(_whole_decode(data)))
    assert (difference <= 2).mean() >= 0.999


@pytest.mark.parametrize("size", [*HALVED, *FULL], ids=SIZE)
def test_large_images_alone_are_decoded_reduced(size: tuple[int, int]) -> None:
    # Or the test above would compare a full decode with itself.
    data = _jpeg(np.zeros(size[::-1], np.uint8))
    pixels, reduction = decode_jpeg(data, parse_jpeg(data, "x.jpg"), "x.jpg")
    assert reduction == (2 if max(size) >= HALF_SIZE_FROM_PX else 1)
    assert pixels.shape == (-(-size[1] // reduction), -(-size[0] // reduction))


@pytest.mark.parametrize("side", [1793, 2061, 2749, 2750], ids="long side {}".format)
def test_burnt_in_letters_are_as_in_a_full_decode(side: int) -> None:
    # At half size they were 6 grey levels off at 1,793 px; real JPEGs missed it up to 2,061.
    canvas = np.full((side, side * 5 // 6), 20, np.uint8)
    cv2.putText(canvas, "PORTABLE AP", (side // 10, side // 12), 0, side / 900, 250, 3)
    data = _jpeg(canvas)
    near = 4 if side >= HALF_SIZE_FROM_PX else 1
    assert np.abs(_framed(data) - _resized(_whole_decode(data))).max() <= near


@pytest.mark.parametrize("size", [(2545, 3057), (2049, 2500), (511, 425)], ids=SIZE)
@pytest.mark.parametrize("reduction", [1, 2, 4], ids="reduced by {}".format)
def test_reduction_and_odd_padding_shift_nothing(size: tuple[int, int], reduction: int) -> None:
    # A white image: any shift shows at its border, whatever the texture.
    width, height = size
    stored = np.full((-(-height // reduction), -(-width // reduction)), 255, np.uint8)
    found = to_frame(stored, reduction, frame_of(width, height)).astype(np.int16)
    expected = _resized(np.full((height, width), 255, np.uint8))
    assert np.abs(found - expected).max() <= 1


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _after_start(data: bytes, segment: bytes) -> bytes:
    return data[:2] + segment + data[2:]


def _with_orientation(data: bytes, orientation: int) -> bytes:
    """Insert an EXIF block whose only entry is the orientation tag, 0x0112."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return _after_start(data, _segment(0xE1, b"Exif\0\0" + tiff))


@pytest.mark.parametrize("size", [(300, 240), (1900, 2101)], ids=SIZE)
@pytest.mark.parametrize("orientation", range(1, 9), ids="orientation {}".format)
def test_exif_orientation_is_ignored(size: tuple[int, int], orientation: int) -> None:
    data = _jpeg(_texture(*size))
    turned = _with_orientation(data, orientation)
    if orientation == 6:  # the tag is one that OpenCV would follow
        followed = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert followed is not None and followed.shape == size
    assert image_size(turned, "x.jpg") == size
    np.testing.assert_array_equal(_framed(turned), _framed(data))


@pytest.mark.parametrize("size", [(424, 509), (2545, 3057)], ids=SIZE)
def test_progressive_jpegs_work(size: tuple[int, int]) -> None:
    pixels = _texture(*size)
    data = _jpeg(pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert b"\xff\xc2" in data
    assert image_size(data, "x.jpg") == size
    difference = np.abs(_framed(data) - _resized(_whole_decode(data)))
    assert (difference <= 2).mean() >= 0.999


@pytest.mark.parametrize("size", [(424, 509), (2545, 3057)], ids=SIZE)
def test_colour_jpegs_become_their_luma(size: tuple[int, int]) -> None:
    blue, green, red = (_texture(*size, seed) for seed in (1, 2, 3))
    data = _jpeg(np.dstack([blue, green, red]))
    luma = np.rint(0.299 * red + 0.587 * green + 0.114 * blue).astype(np.uint8)
    assert image_size(data, "x.jpg") == size
    # JPEG loses more of coloured noise than of grey, but averaging over the frame evens it out.
    assert (np.abs(_framed(data, "luma") - _resized(luma)) <= 3).mean() >= 0.999


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 9), (9, 1), (7, 8), (16, 17), (255, 256), (257, 65), (3, 65000), (2544, 3056)],
    ids=SIZE,
)
@pytest.mark.parametrize("progressive", [0, 1], ids=["baseline", "progressive"])
def test_the_size_is_read_from_the_header(size: tuple[int, int], progressive: int) -> None:
    blank = np.zeros(size[::-1], np.uint8)
    assert image_size(_jpeg(blank, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive), "x.jpg") == size


@given(width=st.integers(1, 700), height=st.integers(1, 700))
@settings(max_examples=40, deadline=None)
def test_any_size_is_read_and_framed(width: int, height: int) -> None:
    data = _jpeg(np.full((height, width), 200, np.uint8))
    assert image_size(data, "x.jpg") == (width, height)
    grey = 200 * width * height / max(width, height) ** 2  # padding is black
    assert abs(float(_framed(data).mean()) - grey) <= 1


def test_the_size_is_the_images_and_not_its_thumbnails() -> None:
    thumbnail = _jpeg(np.zeros((12, 10), np.uint8))
    data = _after_start(_jpeg(_texture(300, 240)), _segment(0xE1, b"Exif\0\0" + thumbnail))
    assert image_size(data, "x.jpg") == (300, 240)


def test_comments_and_fill_bytes_before_the_header_are_skipped() -> None:
    data = _after_start(_jpeg(_texture(300, 240)), b"\xff\xff" + _segment(0xFE, b"\xff\xc0 no"))
    assert image_size(data, "x.jpg") == (300, 240)
    assert _framed(data).any()


def _reason(data: bytes) -> str:
    with pytest.raises(BadInputError) as caught:
        _framed(data)
    assert caught.value.path == "x.jpg"
    assert "x.jpg" in str(caught.value)
    return caught.value.reason


def test_an_empty_file_is_no_image() -> None:
    assert _reason(b"") == "empty_file"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"<html>PHANTOM</html>\n", id="html"),
        pytest.param(b"BMI 24, PHANTOM\n" * 9, id="text"),
        pytest.param(bytes(range(256)), id="garbage"),
        pytest.param(b"\xff\xd9", id="only an end marker"),
    ],
)
def test_other_bytes_are_no_image(data: bytes) -> None:
    assert _reason(data) == "not_an_image"


JPEG = _jpeg(_texture(300, 240))
CUTS = [2, 3, 20, 100, 300, len(JPEG) // 2, len(JPEG) - 2, len(JPEG) - 1]


@pytest.mark.parametrize("kept", CUTS, ids="after {} bytes".format)
def test_a_cut_jpeg_is_truncated(kept: int) -> None:
    assert _reason(JPEG[:kept]) == "truncated_image"


def test_a_cut_jpeg_is_truncated_even_where_the_disk_had_reserved_its_size() -> None:
    half = len(JPEG) // 2
    assert _reason(JPEG[:half] + b"\0" * (len(JPEG) - half)) == "truncated_image"


def test_a_cut_jpeg_is_truncated_even_where_its_thumbnail_is_whole() -> None:
    thumbnail = _jpeg(np.zeros((12, 10), np.uint8))
    data = _after_start(JPEG, _segment(0xE1, b"Exif\0\0" + thumbnail))
    assert _reason(data[: len(data) * 2 // 3]) == "truncated_image"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xd8\xff\xd9", id="start and end alone"),
        pytest.param(b"\xff\xd8" + b"\x55" * 400 + b"\xff\xd9", id="garbage between"),
        pytest.param(JPEG[:2] + _segment(0xE0, b"") + b"\xff\xd9", id="no frame header"),
        pytest.param(JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", id="no scan"),
    ],
)
def test_a_hollow_jpeg_is_refused(data: bytes) -> None:
    # Whether its picture was cut out or never there, nobody can tell.
    assert _reason(data) in ("undecodable_image", "truncated_image")


@given(data=st.binary(max_size=300), start=st.booleans(), end=st.booleans())
def test_any_bytes_have_a_size_or_a_reason(data: bytes, start: bool, end: bool) -> None:
    whole = b"\xff\xd8" * start + data + b"\xff\xd9" * end
    try:
        width, height = image_size(whole, "x.jpg")
    except BadInputError as error:
        assert error.reason
    else:
        assert width > 0 and height > 0


@given(position=st.integers(200, len(JPEG) - 3), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_damaged_scan_gives_a_frame_or_a_reason(position: int, value: int) -> None:
    damaged = JPEG[:position] + bytes([value]) + JPEG[position + 1 :]
    try:
        values = _framed(damaged)
    except BadInputError as error:
        assert error.reason == "undecodable_image"
    else:
        assert values.shape == (224, 224)
