"""DICOM files for the tests: pydicom's own ones, and variants of its CT with other pixels and attributes."""

import copy
import functools
import pathlib

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

PATIENT = "CompressedSamples^CT1"  # of CT_small.dcm
STEP = 2.5  # mm between the slices of `save_series`


def shipped(name):
    """Return the path of a file that pydicom ships."""
    return pathlib.Path(get_testdata_file(name))


@functools.cache
def _ct_small():
    dataset = pydicom.dcmread(shipped("CT_small.dcm"))
    dataset.PixelData  # noqa: B018 - It is read only now.
    return dataset


def make_ct(stored, **attributes):
    """Return CT_small.dcm with other stored pixels `(rows, columns)` or frames, and other attributes.

    An attribute of `None` is taken away.
    """
    stored = np.asarray(stored)
    dataset = copy.deepcopy(_ct_small())
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    bits = 8 * stored.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        dataset.pop(name, None)
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW"
    return change(dataset, **attributes)


def change(dataset, **attributes):
    """Set attributes of a data set, or take away those of `None`."""
    for name, value in attributes.items():
        if value is None:
            dataset.pop(name, None)
        else:
            setattr(dataset, name, value)
    if attributes.get("BitsStored"):
        dataset.HighBit = dataset.BitsStored - 1
    return dataset


def save(path, stored, **attributes):
    """Write what `make_ct` makes, and return its path."""
    make_ct(stored, **attributes).save_as(path)
    return path


def save_series(folder, volume, **attributes):
    """Write a volume `(slices, rows, columns)` as one oblique series, a file for each slice, to a folder.

    Names of files and InstanceNumbers count backwards, so that neither tells the order.
    """
    folder.mkdir(exist_ok=True)
    right, down = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    normal = np.cross(right, down)
    for number, stored in enumerate(volume):
        make_ct(
            stored,
            SOPInstanceUID=f"1.2.3.{number}",
            InstanceNumber=len(volume) - number,
            ImagePositionPatient=[f"{each:.4f}" for each in np.array([-10, 5, 30]) + number * STEP * normal],
            ImageOrientationPatient=[*right, *down],
            PixelSpacing=[0.5, 0.75],
            SliceThickness=STEP,
            **attributes,
        ).save_as(folder / f"{len(volume) - number:03d}.dcm")
    return folder


def make_enhanced(volume, order, **attributes):
    """Return an enhanced multi-frame CT of a volume whose frames are stored in the given order."""
    dataset = make_ct(volume[list(order)], SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", **attributes)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del dataset[name]
    for name in ("RescaleSlope", "RescaleIntercept"):
        dataset.pop(name, None)
    shared = Dataset()
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [item(PixelSpacing=[0.5, 0.75], SliceThickness=STEP)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in order:
        frame = Dataset()
        frame.PlanePositionSequence = [item(ImagePositionPatient=[-10, 5, 30 + STEP * number])]
        frame.PixelValueTransformationSequence = [
            item(RescaleSlope=1, RescaleIntercept=-1000 - number, RescaleType="HU")
        ]
        frame.FrameVOILUTSequence = [item(WindowCenter=40 + number, WindowWidth=400)]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset


def item(**attributes):
    """Return an item of a sequence."""
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def table(first, entries, bits=16):
    """Return an item of a sequence with a lookup table."""
    made = item(LUTDescriptor=[len(entries), first % 2**16, bits])
    made.add_new("LUTData", "US", [int(each) for each in entries])
    made["LUTDescriptor"].VR = "US"
    return made
