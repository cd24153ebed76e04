"""Write heatmaps as DICOM Parametric Maps. `formats.write` calls it, and `capture` parts of it."""

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_gradcam import __version__
from tf_gradcam._checks import one_line
from tf_gradcam._files import unfinished
from tf_gradcam._optional import require
from tf_gradcam.formats._dicom.datasets import numbers, quiet
from tf_gradcam.formats._scan import Scan, scaled_affine
from tf_gradcam.formats._writing import About

NAME = "tf_gradcam"
SERIES_NUMBER = 9001  # above those of scanners
_LONG = 64  # characters of a DICOM LO, "long string"
_TEXT = 1024  # of an ST, "short text"
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# CID 217 "Visual Explanation" of PS3.16. A method that is none of them gets a code of our own.
_GRADIENT_WEIGHTED = ("130403", "DCM", "Gradient-weighted class activation")
_CLASS_ACTIVATION = ("130402", "DCM", "Class activation")
_SALIENCY = ("130404", "DCM", "Saliency")
_CODES = {
    "gradcam": _GRADIENT_WEIGHTED,
    "gradcam_elementwise": _GRADIENT_WEIGHTED,
    "gradcam_plus_plus": _GRADIENT_WEIGHTED,
    "smooth_gradcam_plus_plus": _GRADIENT_WEIGHTED,
    "hirescam": _GRADIENT_WEIGHTED,
    "layercam": _GRADIENT_WEIGHTED,
    "xgradcam": _GRADIENT_WEIGHTED,
    "finercam": _GRADIENT_WEIGHTED,
    "shapleycam": _GRADIENT_WEIGHTED,
    "eigengradcam": _GRADIENT_WEIGHTED,
    "cam": _CLASS_ACTIVATION,
    "ablationcam": _CLASS_ACTIVATION,
    "reciprocam": _CLASS_ACTIVATION,
    "scorecam": _CLASS_ACTIVATION,
    "sscam": _CLASS_ACTIVATION,
    "iscam": _CLASS_ACTIVATION,
    "opticam": _CLASS_ACTIVATION,
    "legrad": _SALIENCY,
    "rise": _SALIENCY,
    "gradient": _SALIENCY,
    "gradient_x_input": _SALIENCY,
    "integrated_gradients": _SALIENCY,
    "smoothgrad": _SALIENCY,
    "guided_backprop": _SALIENCY,
    "guided_gradcam": _SALIENCY,
    "fullgrad": _SALIENCY,
}
_OWN_SCHEME = "99TFGRADCAM"
_PATIENT_AND_STUDY = (  # Attributes that have to be there, and may be empty.
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_REFERRED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_GRID = (
    "SOPClassUID",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
)
_NOT_OF_A_REFERENCE = {  # Attributes of a source that say how its own pixels are stored.
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "NumberOfFrames",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
}


def write_parametric_map(path: pathlib.Path, scan: Scan, heatmap: np.ndarray, about: About) -> None:
    """Write a heatmap as a DICOM Parametric Map of the same patient, study and frame of reference.

    Its numbers are exact, float32. It keeps its own grid, with the spacing and the positions of its own
    cells. Its quantity is coded by CID 217 "Visual Explanation", or by the method's name where none of these
    fits. The standard permits no map of an image without a frame of reference, such as most radiographs.

    Args:
        path: where to.
        scan: what `read_dicom` returned.
        heatmap: float32, `(h, w)` or `(d, h, w)`.
        about: the method, the class and the model.

    Raises:
        ImportError: if highdicom is not installed.
        OSError: if it can't be written.
        ValueError: if the scan is no DICOM file, a video, or without a frame of reference; the message says
            what to write instead.
    """
    sources = sources_of(scan)
    uid = require("pydicom.uid", "pydicom", extra="dicom")
    highdicom = require("highdicom", "highdicom", extra="dicom")
    is_placed = scan.space == "LPS mm" and bool(value_of(sources[0], "FrameOfReferenceUID"))
    if scan.axes not in ("yx", "zyx") or not is_placed:
        raise _no_map_error(scan, "which has no place in a frame of reference")
    try:
        with quiet():
            references = _references(sources, heatmap.shape[-2:])
            written = highdicom.pm.ParametricMap(
                references,
                heatmap,
                uid.generate_uid(prefix=None),
                SERIES_NUMBER,
                uid.generate_uid(prefix=None),
                1,
                **_equipment(),
                **_meaning(highdicom, heatmap, about),
                **_places(highdicom, scan, heatmap),
            )
            _complete_map(written, scan, heatmap, about)
    except Exception:  # It refuses what the standard doesn't permit, and may cite values.
        raise _no_map_error(scan, "whose attributes are not as the standard has them") from None
    save(path, written)


def _references(sources, grid) -> list[Any]:
    """Return what highdicom takes from the sources: all of the first, of the others who they are."""
    first, *others = sources
    return [_reference(_readable(first), grid), *(_reference(_named(each), grid) for each in others)]


def _no_map_error(scan, received) -> ValueError:
    return ValueError(
        "`scan` must be an image or volume of which the standard permits a Parametric Map. Received: "
        f"{scan.path.name!r}, {received}. Write pictures of it: formats.write_pictures."
    )


def sources_of(scan: Scan) -> list[Any]:
    """Return the attributes of the files of a scan, each once, or say what is missing."""
    planes = getattr(scan.header, "planes", ())
    sources = _datasets(planes)
    if not sources:
        raise ValueError(
            "`scan` must be of a DICOM file, for its patient and study. "
            f"Received: {scan.path.name!r}, of format {scan.format}. Write it in that format."
        )
    missing = [
        name
        for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
        if not all(value_of(source, name) for source in sources)
    ]
    if missing:
        raise ValueError(
            f"`scan` must be of a DICOM file in order. Received: {scan.path.name!r}, without "
            f"{', '.join(missing)}. Write the heatmap as .npy."
        )
    return sources


def value_of(source: Any, name: str) -> Any:
    """Return the value of an attribute of a file; `None` where there is none, or it can't be read."""
    try:
        with quiet():
            return source.get(name)
    except Exception:  # damaged
        return None


def _datasets(planes) -> list[Any]:
    """Return the attributes of the files of planes, each file once."""
    return list({str(plane.path): plane.dataset for plane in planes}.values())


def _readable(source) -> Iterator[Any]:
    """Yield the attributes of a file that can be read, but private ones and those of its own pixels."""
    for tag in list(source.keys()):
        try:
            element = source[tag]
            if not tag.is_private and element.keyword not in _NOT_OF_A_REFERENCE:
                yield element
        except Exception:  # damaged
            continue


def _named(source) -> Iterator[Any]:
    """Yield the attributes by which a file is referred to."""
    return (source[name] for name in _REFERRED if name in source)


def _reference(elements, grid) -> Any:
    """Return what highdicom takes from a source: who it is, as an image on the grid of the heatmap."""
    dataset = require("pydicom", "pydicom", extra="dicom").Dataset()
    for element in elements:
        if element.keyword not in (*_PATIENT_AND_STUDY, *_GRID):
            dataset[element.tag] = element
    # New elements: to set the source's own ones would change the source.
    for name in _PATIENT_AND_STUDY:  # They are copied later: highdicom refuses what is odd.
        setattr(dataset, name, "")
    dataset.SOPClassUID = _CAPTURE  # of a single image, whatever the source is
    dataset.Rows, dataset.Columns = grid
    # The heatmap brings its own; these only say that there is a place.
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    return dataset


def _equipment() -> dict[str, Any]:
    return {
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": __version__,
        "device_serial_number": NAME,
    }


def _meaning(highdicom, heatmap, about) -> dict[str, Any]:
    """Return what a Parametric Map says of its numbers: what they are, and that they are themselves."""
    codes = require("pydicom.sr.codedict", "pydicom", extra="dicom").codes
    value, scheme, meaning = _code(about.method)
    concept = highdicom.sr.CodedConcept(value, scheme, meaning)
    low, high = min(0.0, float(heatmap.min())), max(1.0, float(heatmap.max()))
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=_text(about.method, 16),
        lut_explanation=_title(about),
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        slope=1,
        intercept=0,
        quantity_definition=concept,
    )
    window = highdicom.VOILUTTransformation((low + high) / 2, high - low, voi_lut_function="LINEAR_EXACT")
    return {
        "contains_recognizable_visual_features": False,
        "real_world_value_mappings": [mapping],
        "voi_lut_transformations": [window],
        "derivation": concept,
        "content_label": "HEATMAP",
        "content_description": _title(about),
        "series_description": _title(about),
        "specific_character_set": "ISO_IR 192",  # UTF-8: a label may be in any language.
    }


def _code(method) -> tuple[str, str, str]:
    """Return code value, scheme and meaning of a method."""
    name = _text(method, _LONG) or "unnamed"
    return _CODES.get(method, (name[:16].strip(), _OWN_SCHEME, name))


def _places(highdicom, scan, heatmap) -> dict[str, Any]:
    """Return where the cells of a heatmap are."""
    affine = scaled_affine(scan, heatmap.shape)
    assert affine is not None
    down, right = affine[:, -3], affine[:, -2]
    spacing = np.linalg.norm(down), np.linalg.norm(right)
    directions = [*(right / spacing[1]), *(down / spacing[0])]
    count, step, thickness, between = 1, np.zeros(3), _thickness(scan), None
    if heatmap.ndim == 3:
        count, step = len(heatmap), affine[:, 0]
        thickness = between = abs(step @ np.cross(directions[:3], directions[3:]))
    return {
        "pixel_measures": highdicom.PixelMeasuresSequence(spacing, thickness, between),
        "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", directions),
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", affine[:, -1] + number * step)
            for number in range(count)
        ],
    }


def _thickness(scan) -> float | None:
    found = numbers(scan.header.planes[0], "PixelMeasuresSequence", "SliceThickness", 1)
    return found[0] if found and found[0] > 0 else None


def _complete_map(written, scan, heatmap, about) -> None:
    """Add what highdicom leaves out, and take away what it makes up."""
    planes = scan.header.planes
    copy_patient_and_study(written, planes[0].dataset)
    written.Laterality = value_of(planes[0].dataset, "Laterality") or ""
    kinds = {plane.dataset.SOPInstanceUID: plane.dataset.SOPClassUID for plane in planes}
    written.walk(lambda dataset, element: _name_kind(dataset, element, kinds))
    if heatmap.ndim == 2:  # There is nothing between the slices of a single image.
        measures = written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.pop("SpacingBetweenSlices", None)
    frames = written.PerFrameFunctionalGroupsSequence
    ratio = len(planes) / len(frames)
    for group, number in zip(frames, _slices_of(frames, scan), strict=True):
        below = planes[math.floor(number * ratio) : math.ceil((number + 1) * ratio)]
        group.DerivationImageSequence = [_derivation_of(below, about)]
    if _code(about.method)[1] == _OWN_SCHEME:
        item = _item(CodingSchemeDesignator=_OWN_SCHEME, CodingSchemeName=f"Methods of {NAME}")
        written.CodingSchemeIdentificationSequence = [item]


def _slices_of(frames, scan) -> list[int]:
    """Return which slice of the heatmap each frame is: highdicom sorts them in its own way."""
    positions = [group.PlanePositionSequence[0].ImagePositionPatient for group in frames]
    along = np.array(positions, float) @ scan.affine[:, 0]
    return np.argsort(np.argsort(along)).tolist()


def _derivation_of(planes, about) -> Any:
    """Return the item that says from what a frame was made, and how."""
    value, scheme, meaning = _code(about.method)
    return _item(
        DerivationDescription=_derivation(about),
        DerivationCodeSequence=[_coded(value, scheme, meaning)],
        SourceImageSequence=[_source_item(plane) for plane in planes],
    )


def _source_item(plane) -> Any:
    item = _item(
        ReferencedSOPClassUID=plane.dataset.SOPClassUID,
        ReferencedSOPInstanceUID=plane.dataset.SOPInstanceUID,
        PurposeOfReferenceCodeSequence=[
            _coded("121322", "DCM", "Source image for image processing operation")
        ],
    )
    if int(plane.dataset.get("NumberOfFrames") or 1) > 1:
        # One number in each item: highdicom 0.28 reads no file with a list of them.
        item.ReferencedFrameNumber = plane.frame + 1
    return item


def _coded(value, scheme, meaning) -> Any:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(**attributes) -> Any:
    item = require("pydicom", "pydicom", extra="dicom").Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


def _name_kind(dataset, element, kinds) -> None:
    """Set the true kind of a source where it is referred to."""
    if element.keyword == "ReferencedSOPInstanceUID" and element.value in kinds:
        dataset.ReferencedSOPClassUID = kinds[element.value]


def copy_patient_and_study(written: Any, source: Any) -> None:
    """Copy the attributes of patient and study that every file has, empty where the source has none."""
    names = {element.keyword: element for element in _readable(source)}
    for name in _PATIENT_AND_STUDY:
        value = names[name].value if name in names else ""
        # A person's name keeps the bytes of its own character set; as text it is written anew.
        setattr(written, name, str(value) if name.endswith("Name") else value)


def save(path: pathlib.Path, dataset: Any) -> None:
    """Write a data set as a DICOM file, completely or not at all."""
    with quiet(), unfinished(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _title(about) -> str:
    return _text(f"{about.method} heatmap{f' of {about.label}' if about.label else ''}", _LONG)


def _derivation(about) -> str:
    said = [f"{NAME} {__version__}", f"method {about.method}"]
    said += [f"class {about.label}"] if about.label else []
    said += [f"model {about.model}"] if about.model else []
    return _text(f"{', '.join(said)}. The heatmap covers the whole source image.", _TEXT)


def _text(text, most) -> str:
    """Return text as one line without backslashes, which part values, and of a length that DICOM permits.

    It limits characters; some readers count the bytes of UTF-8.
    """
    line = one_line(text).replace("\\", "/")
    if len(line.encode()) <= most:
        return line
    return line.encode()[: most - 3].decode(errors="ignore").rstrip() + "..."
