"""Real DICOM files of other projects' tests, where ../shared/real lies beside the checkout."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed, image_size
from egma_prep.images.dicom import decode_dicom
from egma_prep.images.dicom_bytes import looks_like_dicom
from egma_prep.options import ImageOptions

HOMES = [above / "shared" / "real" / "images" for above in Path(__file__).parents]
REAL = next((home for home in HOMES if home.is_dir()), HOMES[0])

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/real beside the checkout")

SIZES = {
    "barre-CR-MONO1-10-chest": (440, 440),
    "cwil-CT-008.1.2.4.51.dcm": (512, 512),
    "cwil-CT-008.1.2.4.53.dcm": (512, 512),
    "cwil-CT-008.1.2.4.55.dcm": (512, 512),
    "cwil-CT-008.1.2.4.57.dcm": (512, 512),
    "fodicom-CR-ModalitySequenceLUT.dcm": (1976, 1576),
    "fodicom-GH133-mammo-VOILUT.dcm": (2394, 3062),
    "highdicom-dx_image.dcm": (211, 169),
    "nema-RG1_J2KI.dcm": (1841, 1955),
    "pydicom-JPGExtended.dcm": (256, 1024),
    "pydicom-no_meta.dcm": (128, 128),
    "siim-1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": (1024, 1024),
}


def decoded(name: str) -> np.ndarray:
    return decode_dicom((REAL / name).read_bytes(), name)[0].astype(np.int64)


@pytest.mark.parametrize("recipe", ["window", "mimic-cxr-jpg"])
@pytest.mark.parametrize("name", SIZES)
def test_a_real_file_opens_without_anything_passed_over(name: str, recipe: str) -> None:
    data = (REAL / name).read_bytes()
    assert image_size(data, name) == SIZES[name]
    values, notes = framed(data, name, frame_of(*SIZES[name]), ImageOptions(dicom_grey=recipe))
    assert notes == ()
    assert values.std() > 10


def test_every_real_dicom_file_is_in_the_list() -> None:
    found = {path.name for path in REAL.iterdir() if looks_like_dicom(path.read_bytes())}
    assert found == set(SIZES)


@pytest.mark.parametrize("process", ["51", "53", "55"])
def test_a_slice_in_12_bit_jpeg_is_near_the_lossless_one(
    process: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """4.5 HU on average, of the 400 that the window shows; and gdcm says nothing."""
    apart = decoded(f"cwil-CT-008.1.2.4.{process}.dcm") - decoded("cwil-CT-008.1.2.4.57.dcm")
    assert np.abs(apart).mean() < 4.5 * 255 / 400
    assert "precision" not in capfd.readouterr().err


def test_a_chest_without_preamble_is_its_last_bytes_windowed() -> None:
    name = "barre-CR-MONO1-10-chest"
    data = (REAL / name).read_bytes()
    stored = np.frombuffer(data[-440 * 440 * 2 :], "<u2").reshape(440, 440).astype(float)
    share = np.clip((stored - 549.5) / 1023 + 0.5, 0, 1)  # centre 550, width 1024
    assert np.abs(decoded(name) - 255 * (1 - share)).max() <= 0.5 + 1e-6


def test_a_siim_chest_of_8_bits_is_its_jpegs_pixels() -> None:
    (name,) = (name for name in SIZES if name.startswith("siim"))
    assert (decoded(name) == pydicom.dcmread(REAL / name).pixel_array).all()


def test_a_mammogram_is_shown_by_its_first_voi_table() -> None:
    name = "fodicom-GH133-mammo-VOILUT.dcm"
    header = pydicom.dcmread(REAL / name)
    table = header.VOILUTSequence[0]
    first, entries = table.LUTDescriptor[1], np.array(table.LUTData)
    at = np.clip(header.pixel_array.astype(int) - first, 0, len(entries) - 1)
    assert np.abs(decoded(name) - 255 * entries[at] / entries.max()).max() <= 0.5 + 1e-6
