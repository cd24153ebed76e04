"""Heatmaps as Parametric Maps and pictures as Secondary Captures: valid, exact, and in the same place."""

import shutil
import subprocess
import warnings

import highdicom
import keras
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import PATIENT, make_ct, make_enhanced, save, save_series, shipped

import tf_gradcam
from tf_gradcam import formats

VOLUME = np.random.default_rng(0).integers(0, 2000, (6, 8, 10), np.uint16)
ORDER = [4, 0, 2, 5, 1, 3]  # of the frames in an enhanced file
SAME = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "FrameOfReferenceUID",
)


def validated(path):
    """Read a file that Debian's validator finds no error in."""
    if shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True).stderr
        assert "Error" not in said, said
    return pydicom.dcmread(path)


def by_highdicom(path):
    """Return the values of a Parametric Map, and how highdicom places them in LPS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = highdicom.imread(path)
        if image.NumberOfFrames > 1:
            volume = image.get_volume()
            return volume.array, volume.affine
        frames = image.get_frames()
    shared, frame = image.SharedFunctionalGroupsSequence[0], image.PerFrameFunctionalGroupsSequence[0]
    transformer = highdicom.spatial.PixelToReferenceTransformer(
        frame.PlanePositionSequence[0].ImagePositionPatient,
        shared.PlaneOrientationSequence[0].ImageOrientationPatient,
        shared.PixelMeasuresSequence[0].PixelSpacing,
    )
    return frames, transformer


def test_the_validator_is_there_and_finds_what_is_missing(tmp_path, heatmap):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools): the other tests don't validate.")
    formats.write(tmp_path / "a.dcm", formats.read(shipped("CT_small.dcm")), heatmap)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.ContentLabel
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(AssertionError, match="Missing attribute.*ContentLabel"):
        validated(tmp_path / "a.dcm")


@pytest.fixture
def heatmap():
    return np.random.default_rng(1).random((7, 9), np.float32)


# Parametric Maps


def test_a_map_is_exact_valid_and_of_the_same_patient_study_and_place(tmp_path, heatmap):
    scan = formats.read(shipped("CT_small.dcm"))
    before = scan.header.planes[0].dataset.to_json()
    formats.write(tmp_path / "a.dcm", scan, heatmap, label="pneumonia", model="densenet-v2")
    assert scan.header.planes[0].dataset.to_json() == before
    written, source = validated(tmp_path / "a.dcm"), pydicom.dcmread(shipped("CT_small.dcm"))
    for name in SAME:
        assert written.get(name) == source.get(name), name
    assert written.SOPClassUID.name == "Parametric Map Storage"
    np.testing.assert_array_equal(written.pixel_array, heatmap)
    np.testing.assert_array_equal(by_highdicom(tmp_path / "a.dcm")[0][0], heatmap)
    shared, (frame,) = written.SharedFunctionalGroupsSequence[0], written.PerFrameFunctionalGroupsSequence
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert written.ContentDescription == written.SeriesDescription == "gradcam heatmap of pneumonia"
    (derived,) = frame.DerivationImageSequence
    assert "method gradcam, class pneumonia, model densenet-v2" in derived.DerivationDescription
    (referred,) = derived.SourceImageSequence
    assert referred.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert referred.ReferencedSOPClassUID == source.SOPClassUID
    measures = shared.PixelMeasuresSequence[0]
    assert measures.SliceThickness == source.SliceThickness
    assert "SpacingBetweenSlices" not in measures


def test_a_map_is_read_again_as_a_scan(tmp_path, heatmap):
    scan = formats.read(shipped("CT_small.dcm"))
    formats.write(tmp_path / "a.dcm", scan, heatmap)
    again = formats.read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(again.values[..., 0], heatmap)
    assert (again.limits, again.axes, again.space) == ((0, 1), "yx", "LPS mm")
    assert again.position((-0.5, -0.5)) == pytest.approx(scan.position((-0.5, -0.5)))
    assert again.position((6.5, 8.5)) == pytest.approx(scan.position((127.5, 127.5)))


CODES = {
    "gradcam": ("130403", "DCM", "Gradient-weighted class activation"),
    "cam": ("130402", "DCM", "Class activation"),
    "integrated_gradients": ("130404", "DCM", "Saliency"),
    "my_method": ("my_method", "99TFGRADCAM", "my_method"),
    "smooth(gradcam), with a long description": (
        "smooth(gradcam),",
        "99TFGRADCAM",
        "smooth(gradcam), with a long description",
    ),
}


@pytest.mark.parametrize("method", CODES)
def test_the_quantity_is_coded_by_the_method(tmp_path, heatmap, method):
    formats.write(tmp_path / "a.dcm", formats.read(shipped("CT_small.dcm")), heatmap, method=method)
    written = validated(tmp_path / "a.dcm")
    (mapping,) = written.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    derivation = written.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    for code in (quantity, derivation.DerivationCodeSequence[0]):
        assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == CODES[method]
    schemes = [each.CodingSchemeDesignator for each in written.get("CodingSchemeIdentificationSequence", ())]
    assert schemes == ([] if CODES[method][1] == "DCM" else ["99TFGRADCAM"])


def test_every_method_of_the_library_that_fits_a_code_is_coded():
    from tf_gradcam.formats._dicom.writing import _CODES

    assert set(_CODES) <= set(tf_gradcam.methods.METHODS)
    assert set(tf_gradcam.methods.METHODS) - set(_CODES) == {"eigencam", "fem", "kpca_cam"}  # of no class


def test_long_and_foreign_labels_are_kept_as_far_as_dicom_permits(tmp_path, heatmap):
    scan = formats.read(shipped("CT_small.dcm"))
    label, model = "肺炎 \\ Lungenentzündung\n" + "x" * 99, "m" * 2000
    formats.write(tmp_path / "a.dcm", scan, heatmap, label=label, model=model)
    written = validated(tmp_path / "a.dcm")
    assert written.ContentDescription.startswith("gradcam heatmap of 肺炎 / Lungenentzündung xx")
    assert written.ContentDescription.endswith("...")
    assert len(written.ContentDescription.encode()) == 64
    (derived,) = written.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    assert len(derived.DerivationDescription.encode()) == 1024


@pytest.mark.parametrize(("charset", "name"), [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 126", "Διονυσιος")])
def test_names_in_other_character_sets_are_written_anew(tmp_path, heatmap, charset, name):
    path = save(tmp_path / "a.dcm", VOLUME[0], SpecificCharacterSet=charset, PatientName=name)
    scan = formats.read(path)
    formats.write(tmp_path / "map.dcm", scan, heatmap)
    formats.write_pictures(tmp_path / "capture.dcm", scan, [scan.picture()])
    for written in ("map.dcm", "capture.dcm"):
        assert str(validated(tmp_path / written).PatientName) == name


def test_odd_attributes_of_a_patient_are_kept_and_missing_ones_stay_empty(tmp_path, heatmap):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = save(tmp_path / "odd.dcm", VOLUME[0], PatientSex="X", PatientBirthDate="19000000")
    formats.write(tmp_path / "a.dcm", formats.read(odd), heatmap)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = pydicom.dcmread(tmp_path / "a.dcm")
        assert (written.PatientSex, written.PatientBirthDate) == ("X", "19000000")
    names = [name for name in SAME if name not in ("StudyInstanceUID", "FrameOfReferenceUID")]
    bare = save(tmp_path / "bare.dcm", VOLUME[0], SliceThickness=None, **dict.fromkeys(names))
    formats.write(tmp_path / "b.dcm", formats.read(bare), heatmap)
    written = validated(tmp_path / "b.dcm")
    assert [written[name].value or "" for name in names] == [""] * len(names)


def test_signed_maps_are_within_the_mapped_range(tmp_path, heatmap):
    scan = formats.read(shipped("CT_small.dcm"))
    formats.write(tmp_path / "a.dcm", scan, (heatmap - 0.5) * 8)
    written = validated(tmp_path / "a.dcm")
    (mapping,) = written.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == written.pixel_array.min()
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == written.pixel_array.max()
    np.testing.assert_array_equal(by_highdicom(tmp_path / "a.dcm")[0][0], (heatmap - 0.5) * 8)


def test_uids_are_new_each_time_and_no_date_is_made_up(tmp_path, heatmap):
    scan = formats.read(save(tmp_path / "s.dcm", VOLUME[0], StudyDate="", SeriesDate=None))
    uids = []
    for number in range(2):
        formats.write(tmp_path / f"{number}.dcm", scan, heatmap)
        formats.write_pictures(tmp_path / f"{number}c.dcm", scan, [scan.picture()])
        for name in (f"{number}.dcm", f"{number}c.dcm"):
            written = pydicom.dcmread(tmp_path / name)
            uids += [written.SOPInstanceUID, written.SeriesInstanceUID]
            assert written.StudyDate == ""
            assert "AcquisitionDate" not in written
            assert "SeriesDate" not in written
    assert len(set(uids)) == 8


# The same place


def made_volume(kind, folder):
    """Return the path of a volume of a kind, and how SimpleITK places its indices (slice, row, column)."""
    if kind == "series":
        path = save_series(folder / "series", VOLUME)
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        image = SimpleITK.ReadImage(names)
    else:
        path = folder / "enhanced.dcm"
        make_enhanced(VOLUME, ORDER).save_as(path)
        sorted_path = folder / "sorted.dcm"  # SimpleITK takes frames in the order of the file.
        make_enhanced(VOLUME, range(6)).save_as(sorted_path)
        image = SimpleITK.ReadImage(sorted_path)
    return path, lambda index: image.TransformContinuousIndexToPhysicalPoint(
        [float(each) for each in index[::-1]]
    )


def slices_named(group):
    """Return the numbers of the slices of `made_volume` that a frame says it was made from."""
    items = group.DerivationImageSequence[0].SourceImageSequence
    if "ReferencedFrameNumber" in items[0]:
        return [ORDER[int(item.ReferencedFrameNumber) - 1] for item in items]
    return [int(item.ReferencedSOPInstanceUID.rpartition(".")[2]) for item in items]


@pytest.mark.parametrize("kind", ["series", "enhanced"])
@pytest.mark.parametrize("grid", [(6, 8, 10), (3, 4, 5), (2, 3, 7), (1, 2, 2)])
def test_the_peak_of_a_volume_is_at_the_same_millimetres(tmp_path, kind, grid):
    path, place = made_volume(kind, tmp_path)
    heatmap = np.random.default_rng(2).random(grid, np.float32)
    peak = np.unravel_index(heatmap.argmax(), grid)
    formats.write(tmp_path / "map.dcm", formats.read(path), heatmap)
    written = validated(tmp_path / "map.dcm")
    assert written.NumberOfFrames == grid[0]
    # The middle of a cell, in indices of the volume.
    expected = place(
        [(at + 0.5) * whole / cells - 0.5 for at, whole, cells in zip(peak, VOLUME.shape, grid, strict=True)]
    )
    frames = written.pixel_array.reshape(grid)
    for frame, group in zip(frames, written.PerFrameFunctionalGroupsSequence, strict=True):
        number = [np.array_equal(frame, each) for each in heatmap].index(True)
        covered = [at for at in range(6) if number * 6 / grid[0] - 1 < at < (number + 1) * 6 / grid[0]]
        assert slices_named(group) == covered
    values, placed = by_highdicom(tmp_path / "map.dcm")
    found = np.array(np.unravel_index(values.argmax(), values.shape))
    one, several = found[2:0:-1][None], [*found, 1]
    by_library = placed(one)[0] if grid[0] == 1 else (placed @ several)[:3]
    assert by_library == pytest.approx(expected, abs=1e-3)
    again = formats.read(tmp_path / "map.dcm")
    np.testing.assert_array_equal(again.values[..., 0], heatmap[0] if grid[0] == 1 else heatmap)


def test_a_network_points_at_the_same_millimetres(tmp_path):
    """A network that averages what is bright: its heatmap peaks at the bright spot of the CT."""
    stored = np.full((64, 64), 100, np.int16)
    stored[44:48, 12:16] = 3000
    path = save(tmp_path / "ct.dcm", stored, RescaleIntercept=-1024)
    image = keras.Input((64, 64, 1))
    bright = keras.layers.Lambda(lambda values: keras.ops.relu(values) / 1000)(image)
    cells = keras.layers.AveragePooling2D(4, name="cells")(bright)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(cells))
    scan = formats.read(path)
    pixels = np.asarray(scan, np.float32)
    heatmap = tf_gradcam.make_gradcam_heatmap(model, pixels, "cells", tf_gradcam.targets.Value(), size=None)
    formats.write(tmp_path / "map.dcm", scan, heatmap, model=model.name)
    validated(tmp_path / "map.dcm")
    values, place = by_highdicom(tmp_path / "map.dcm")
    row, column = np.unravel_index(values[0].argmax(), values[0].shape)
    expected = SimpleITK.ReadImage(path).TransformContinuousIndexToPhysicalPoint((13.5, 45.5, 0.0))
    assert place(np.array([[column, row]]))[0] == pytest.approx(expected, abs=1e-3)


# What no Parametric Map is made of


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "examples_ybr_color.dcm", "JPGExtended.dcm"])
def test_an_image_without_a_place_offers_pictures(tmp_path, name):
    scan = formats.read(shipped(name))
    heatmap = np.ones(scan.shape[:-1], np.float32)
    with pytest.raises(ValueError, match=r"no place in a frame of reference. Write pictures of it"):
        formats.write(tmp_path / "a.dcm", scan, heatmap)
    assert list(tmp_path.iterdir()) == []


def test_a_scan_of_another_format_and_a_file_without_a_study_are_refused(tmp_path, heatmap):
    np.save(tmp_path / "a.npy", VOLUME[0])
    other = formats.Scan(values=VOLUME[0][..., None], axes="yx", format="NumPy", path=tmp_path / "a.npy")
    with pytest.raises(ValueError, match="must be of a DICOM file, for its patient and study"):
        formats.write(tmp_path / "b.dcm", other, heatmap)
    scan = formats.read(save(tmp_path / "c.dcm", VOLUME[0], StudyInstanceUID=None))
    with pytest.raises(ValueError, match="without StudyInstanceUID") as caught:
        formats.write_pictures(tmp_path / "b.dcm", scan, [scan.picture()])
    assert PATIENT not in str(caught.value)


# Secondary Captures


def test_a_picture_becomes_a_secondary_capture(tmp_path):
    scan = formats.read(shipped("CT_small.dcm"))
    picture = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)  # of odd bytes
    formats.write_pictures(tmp_path / "a.dcm", scan, [picture])
    written = validated(tmp_path / "a.dcm")
    assert written.SOPClassUID.name == "Secondary Capture Image Storage"
    for name in SAME[:-1]:
        assert written.get(name) == scan.header.planes[0].dataset.get(name), name
    assert (
        written.SourceImageSequence[0].ReferencedSOPInstanceUID
        == scan.header.planes[0].dataset.SOPInstanceUID
    )
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "a.dcm"))[0], picture
    )
    np.testing.assert_array_equal(highdicom.imread(tmp_path / "a.dcm").get_frame(1), picture)
    np.testing.assert_array_equal(formats.read(tmp_path / "a.dcm").values, picture)


def test_pictures_of_a_volume_and_of_a_video_become_frames(tmp_path):
    for path in (save_series(tmp_path / "series", VOLUME), shipped("examples_ybr_color.dcm")):
        scan = formats.read(path)
        pictures = scan.picture()
        formats.write_pictures(tmp_path / "a.dcm", scan, iter(pictures))
        written = validated(tmp_path / "a.dcm")
        assert written.SOPClassUID.name == "Multi-frame True Color Secondary Capture Image Storage"
        found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "a.dcm"))
        np.testing.assert_array_equal(found, pictures)
        again = formats.read(tmp_path / "a.dcm")
        np.testing.assert_array_equal(again.values, pictures)
        if scan.times is not None:
            np.testing.assert_allclose(again.times, scan.times, atol=1e-6 * len(scan.times))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "one picture at least"),
        ([np.zeros((4, 4), np.uint8)], "uint8 of shape"),
        ([np.zeros((4, 4, 3))], "picture 0 of float64"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], r"picture 1 of uint8 \(4, 5, 3\)"),
        ([np.zeros((0, 4, 3), np.uint8)], "uint8 of shape"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, pictures, message):
    scan = formats.read(shipped("CT_small.dcm"))
    with pytest.raises(ValueError, match=message):
        formats.write_pictures(tmp_path / "a.dcm", scan, pictures)
    assert list(tmp_path.iterdir()) == []


def test_pictures_may_come_in_one_buffer(tmp_path):
    def pictures():
        buffer = np.zeros((4, 6, 3), np.uint8)
        for number in range(3):
            buffer[:] = number
            yield buffer

    formats.write_pictures(tmp_path / "a.dcm", formats.read(shipped("CT_small.dcm")), pictures())
    assert [frame.max() for frame in pydicom.dcmread(tmp_path / "a.dcm").pixel_array] == [0, 1, 2]


def test_damaged_attributes_of_the_source_raise_and_warn_of_nothing(tmp_path, heatmap):
    """UIDs and numbers as careless anonymizers leave them."""
    path = save(tmp_path / "s.dcm", VOLUME[0], StudyInstanceUID="1.2.33333", PatientAge="077Y")
    data = path.read_bytes()
    for old, new in ((b"1.2.33333", b"dccc95990"), (b"077Y", b"\xff\xfe\\?")):
        assert len(old) == len(new)
        data = data.replace(old, new)
    path.write_bytes(data)
    scan = formats.read(path)
    formats.write_pictures(tmp_path / "a.dcm", scan, [scan.picture()])
    formats.write(tmp_path / "b.dcm", scan, heatmap)
    for name in ("a.dcm", "b.dcm"):
        assert b"dccc95990" in (tmp_path / name).read_bytes()


def test_a_capture_says_of_burned_in_names_what_its_source_says(tmp_path):
    for said, expected in (("NO", "NO"), ("YES", "YES"), (None, "YES")):
        dataset = make_ct(VOLUME, ImagePositionPatient=None, BurnedInAnnotation=said)
        dataset.save_as(tmp_path / "s.dcm")
        scan = formats.read(tmp_path / "s.dcm")
        formats.write_pictures(tmp_path / "a.dcm", scan, scan.picture())
        assert validated(tmp_path / "a.dcm").BurnedInAnnotation == expected
