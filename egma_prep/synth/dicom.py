"""A phantom X-ray as MIMIC-CXR ships it: 12 bits in a DICOM file, or MIMIC-CXR-JPG's picture."""

import io

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from .anatomy import Pixels
from .readings import PhantomImage

_STEP = 16  # stored values a grey level
_WINDOW = (2040.5, 4081)  # centre and width that take 16 p back to p
_QUALITY = 95  # OpenCV's own, so MIMIC-CXR-JPG's


def stored_values(image: PhantomImage, pixels: Pixels) -> Pixels:
    """Return what both files are made of: 12 bits, in every third image white at 0."""
    return _STEP * (255 - pixels if _inverted(image) else pixels).astype("<u2")


def jpeg_file(image: PhantomImage, stored: Pixels) -> bytes:
    """Return the JPEG that MIMIC-CXR-JPG would have of stored values (Johnson et al. 2019)."""
    above = stored - stored.min()
    most = int(above.max())
    shown = (np.arange(most + 1) / most * 255).astype(np.uint8)[above]
    equal = equalised(255 - shown if _inverted(image) else shown)
    return cv2.imencode(".jpg", equal, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def equalised(pixels: Pixels) -> Pixels:
    """Spread grey levels by the share of pixels up to each, the darkest at 0: uint8."""
    counts = cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel()
    above = counts.cumsum() - counts[pixels.min()]
    levels = np.rint(255 * above.clip(0) / max(above[-1], 1))
    return cv2.LUT(pixels, levels.astype(np.uint8))


def _inverted(image: PhantomImage) -> bool:
    return image.number % 3 == 0


def dicom_file(image: PhantomImage, stored: Pixels) -> bytes:
    """Return the DICOM file of stored values, [rows, columns]."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    number = int(image.dicom_id.replace("-", "")[:24], 16)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number}")
    data.PatientID, data.PatientName = f"p{image.subject_id}", "PHANTOM"
    data.Modality, data.ViewPosition = "DX", image.view
    data.PhotometricInterpretation = "MONOCHROME1" if _inverted(image) else "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.WindowCenter, data.WindowWidth = _WINDOW
    data.add_new("PixelData", "OW", np.ascontiguousarray(stored).tobytes())
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()
