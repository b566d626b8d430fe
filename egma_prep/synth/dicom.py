"""A phantom X-ray as MIMIC-CXR ships it: an uncompressed 12-bit DICOM file."""

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from .anatomy import Pixels
from .readings import PhantomImage

_STEP = 16  # stored values a grey level
_WINDOW = (2040.5, 4081)  # centre and width that take 16 p back to p


def dicom_file(image: PhantomImage, pixels: Pixels) -> bytes:
    """Return a file that shows uint8 pixels, [rows, columns]; every third one is inverted."""
    inverted = image.number % 3 == 0
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    number = int(image.dicom_id.replace("-", "")[:24], 16)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number}")
    data.PatientID, data.PatientName = f"p{image.subject_id}", "PHANTOM"
    data.Modality, data.ViewPosition = "DX", image.view
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.WindowCenter, data.WindowWidth = _WINDOW
    stored = _STEP * (255 - pixels if inverted else pixels).astype("<u2")
    data.add_new("PixelData", "OW", np.ascontiguousarray(stored).tobytes())
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()
