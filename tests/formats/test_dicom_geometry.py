"""Where DICOM images are: series of files, enhanced multi-frame files, videos; what is no volume."""

import re

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import PATIENT, STEP, change, make_ct, make_enhanced, save, save_series, shipped

from tf_gradcam import formats

VOLUME = np.random.default_rng(0).integers(0, 2000, (5, 6, 7), np.uint16)
CORNERS = [(0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6), (4, 5, 6)]


def read_by_simpleitk(path):
    """Return an image of a file, or of a folder with one series, as SimpleITK sorts it."""
    if path.is_dir():
        return SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    return SimpleITK.ReadImage(path)


def resave(path, **attributes):
    """Change attributes of a file in its place; one of `None` is taken away."""
    dataset = pydicom.dcmread(path)
    change(dataset, **attributes).save_as(path)


# Volumes


def test_an_image_lies_where_simpleitk_has_it():
    scan = formats.read(shipped("examples_overlay.dcm"))
    image = read_by_simpleitk(shipped("examples_overlay.dcm"))
    for row, column in [(0, 0), (299, 0), (0, 483), (120.5, 3.25)]:
        expected = image.TransformContinuousIndexToPhysicalPoint((column, row, 0))
        assert scan.position((row, column)) == pytest.approx(expected, abs=1e-6)


def test_a_series_is_sorted_by_position_and_lies_where_simpleitk_has_it(tmp_path):
    scan = formats.read(save_series(tmp_path / "series", VOLUME))
    assert (scan.axes, scan.space) == ("zyx", "LPS mm")
    assert scan.spacing == pytest.approx((STEP, 0.5, 0.75))
    np.testing.assert_array_equal(scan.values[..., 0], VOLUME.astype(int) - 1024)
    image = read_by_simpleitk(tmp_path / "series")
    np.testing.assert_array_equal(scan.values[..., 0], SimpleITK.GetArrayFromImage(image))
    for index in CORNERS:
        expected = image.TransformIndexToPhysicalPoint(index[::-1])
        assert scan.position(index) == pytest.approx(expected, abs=1e-3)


def test_frames_are_sorted_by_position_each_with_its_own_rescale_and_window(tmp_path):
    order = [3, 0, 4, 1, 2]
    make_enhanced(VOLUME, order).save_as(tmp_path / "a.dcm")
    scan = formats.read(tmp_path / "a.dcm")
    expected = VOLUME.astype(int) - 1000 - np.arange(5)[:, None, None]
    np.testing.assert_array_equal(scan.values[..., 0], expected)
    assert scan.windows == ((42, 400),)  # of the middle slice
    assert scan.position((3, 2, 1)) == pytest.approx((-10 + 0.75, 5 + 2 * 0.5, 30 + 3 * STEP))
    one = formats.read(tmp_path / "a.dcm", frame=0)
    np.testing.assert_array_equal(one.values, scan.values[3])
    assert one.position((2, 1)) == pytest.approx(scan.position((3, 2, 1)))
    assert one.windows == ((43, 400),)


def test_a_sheared_series_of_a_tilted_gantry_is_a_volume(tmp_path):
    folder = save_series(tmp_path / "series", VOLUME)
    for number in range(5):
        path = folder / f"{5 - number:03d}.dcm"
        resave(
            path,
            ImagePositionPatient=[0, number * 0.7, number * STEP],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    scan = formats.read(folder)
    np.testing.assert_array_equal(scan.values[..., 0], VOLUME.astype(int) - 1024)
    assert scan.position((4, 0, 0)) == pytest.approx((0, 4 * 0.7, 4 * STEP))


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path):
    folder = save_series(tmp_path / "series", VOLUME)
    for number in range(5):
        position = [0, 0, f"{number * 0.625:.1f}"]
        resave(
            folder / f"{5 - number:03d}.dcm",
            ImagePositionPatient=position,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    assert formats.read(folder).spacing[0] == pytest.approx(0.625, abs=0.01)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            "differ in ImageOrientationPatient or PixelSpacing",
        ),
        ({"PixelSpacing": [0.5, 0.5]}, "differ in ImageOrientationPatient or PixelSpacing"),
        ({"ImagePositionPatient": None}, "5 images without ImagePositionPatient"),
        ({"Rows": 3, "PixelData": bytes(42)}, "differ in Rows: 3, 6"),
        ({"Modality": "MR"}, "differ in Modality: CT, MR"),
        ({"FrameOfReferenceUID": "1.2.9"}, "differ in FrameOfReferenceUID"),
        ({"PatientID": "another"}, "differ in PatientID. Put"),
        ({"RescaleSlope": "steep"}, "RescaleSlope is no number"),
        ({"ImagePositionPatient": [1, 2]}, "ImagePositionPatient is not 3 finite numbers"),
    ],
)
def test_what_is_no_volume_is_refused_by_what_differs(tmp_path, attributes, message):
    folder = save_series(tmp_path / "series", VOLUME)
    path = folder / "003.dcm"
    if attributes.get("RescaleSlope") == "steep":
        data = path.read_bytes()
        at = data.index(b"\x28\x00\x53\x10DS") + 8
        length = int.from_bytes(data[at - 2 : at], "little")
        path.write_bytes(data[:at] + b"x" * length + data[at + length :])
    else:
        resave(path, **attributes)
    with pytest.raises(ValueError, match=message) as caught:
        formats.read(folder)
    assert PATIENT not in str(caught.value)


def test_a_missing_slice_is_told_with_its_place(tmp_path):
    folder = save_series(tmp_path / "series", VOLUME)
    (folder / "003.dcm").unlink()
    with pytest.raises(ValueError, match=r"2.5 mm apart, but 1 of them 5 mm.*images are missing"):
        formats.read(folder)


def test_slices_at_the_same_place_and_uneven_ones_are_refused(tmp_path):
    folder = save_series(tmp_path / "series", VOLUME)
    (folder / "copy.dcm").write_bytes((folder / "002.dcm").read_bytes())
    with pytest.raises(ValueError, match="6 images, 1 of which are at the place of another"):
        formats.read(folder)
    (folder / "copy.dcm").unlink()
    right, down = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    resave(
        folder / "003.dcm",
        ImagePositionPatient=list(np.array([-10, 5, 30]) + 2.3 * STEP * np.cross(right, down)),
    )
    with pytest.raises(ValueError, match=r"up to 0.75 mm away from even places, 2.5 mm apart"):
        formats.read(folder)


def test_a_folder_of_several_series_offers_the_choice(tmp_path):
    save_series(tmp_path / "a", VOLUME)
    save_series(tmp_path / "a" / "other", VOLUME[:3] + 1, SeriesInstanceUID="1.2.77", SeriesNumber=7)
    (tmp_path / "a" / "README.txt").write_text("no image")
    (tmp_path / "a" / "plan.dcm").write_bytes(shipped("rtplan.dcm").read_bytes())
    with pytest.raises(ValueError, match=r"with 2. Choose one by series=.*CT 5 images of 6 x 7") as caught:
        formats.read(tmp_path / "a")
    assert "7 (UID 1.2.77): CT 3 images of 6 x 7" in str(caught.value)
    for chosen in (7, "7", "1.2.77"):
        found = formats.read(tmp_path / "a", series=chosen)
        np.testing.assert_array_equal(found.values[..., 0], VOLUME[:3].astype(int) + 1 - 1024)
    with pytest.raises(ValueError, match=r"`series` must be .*series=8, which fits 0 of"):
        formats.read(tmp_path / "a", series=8)


def test_a_folder_without_a_series_and_wrong_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a folder with a series of DICOM images"):
        formats.read(tmp_path)
    ct = shipped("CT_small.dcm")
    with pytest.raises(ValueError, match="`series` must be None for a file"):
        formats.read(ct, series=1)
    with pytest.raises(TypeError, match="`series` must be"):
        formats.read(ct, series=1.5)
    with pytest.raises(ValueError, match="`frame` must be a number from 0 to 0"):
        formats.read(ct, frame=1)
    with pytest.raises(TypeError, match="`frame` must be a whole number"):
        formats.read(ct, frame=0.5)
    with pytest.raises(TypeError, match="`invert_monochrome1` must be True or False"):
        formats.read(ct, invert_monochrome1=1)
    save_series(tmp_path / "series", VOLUME)
    with pytest.raises(ValueError, match="`frame` must be None for a series of 5 files"):
        formats.read(tmp_path / "series", frame=0)


def test_a_folder_with_one_file_is_that_file(tmp_path):
    save(tmp_path / "a.dcm", VOLUME[0])
    assert formats.read(tmp_path).axes == "yx"


def test_two_files_of_several_frames_are_refused(tmp_path):
    for name in "ab":
        make_enhanced(VOLUME, range(5), SOPInstanceUID=f"1.2.{ord(name)}").save_as(tmp_path / f"{name}.dcm")
    with pytest.raises(ValueError, match="2 files of several frames. Give one of them"):
        formats.read(tmp_path)


def test_a_slide_of_tiles_is_refused_and_a_tile_is_not(tmp_path):
    save(tmp_path / "a.dcm", VOLUME, TotalPixelMatrixColumns=35, TotalPixelMatrixRows=6, PixelSpacing=None)
    with pytest.raises(ValueError, match="a slide in 5 tiles"):
        formats.read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(
        formats.read(tmp_path / "a.dcm", frame=2).values[..., 0], VOLUME[2].astype(int) - 1024
    )


# Without a place in the patient


@pytest.mark.parametrize(
    ("name", "space"), [("PixelSpacing", "mm"), ("ImagerPixelSpacing", "mm at the detector")]
)
def test_a_radiograph_has_a_spacing_and_no_place(tmp_path, name, space):
    attributes = {"ImagePositionPatient": None, "PixelSpacing": None} | {name: [0.2, 0.1]}
    scan = formats.read(save(tmp_path / "a.dcm", VOLUME[0], **attributes))
    assert (scan.space, scan.spacing) == (space, (0.2, 0.1))
    assert scan.position((10, 3)) == pytest.approx((0.3, 2))


@pytest.mark.parametrize("directions", [[0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0]])
def test_a_nonsensical_direction_is_no_place(tmp_path, directions):
    scan = formats.read(save(tmp_path / "a.dcm", VOLUME[0], ImageOrientationPatient=directions))
    assert scan.space == "mm"


@pytest.mark.parametrize(
    ("attributes", "times"),
    [
        ({"FrameTime": 40}, [0, 0.04, 0.08, 0.12, 0.16]),
        ({"FrameTimeVector": [0, 10, 20, 30, 40]}, [0, 0.01, 0.03, 0.06, 0.1]),
        ({"FrameTimeVector": [9, 10, 20, 30, 40]}, [0, 0.01, 0.03, 0.06, 0.1]),
        (
            {"FrameTime": 40, "FrameTimeVector": [0, 10, 20, 30, 40], "FrameIncrementPointer": 0x00181065},
            [0, 0.01, 0.03, 0.06, 0.1],
        ),
        ({"FrameTime": 0, "CineRate": 50}, [0, 0.02, 0.04, 0.06, 0.08]),
        ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_frames_with_times_are_a_video(tmp_path, attributes, times):
    path = save(tmp_path / "a.dcm", VOLUME, ImagePositionPatient=None, **attributes)
    scan = formats.read(path)
    assert scan.axes == "tyx"
    np.testing.assert_allclose(scan.times, times, atol=1e-12)
    np.testing.assert_array_equal(scan.values[..., 0], VOLUME.astype(int) - 1024)


def test_frames_at_one_place_are_a_video_if_they_have_times(tmp_path):
    scan = formats.read(save(tmp_path / "a.dcm", VOLUME, FrameTime=40))
    assert (scan.axes, scan.space) == ("tyx", "LPS mm")
    assert scan.position((3, 0, 0)) == pytest.approx(scan.position((0, 0, 0)))
    scan = formats.read(save(tmp_path / "b.dcm", VOLUME))  # The place of the file is not that of each frame.
    assert (scan.axes, scan.affine) == ("zyx", None)
    dataset = make_enhanced(VOLUME, range(5))
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[1].PlanePositionSequence = frames[0].PlanePositionSequence
    dataset.save_as(tmp_path / "c.dcm")
    with pytest.raises(ValueError, match="5 images, 1 of which are at the place of another.*frame=0"):
        formats.read(tmp_path / "c.dcm")
    for frame in frames:
        frame.PlanePositionSequence = frames[0].PlanePositionSequence
    dataset.save_as(tmp_path / "d.dcm")
    with pytest.raises(ValueError, match="5 images, 4 of which are at the place of another"):
        formats.read(tmp_path / "d.dcm")


def test_frames_without_place_and_time_are_a_stack_in_the_order_of_the_file(tmp_path):
    scan = formats.read(save(tmp_path / "a.dcm", VOLUME, ImagePositionPatient=None))
    assert (scan.axes, scan.affine, scan.times) == ("zyx", None, None)


def test_a_time_vector_that_is_too_short_is_refused(tmp_path):
    path = save(tmp_path / "a.dcm", VOLUME, ImagePositionPatient=None, FrameTimeVector=[0, 1])
    with pytest.raises(ValueError, match="FrameTimeVector is too short"):
        formats.read(path)


def test_the_enhanced_file_of_the_tests_is_read_by_simpleitk_at_the_same_place(tmp_path):
    make_enhanced(VOLUME, range(5)).save_as(tmp_path / "a.dcm")
    scan, image = formats.read(tmp_path / "a.dcm"), read_by_simpleitk(tmp_path / "a.dcm")
    for index in CORNERS:
        expected = image.TransformIndexToPhysicalPoint(index[::-1])
        assert scan.position(index) == pytest.approx(expected, abs=1e-6)


def test_repr_shows_nothing_of_the_patient(tmp_path):
    scan = formats.read(save_series(tmp_path / "series", VOLUME))
    assert re.fullmatch(
        r"Scan\(DICOM, 5 x 6 x 7 x 1 \(zyxc\), int32, spacing 2.5 x 0.5 x 0.75 in LPS mm\)", repr(scan)
    )
    shown = {name: value for name, value in vars(scan).items() if name != "header"}
    assert PATIENT not in str(shown)
    assert make_ct(VOLUME[0]).PatientName == PATIENT
