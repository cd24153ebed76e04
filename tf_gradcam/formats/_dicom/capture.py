"""Write pictures as DICOM Secondary Captures. `formats.write_pictures` calls it."""

import datetime
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_gradcam import __version__
from tf_gradcam._optional import require
from tf_gradcam.formats._dicom.datasets import quiet
from tf_gradcam.formats._dicom.writing import (
    NAME,
    SERIES_NUMBER,
    copy_patient_and_study,
    save,
    sources_of,
    value_of,
)
from tf_gradcam.formats._scan import Scan

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CAPTURE_OF_SEVERAL = "1.2.840.10008.5.1.4.1.1.7.4"
_PAGE_NUMBER_VECTOR = 0x00182001
_FRAME_TIME_VECTOR = 0x00181065
_MAX_BYTES = 2**32 - 2  # of pixels in a file


def write_capture(path: pathlib.Path, scan: Scan, pictures: Iterable[np.ndarray]) -> None:
    """Write RGB pictures as a DICOM Secondary Capture, for viewers that show no Parametric Map.

    One picture becomes a Secondary Capture Image, several a Multi-frame True Color one.

    Args:
        path: where to.
        scan: what `read_dicom` returned: its patient and study are the capture's.
        pictures: uint8 `(H, W, 3)`, of one size.

    Raises:
        ImportError: if pydicom is not installed.
        OSError: if it can't be written.
        ValueError: if the scan is no DICOM file, or the pictures are none, of other kinds or sizes, or more
            than fit in a file.
    """
    sources = sources_of(scan)
    count, (rows, columns), data = _joined(pictures)
    with quiet():
        written = _new_dataset(_CAPTURE if count == 1 else _CAPTURE_OF_SEVERAL)
        _copy_study_modules(written, sources[0])
        _describe_capture(written, sources)
        written.SamplesPerPixel, written.PhotometricInterpretation, written.PlanarConfiguration = 3, "RGB", 0
        written.Rows, written.Columns = rows, columns
        written.BitsAllocated, written.BitsStored, written.HighBit, written.PixelRepresentation = 8, 8, 7, 0
        if count > 1:
            _describe_frames(written, scan, sources[0], count)
        written.PixelData = bytes(data)
        written["PixelData"].VR = "OB"
    save(path, written)


def _joined(pictures) -> tuple[int, tuple[int, ...], bytearray]:
    """Return the number of pictures, their rows and columns, and the bytes of all, an even number of them."""
    count, shape, data = 0, (), bytearray()
    for picture in pictures:
        pixels = np.asarray(picture)
        is_right = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.size
        if not is_right or (count and pixels.shape != shape) or max(pixels.shape) >= 2**16:
            raise ValueError(
                f"`pictures` must be uint8 of shape {shape or '(H, W, 3)'}. Received: picture {count} of "
                f"{pixels.dtype} {pixels.shape}"
            )
        if len(data) + pixels.nbytes > _MAX_BYTES:
            raise ValueError(
                f"`pictures` must be at most {_MAX_BYTES:,} bytes. Received: more. Make them smaller."
            )
        count, shape = count + 1, pixels.shape
        data += pixels.tobytes()
    if not count:
        raise ValueError("`pictures` must be one picture at least. Received: none.")
    return count, shape[:2], data + b"\0" * (len(data) % 2)


def _new_dataset(sop_class) -> Any:
    pydicom = require("pydicom", "pydicom", extra="dicom")
    written = pydicom.Dataset()
    written.file_meta = pydicom.dataset.FileMetaDataset()
    written.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    written.file_meta.MediaStorageSOPClassUID = written.SOPClassUID = sop_class
    written.SOPInstanceUID = pydicom.uid.generate_uid(prefix=None)
    written.file_meta.MediaStorageSOPInstanceUID = written.SOPInstanceUID
    written.SeriesInstanceUID = pydicom.uid.generate_uid(prefix=None)
    written.SpecificCharacterSet = "ISO_IR 192"
    return written


def _copy_study_modules(written, source) -> None:
    """Copy who and which study it is."""
    copy_patient_and_study(written, source)
    for name in ("StudyInstanceUID", "StudyDescription", "PatientAge", "PatientSize", "PatientWeight"):
        if value_of(source, name):
            setattr(written, name, value_of(source, name))


def _describe_capture(written, sources) -> None:
    now = datetime.datetime.now()
    written.InstanceCreationDate = f"{now:%Y%m%d}"
    written.InstanceCreationTime = f"{now:%H%M%S}"
    written.Modality, written.ConversionType = "OT", "WSD"
    written.SeriesNumber, written.InstanceNumber, written.Laterality = SERIES_NUMBER, 1, ""
    written.Manufacturer = written.ManufacturerModelName = NAME
    written.SoftwareVersions = __version__
    written.SeriesDescription = "Heatmap over the image"
    written.ImageType = ["DERIVED", "SECONDARY"]
    written.PatientOrientation = ""
    written.DerivationDescription = f"Pictures made by {NAME} {__version__}"
    written.SourceImageSequence = [_referenced(source) for source in sources]
    lossy = value_of(sources[0], "LossyImageCompression")
    if lossy in ("00", "01"):
        for name in ("", "Ratio", "Method"):
            value = value_of(sources[0], f"LossyImageCompression{name}")
            if value:
                setattr(written, f"LossyImageCompression{name}", value)


def _describe_frames(written, scan, source, count) -> None:
    """Add what a capture of several frames needs."""
    written.NumberOfFrames = count
    # Unless the source says otherwise, text that names the patient may be drawn into it.
    written.BurnedInAnnotation = "NO" if value_of(source, "BurnedInAnnotation") == "NO" else "YES"
    if scan.times is not None and len(scan.times) == count:
        written.FrameIncrementPointer = _FRAME_TIME_VECTOR
        written.FrameTimeVector = [
            f"{each:.6f}"[:16] for each in np.diff(scan.times, prepend=scan.times[0]) * 1000
        ]
    else:
        written.FrameIncrementPointer = _PAGE_NUMBER_VECTOR
        written.PageNumberVector = list(range(1, count + 1))


def _referenced(source) -> Any:
    item = require("pydicom", "pydicom", extra="dicom").Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    return item
