"""DICOM files for tests, written with pydicom; every identifying element says `SECRET`."""

import io
import pathlib

import numpy as np
from PIL import Image

SECRET = "Zyxwv"


def write(path: pathlib.Path, pixels: np.ndarray, *, syntax=None, encode=None, **elements):
    """Writes a file.

    Args:
      path: of the file.
      pixels: ``(frames, height, width)`` or ``(frames, height, width, 3)``, uint8 or uint16.
      syntax: transfer syntax UID; None is explicit little endian.
      encode: function from one frame to its compressed bytes, for a compressed syntax.
      **elements: further elements, or others than the defaults, by keyword.
    """
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID = f"{SECRET}^Jane", f"{SECRET}-7"
    data.InstitutionName = data.StudyDescription = data.ImageComments = f"{SECRET} clinic"
    data.Rows, data.Columns = pixels.shape[1:3]
    data.NumberOfFrames = len(pixels)
    data.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    if pixels.ndim == 4:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    if encode:
        data.PixelData = encapsulate([encode(frame) for frame in pixels])
        data["PixelData"].is_undefined_length = True
    else:
        content = pixels.tobytes()
        data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OB" if pixels.dtype == np.uint8 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def study(**elements):
    """What a scanner's file says of patient, study and series beyond `write`'s own.

    Args:
      **elements: others than these, by keyword; None leaves one out.

    Returns:
      Elements for `write`.
    """
    found = {
        "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.1",
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.2",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.3",
        "SeriesNumber": 4,
        "Modality": "US",
        "PatientBirthDate": "19610203",
        "PatientSex": "F",
        "StudyDate": "20240506",
        "StudyTime": "070809",
        "StudyID": f"{SECRET}9",
        "AccessionNumber": f"{SECRET}8",
        "ReferringPhysicianName": f"{SECRET}^Joan",
    } | elements
    return {keyword: value for keyword, value in found.items() if value is not None}


def pillow_encoder(file_format: str, **options):
    """Compresses a frame with Pillow."""

    def encode(frame: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format=file_format, **options)
        return buffer.getvalue()

    return encode


def region(box, row_cm, col_cm, *, units=3, spatial_format=1):
    """An item of SequenceOfUltrasoundRegions; ``box`` is top, left, bottom, right, half open."""
    import pydicom

    item = pydicom.Dataset()
    item.RegionLocationMinY0, item.RegionLocationMinX0 = box[0], box[1]
    item.RegionLocationMaxY1, item.RegionLocationMaxX1 = box[2] - 1, box[3] - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaY, item.PhysicalDeltaX = row_cm, col_cm
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial_format, 1, 0
    return item
