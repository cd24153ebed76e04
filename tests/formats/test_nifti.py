import dataclasses
import gzip
import itertools
import math
import pathlib
import struct

import keras
import nibabel
import numpy as np
import pytest
import SimpleITK

import tf_gradcam
from tf_gradcam import formats
from tf_gradcam.formats._nifti import files as nifti_files
from tf_gradcam.formats._scan import scaled_affine

SHIPPED = pathlib.Path(nibabel.__file__).parent / "tests" / "data"
NAMES = ["anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "standard.nii.gz"]
ORIENTATIONS = ["stored", "RAS", "LPI", "PSR", "SAL"]
# A rotation about an axis that is none of the three, with cells of 1.5, 2 and 3 mm.
AXIS, ANGLE = np.array([0.36, 0.48, 0.8]), 0.4
CROSS = np.array([[0, -AXIS[2], AXIS[1]], [AXIS[2], 0, -AXIS[0]], [-AXIS[1], AXIS[0], 0]])
ROTATION = np.eye(3) + math.sin(ANGLE) * CROSS + (1 - math.cos(ANGLE)) * CROSS @ CROSS
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = ROTATION @ np.diag([1.5, 2.0, 3.0])
OBLIQUE[:3, 3] = [-20.5, 31.25, 7.0]


@pytest.fixture(scope="module")
def numbers():
    """A volume `(6, 5, 4)` of x, y, z."""
    return np.random.default_rng(3).integers(-1000, 3000, (6, 5, 4)).astype(np.int16)


def save(path, data, affine=OBLIQUE, unit="mm", clock="sec", codes=(1, 1), change=None):
    """Write a file with nibabel, as it is told."""
    image = nibabel.Nifti1Image(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units(unit, clock)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    if change is not None:
        change(image.header)
    nibabel.save(image, path)
    return path


def by_itk(path, index):
    """Return where SimpleITK has a voxel, given as z, y, x, in RAS and millimetres."""
    image = SimpleITK.ReadImage(str(path))
    index = [float(each) for each in index[::-1]] + [0.0] * (image.GetDimension() - 3)
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index)[:3]) * [-1, -1, 1]


def peak(volume):
    return np.unravel_index(np.argmax(volume), volume.shape)


# Values


@pytest.mark.parametrize("name", [*NAMES, "reoriented_anat_moved.nii", "test.mgz"])
def test_values_are_those_of_nibabel_with_the_axes_reversed(name):
    expected = nibabel.load(SHIPPED / name)
    scan = formats.read(SHIPPED / name)
    assert scan.axes == ("tzyx" if expected.ndim == 4 else "zyx")
    stored = expected.get_data_dtype().newbyteorder("=")
    is_scaled = (expected.dataobj.slope, expected.dataobj.inter) != (1, 0)
    assert scan.values.dtype == (np.float32 if is_scaled else stored)
    np.testing.assert_allclose(scan.filled()[..., 0], expected.get_fdata().T, rtol=6e-8)


def test_the_repr_says_shape_axes_and_spacing_and_nothing_of_the_header():
    shown = repr(formats.read(SHIPPED / "example4d.nii.gz"))
    assert shown == ("Scan(NIfTI, 2 x 24 x 96 x 128 x 1 (tzyxc), int16, spacing 2.2 x 2 x 2 in RAS mm)")


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"),
    [(1.0, 0.0, np.int16), (0.5, -1024.0, np.float32), (1e-3, 0.0, np.float32), (1e-6, 1000.0, np.float64)],
)
def test_no_grey_level_is_lost_by_scaling(tmp_path, slope, inter, dtype):
    levels = np.arange(-32768, 32768).astype(np.int16).reshape(256, 128, 2)

    def scale(header):
        header["scl_slope"], header["scl_inter"] = slope, inter

    image = nibabel.Nifti1Image(levels, np.eye(4))
    image.to_filename(tmp_path / "levels.nii")
    patch(tmp_path / "levels.nii", 112, struct.pack("<ff", slope, inter))
    values = formats.read(tmp_path / "levels.nii").filled()
    assert values.dtype == dtype
    assert len(np.unique(values)) == 65536
    exact = levels.T.astype(np.float64) * np.float64(np.float32(slope)) + np.float64(np.float32(inter))
    np.testing.assert_allclose(values[..., 0], exact, rtol=6e-8)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_every_dtype_and_byte_order_is_read_in_native_order(tmp_path, numbers, dtype, order):
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    nibabel.Nifti1Image(numbers.astype(dtype), OBLIQUE, header).to_filename(tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == struct.pack(f"{order}i", 348)
    scan = formats.read(tmp_path / "a.nii")
    assert scan.values.dtype == np.dtype(dtype)
    assert scan.values.dtype.isnative
    np.testing.assert_array_equal(scan.filled()[..., 0], numbers.astype(dtype).T)


@pytest.mark.parametrize(("names", "bands"), [("RGB", ("red", "green", "blue")), ("RGBA", None)])
@pytest.mark.parametrize("orientation", ["stored", "LPI"])
def test_colours_are_channels(tmp_path, names, bands, orientation):
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 4, len(names)), dtype=np.uint8)
    voxels = np.ascontiguousarray(colours).view([(name, "u1") for name in names])[..., 0]
    nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "colours.nii.gz")
    scan = formats.read(tmp_path / "colours.nii.gz", orientation=orientation)
    expected = colours.transpose(2, 1, 0, 3)
    np.testing.assert_array_equal(
        scan.filled(), expected if orientation == "stored" else expected[::-1, ::-1, ::-1]
    )
    assert scan.bands == (bands or ("red", "green", "blue", "alpha"))


def test_nan_marks_what_was_not_measured():
    scan = formats.read(SHIPPED / "resampled_anat_moved.nii")
    expected = nibabel.load(SHIPPED / "resampled_anat_moved.nii").get_fdata().T
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(scan.valid, ~np.isnan(expected))
    np.testing.assert_array_equal(scan.filled()[..., 0], np.nan_to_num(expected))
    assert formats.read(SHIPPED / "reoriented_anat_moved.nii").valid is None


def test_the_limits_of_the_file_are_black_and_white():
    scan = formats.read(SHIPPED / "example4d.nii.gz")
    assert scan.limits == (0.0, 1162.0)
    picture = scan.picture(index=0)
    np.testing.assert_array_equal(
        picture[..., 0], np.rint(np.clip(scan.filled()[0, ..., 0] / np.float32(1162), 0, 1) * 255)
    )
    assert formats.read(SHIPPED / "anatomical.nii").limits is None


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-40), (-3e38, 3e38)])
def test_limits_that_float32_cannot_divide_by_make_a_picture(tmp_path, low, high):
    def change(header):
        header["cal_min"], header["cal_max"] = low, high

    values = np.float32([[low, high, -1e30], [1e30, 0, 3e38]])[..., None]
    scan = formats.read(save(tmp_path / "a.nii", values, change=change))
    exact = np.clip((values.T.astype(np.float64) - scan.limits[0]) / np.subtract(*scan.limits[::-1]), 0, 1)
    assert np.abs(scan.picture()[..., 0] - exact[0] * 255).max() <= 0.5


def test_a_large_file_is_mapped_and_not_read(tmp_path):
    path = tmp_path / "large.nii"
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((2000, 2000, 1000))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with open(path, "wb") as file:
        header.write_to(file)
        file.truncate(352 + 2 * 4 * 10**9)  # 8 GB of holes
    scan = formats.read(path)
    assert scan.shape == (1000, 2000, 2000, 1)
    assert not scan.values[-1].any()
    patch(path, 70, struct.pack("<hh", 4, 16), 112, struct.pack("<ff", 2.0, 0.0))
    with pytest.raises(ValueError, match="16,000,000,000 bytes. A file without compression and scaling"):
        formats.read(path)


# Axes


@pytest.mark.parametrize(
    ("shape", "axes", "kept"),
    [
        ((6, 5), "yx", (5, 6, 1)),
        ((6, 5, 1), "yx", (5, 6, 1)),
        ((6, 1, 4), "yx", (4, 6, 1)),
        ((1, 5, 4), "yx", (4, 5, 1)),
        ((6, 5, 4, 1), "zyx", (4, 5, 6, 1)),
        ((6, 5, 4, 3), "tzyx", (3, 4, 5, 6, 1)),
        ((6, 5, 1, 3), "tyx", (3, 5, 6, 1)),
        ((6, 5, 4, 1, 2), "zyx", (4, 5, 6, 2)),
        ((6, 5, 4, 3, 2), "tzyx", (3, 4, 5, 6, 2)),
        ((6, 5, 4, 1, 1, 1), "zyx", (4, 5, 6, 1)),
    ],
)
def test_axes_of_one_voxel_are_dropped_and_what_is_left_keeps_its_place(tmp_path, shape, axes, kept):
    data = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    path = save(tmp_path / "a.nii", data)
    scan = formats.read(path)
    assert (scan.axes, scan.shape) == (axes, kept)
    spatial = [letter for letter in "zyx" if (*shape, 1)["xyz".index(letter)] > 1]
    for place in itertools.islice(np.ndindex(*kept), 0, None, 7):
        index = dict(zip((*(["t"] * ("t" in axes)), *spatial), place[:-1], strict=True))
        stored = [index.get(letter, 0) for letter in "xyzt"] + [place[-1]]
        assert scan.values[place] == data[(*stored, 0)[: len(shape)]]
        where = OBLIQUE[:3] @ [*stored[:3], 1]
        np.testing.assert_allclose(scan.position(place[:-1]), where, atol=1e-5)


def test_the_fourth_axis_may_be_channels(tmp_path):
    data = np.random.default_rng(0).normal(size=(6, 5, 4, 3)).astype(np.float32)
    path = save(tmp_path / "sequences.nii.gz", data)
    scan = formats.read(path, channels=True)
    assert (scan.axes, scan.times) == ("zyx", None)
    np.testing.assert_array_equal(scan.filled(), data.transpose(2, 1, 0, 3))
    save(path, data[:, :, :, None])
    with pytest.raises(ValueError, match="`channels` must be False"):
        formats.read(path, channels=True)


@pytest.mark.parametrize(
    ("clock", "seconds"), [("sec", 1.0), ("msec", 1e-3), ("usec", 1e-6), ("unknown", 1.0), ("hz", None)]
)
def test_times_are_in_seconds_from_the_offset(tmp_path, clock, seconds):
    def change(header):
        header.set_zooms((1.5, 2.0, 3.0, 2.5))
        header["toffset"] = 10.0

    scan = formats.read(save(tmp_path / "a.nii", np.zeros((6, 5, 4, 3), "u1"), clock=clock, change=change))
    if seconds is None:
        assert scan.times is None
    else:
        np.testing.assert_allclose(scan.times, np.array([10.0, 12.5, 15.0]) * seconds)
    formats.write(tmp_path / "b.nii", scan, np.ones((6, 4, 5, 6), "f4"))
    written = nibabel.load(tmp_path / "b.nii").header
    assert written.get_xyzt_units() == ("mm", clock)
    if seconds is not None:  # twice as many frames: the first in the middle of the first half
        assert written.get_zooms()[3] == 1.25
        assert written["toffset"] == 10.0 - 1.25 / 2


# Places


@pytest.mark.parametrize("name", [name for name in NAMES if "nifti2" not in name])  # which ITK can't read
def test_simpleitk_has_every_voxel_at_the_same_millimetre(name):
    scan = formats.read(SHIPPED / name)
    spatial = scan.shape[:-1][-3:]
    for index in itertools.product(*[(0, length - 1) for length in spatial]):
        found = scan.position((0, *index) if "t" in scan.axes else index)
        np.testing.assert_allclose(found, by_itk(SHIPPED / name, index), atol=2e-4)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("mm", 1.0), ("micron", 0.001)])
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1)])
def test_units_and_both_forms_are_heeded_as_simpleitk_does(tmp_path, numbers, unit, factor, codes):
    path = save(tmp_path / "a.nii", numbers, unit=unit, codes=codes)
    scan = formats.read(path)
    assert scan.space == "RAS mm"
    np.testing.assert_allclose(scan.position((3, 4, 5)), by_itk(path, (3, 4, 5)), rtol=1e-5)
    np.testing.assert_allclose(scan.spacing, np.array([3, 2, 1.5]) * factor, rtol=1e-5)
    heatmap = np.zeros((2, 5, 3), np.float32)
    heatmap[1, 2, 1] = 1
    formats.write(tmp_path / "b.nii", scan, heatmap)
    written = nibabel.load(tmp_path / "b.nii").header
    assert written.get_xyzt_units()[0] == unit
    assert (written["sform_code"], written["qform_code"]) == codes
    # A cell of the heatmap is 2 x 1 x 2 voxels: the centre of (1, 2, 1) is at (2.5, 2, 2.5).
    expected = scan.position((2.5, 2, 2.5))
    np.testing.assert_allclose(by_itk(tmp_path / "b.nii", (1, 2, 1)), expected, rtol=1e-5)
    formats.write(tmp_path / "b.mgz", scan, heatmap)
    in_millimetres = nibabel.load(tmp_path / "b.mgz").affine @ [1, 2, 1, 1]
    np.testing.assert_allclose(in_millimetres[:3], expected, rtol=1e-5)


def test_a_file_without_a_place_has_a_spacing_and_cannot_be_turned(tmp_path, numbers):
    def change(header):
        header.set_zooms((1.5, 2.0, 3.0))

    scan = formats.read(save(tmp_path / "a.nii", numbers, codes=(0, 0), change=change))
    assert (scan.space, scan.spacing) == ("mm", (3.0, 2.0, 1.5))
    with pytest.raises(ValueError, match="without a valid sform or qform"):
        formats.read(tmp_path / "a.nii", orientation="RAS")
    formats.write(tmp_path / "b.nii", scan, np.ones((2, 5, 3), "f4"))
    written = nibabel.load(tmp_path / "b.nii").header
    assert (written["sform_code"], written["qform_code"]) == (0, 0)
    assert written.get_zooms() == (3.0, 2.0, 6.0)
    with pytest.raises(ValueError, match="`path` must end in .nii or .nii.gz"):
        formats.write(tmp_path / "b.mgz", scan, np.ones((2, 5, 3), "f4"))


def test_directions_in_one_plane_are_no_place(tmp_path, numbers):
    flat = OBLIQUE.copy()
    flat[:, 2] = flat[:, 1]
    image = nibabel.Nifti1Image(numbers, None)
    image.header.set_sform(flat, 1)
    image.to_filename(tmp_path / "a.nii")
    scan = formats.read(tmp_path / "a.nii")
    assert (scan.affine, scan.space, scan.spacing) == (None, "", None)
    np.testing.assert_array_equal(scan.filled()[..., 0], numbers.T)


@pytest.mark.parametrize("name", [*NAMES, "test.mgz"])
def test_a_turned_volume_is_that_of_nibabel(name):
    expected = nibabel.as_closest_canonical(nibabel.load(SHIPPED / name))
    scan = formats.read(SHIPPED / name, orientation="RAS")
    np.testing.assert_allclose(scan.filled()[..., 0], expected.get_fdata().T, rtol=6e-8)
    np.testing.assert_allclose(scan.affine, expected.affine[:3][:, [2, 1, 0, 3]], atol=1e-5)


@pytest.mark.parametrize("orientation", ["RASS", "RA", "RLS", "ras", "RAX", None, 3])
def test_an_orientation_is_three_letters_of_three_directions(orientation):
    with pytest.raises(ValueError, match='`orientation` must be "stored" or three letters'):
        formats.read(SHIPPED / "anatomical.nii", orientation=orientation)


def test_an_analyze_pair_has_its_values_and_spacing(tmp_path, numbers):
    image = nibabel.Spm99AnalyzeImage(numbers, np.diag([-2.0, 3, 4, 1]))
    image.to_filename(tmp_path / "old.hdr")
    (tmp_path / "old.mat").unlink(missing_ok=True)
    scan = formats.read(tmp_path / "old.hdr")
    np.testing.assert_allclose(scan.filled()[..., 0], nibabel.load(tmp_path / "old.hdr").get_fdata().T)
    assert (scan.space, scan.spacing) == ("mm", (4.0, 3.0, 2.0))
    formats.write(tmp_path / "b.nii", scan, np.ones((4, 5, 6), "f4"))
    assert nibabel.load(tmp_path / "b.nii").header.get_zooms() == (2.0, 3.0, 4.0)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
def test_a_nifti_pair_is_read_from_both_files(tmp_path, numbers, kind):
    kind(numbers, OBLIQUE).to_filename(tmp_path / "pair.hdr")
    scan = formats.read(tmp_path / "pair.hdr")
    np.testing.assert_array_equal(scan.filled()[..., 0], numbers.T)
    np.testing.assert_allclose(scan.position((1, 2, 3)), OBLIQUE[:3] @ [3, 2, 1, 1], atol=1e-5)
    with pytest.raises(ValueError, match="`path` must end in one of .*.mgz, .nii, .nii.gz, .*b.hdr"):
        formats.write(tmp_path / "b.hdr", scan, np.ones((4, 5, 6)))
    (tmp_path / "pair.img").unlink()
    with pytest.raises(ValueError, match="'pair.img', which isn't there"):
        formats.read(tmp_path / "pair.hdr")


# Writing


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", ["anatomical.nii", "functional.nii", "standard.nii.gz", "oblique", "slice"])
def test_a_peak_lands_on_its_millimetre_in_the_order_of_the_file(tmp_path, numbers, name, orientation):
    source = SHIPPED / name
    if name == "oblique":
        source = save(tmp_path / "oblique.nii", numbers)
    elif name == "slice":
        source = save(tmp_path / "slice.nii", numbers[:, 1:2])
    scan = formats.read(source, orientation=orientation)
    grids = [scan.shape[:-1], tuple(max(2, length // 2) for length in scan.shape[:-1])]
    for seed, grid in enumerate(grids):
        heatmap = np.random.default_rng(seed).random(grid, np.float32)
        formats.write(tmp_path / "heat.nii.gz", scan, heatmap)
        image = SimpleITK.ReadImage(str(tmp_path / "heat.nii.gz"))
        array = SimpleITK.GetArrayFromImage(image)
        array = array if array.ndim == 4 else array[None]
        time, *place = peak(array)
        index = peak(heatmap)
        assert array[time].max() == heatmap.max()
        assert "t" not in scan.axes or index[0] == time
        ratio = np.array(scan.shape[:-1]) / grid
        expected = scan.position((np.array(index) + 0.5) * ratio - 0.5)
        np.testing.assert_allclose(by_itk(tmp_path / "heat.nii.gz", place), expected, atol=1e-3)
        original = nibabel.load(source)
        written = nibabel.load(tmp_path / "heat.nii.gz")
        assert nibabel.aff2axcodes(written.affine) == nibabel.aff2axcodes(original.affine)
        if seed == 0:  # on the scan's own grid: voxel upon voxel
            assert written.shape == original.shape
            np.testing.assert_allclose(written.affine, original.affine, atol=1e-5)


def test_a_heatmap_takes_no_dtype_scaling_limits_or_text_from_the_scan(tmp_path):
    def change(header):
        header["descrip"], header["aux_file"], header["db_name"] = b"DOE^JANE", b"DOE^JANE", b"DOE^JANE"
        header["cal_max"], header["intent_code"] = 3000, 1005
        header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))

    path = save(tmp_path / "a.nii", np.full((6, 5, 4), 7, np.int16), change=change)
    patch(path, 112, struct.pack("<ff", 0.37, 12.0))
    scan = formats.read(path)
    assert scan.filled().min() == pytest.approx(7 * 0.37 + 12)
    heatmap = np.random.default_rng(0).random((4, 5, 6), np.float32)
    label = "Möwe" * 40
    formats.write(tmp_path / "b.nii", scan, heatmap, method="gradcam++", label=label)
    written = nibabel.load(tmp_path / "b.nii")
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(written.dataobj), heatmap.T)
    header = written.header
    assert header.get_slope_inter() == (None, None)
    assert (header["cal_min"], header["cal_max"], header["intent_code"]) == (0, 1, 0)
    description = bytes(header["descrip"]).rstrip(b"\0").decode()
    assert description == f"gradcam++ heatmap of {label}".encode()[:79].decode(errors="ignore")
    assert b"DOE" not in (tmp_path / "b.nii").read_bytes()
    formats.write(tmp_path / "b.nii", scan, heatmap * 4 - 2)
    signed = nibabel.load(tmp_path / "b.nii").header
    assert signed["cal_min"] == -signed["cal_max"] == pytest.approx(-np.abs(heatmap * 4 - 2).max())


def test_sform_and_qform_are_both_kept_where_they_differ(tmp_path, numbers):
    template = np.diag([-2.0, 2, 2, 1])
    image = nibabel.Nifti1Image(numbers, None)
    image.header.set_sform(template, 4)
    image.header.set_qform(OBLIQUE, 1)
    image.to_filename(tmp_path / "a.nii")
    scan = formats.read(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.position((1, 1, 1)), [-2, 2, 2], atol=1e-6)
    formats.write(tmp_path / "b.nii", scan, np.ones((2, 5, 3), "f4"))
    written = nibabel.load(tmp_path / "b.nii").header
    assert (written["sform_code"], written["qform_code"]) == (4, 1)
    for found, expected in ((written.get_sform(), template), (written.get_qform(), OBLIQUE)):
        np.testing.assert_allclose(found @ [1, 2, 1, 1], expected @ [2.5, 2, 2.5, 1], atol=1e-4)


def test_mgh_is_written_and_read_at_the_same_place(tmp_path, numbers):
    functional = formats.read(SHIPPED / "functional.nii")
    test = formats.read(SHIPPED / "test.mgz")
    np.testing.assert_allclose(test.times, [0, 0.002])
    for scan in (functional, test):
        heatmap = np.random.default_rng(0).random(scan.shape[:-1], np.float32)
        for ending in (".mgz", ".mgh", ".nii"):
            formats.write(tmp_path / f"b{ending}", scan, heatmap)
            found = formats.read(tmp_path / f"b{ending}")
            np.testing.assert_array_equal(found.filled()[..., 0], heatmap)
            np.testing.assert_allclose(found.affine, scan.affine, atol=1e-4)
            np.testing.assert_allclose(found.times, scan.times, rtol=1e-6)


def test_a_long_axis_makes_a_nifti_2_file(tmp_path):
    nibabel.Nifti2Image(np.zeros((40000, 2, 2), "u1"), np.eye(4)).to_filename(tmp_path / "a.nii")
    scan = formats.read(tmp_path / "a.nii")
    formats.write(tmp_path / "b.nii", scan, np.ones((2, 2, 40000), "f4"))
    assert isinstance(nibabel.load(tmp_path / "b.nii"), nibabel.Nifti2Image)
    assert formats.read(tmp_path / "b.nii").shape == (2, 2, 40000, 1)


def lps(affine):
    """Return a scan as a DICOM volume is, with the affine of `(z, y, x)`."""
    axes = "zyx" if affine.shape[1] == 4 else "yx"
    values = np.zeros((*(4, 6, 8)[-len(axes) :], 1), np.int16)
    path = pathlib.Path("ct.dcm")
    return formats.Scan(values=values, axes=axes, format="DICOM", path=path, affine=affine, space="LPS mm")


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("is_slice", [False, True])
def test_a_dicom_scan_is_turned_from_lps_to_ras(tmp_path, shear, is_slice):
    affine = OBLIQUE[:3][:, [2, 1, 0, 3]].copy()
    affine[1, 0] += shear * 3  # a tilted gantry
    scan = lps(affine[:, 1:] if is_slice else affine)
    grid = (3, 4) if is_slice else (2, 3, 4)
    formats.write(tmp_path / "b.nii.gz", scan, np.ones(grid, np.float32))
    written = nibabel.load(tmp_path / "b.nii.gz")
    assert written.shape == (4, 3, 1) if is_slice else (4, 3, 2)
    index = (1, 2) if is_slice else (1, 1, 2)
    expected = scaled_affine(scan, grid) @ [*index, 1.0] * [-1, -1, 1]
    place = np.array([2, 1, 0, 1] if is_slice else [2, 1, 1, 1])
    place[1] = index[-2]
    place[0] = index[-1]
    np.testing.assert_allclose((written.affine @ place)[:3], expected, atol=1e-4)
    is_sheared = shear > 0 and not is_slice
    assert written.header["qform_code"] == (0 if is_sheared else 1)
    assert written.header["sform_code"] == 1
    assert np.linalg.det(written.affine[:3, :3]) > 0  # as in the patient: x to y to the next slice
    if not is_sheared:
        np.testing.assert_allclose(by_itk(tmp_path / "b.nii.gz", place[2::-1]), expected, atol=1e-4)


def test_a_scan_without_a_place_in_millimetres_is_refused(tmp_path):
    scan = lps(np.eye(3, 4))
    for changed, received in [
        ({"affine": None}, "without a geometry"),
        ({"space": "EPSG:32632"}, "'EPSG:32632'"),
    ]:
        with pytest.raises(ValueError, match=f"`scan` must have a place in millimetres.*{received}"):
            formats.write(tmp_path / "b.nii", dataclasses.replace(scan, **changed), np.ones((4, 6, 8)))
    assert list(tmp_path.iterdir()) == []


# Files that are damaged


def patch(path, *places):
    """Overwrite bytes of a file, given as position, bytes, ..."""
    with open(path, "r+b") as file:
        for position, data in zip(places[::2], places[1::2], strict=True):
            file.seek(position)
            file.write(data)


def refused(path, words, **options):
    with pytest.raises(ValueError, match=words) as caught:
        formats.read(path, **options)
    assert "`path` must" in str(caught.value)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgh", ".mgz"])
def test_a_file_that_is_cut_off_is_refused_wherever_it_ends(tmp_path, numbers, ending):
    path = tmp_path / f"a{ending}"
    kind = nibabel.MGHImage if ".mg" in ending else nibabel.Nifti1Image
    kind(numbers, OBLIQUE).to_filename(path)
    data = path.read_bytes()
    needed = len(data) if ending in (".nii.gz", ".mgz") else (284 if ".mg" in ending else 352) + 240
    for length in {0, 3, 100, 283, 350, needed // 2, needed - 9, needed - 1}:
        path.write_bytes(data[:length])
        refused(path, "`path` must be a complete NIfTI")
    path.write_bytes(data[:needed])
    np.testing.assert_array_equal(formats.read(path).filled()[..., 0], numbers.T)


def test_a_wrong_checksum_is_refused_though_nibabel_reads_on(tmp_path, numbers):
    numbers = np.tile(numbers, (8, 8, 8))  # longer than what nibabel reads to tell the format
    save(tmp_path / "a.nii", numbers)
    stored = bytearray(gzip.compress((tmp_path / "a.nii").read_bytes(), 0))
    stored[400] ^= 1  # one bit of a voxel: without compression the stream itself stays whole
    (tmp_path / "a.nii.gz").write_bytes(stored)
    assert (np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj) != numbers).sum() == 1
    refused(tmp_path / "a.nii.gz", "CRC check failed")


def test_what_a_header_announces_is_compared_before_it_is_allocated(tmp_path, numbers, monkeypatch):
    path = save(tmp_path / "a.nii", numbers)
    huge = struct.pack("<8h", 5, 32767, 32767, 32767, 32767, 2, 1, 1)
    patch(path, 40, huge)
    refused(path, "announces .* bytes of values")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    refused(tmp_path / "a.nii.gz", "announces .* bytes of values")
    save(tmp_path / "b.nii.gz", np.zeros((40, 40, 40), np.int16))
    monkeypatch.setattr(nifti_files, "MAX_BYTES", 100_000)
    refused(tmp_path / "b.nii.gz", "at most 100,000 bytes of values.*128,000 bytes")


def test_what_follows_the_values_is_bounded(tmp_path, numbers, monkeypatch):
    path = save(tmp_path / "a.nii", numbers)
    monkeypatch.setattr(nifti_files, "_MOST_AFTER", 1000)
    for extra in (0, 900, 2000):
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(extra)))
        if extra < 1000:
            formats.read(tmp_path / "a.nii.gz")
        else:
            refused(tmp_path / "a.nii.gz", "more than 64 MiB")


@pytest.mark.parametrize(
    ("place", "data", "words"),
    [
        (70, struct.pack("<h", 9999), "data code 9999 not"),
        (70, struct.pack("<hh", 32, 64), "complex64, not real numbers"),
        (42, struct.pack("<h", 0), "lengths"),
        (42, struct.pack("<h", -6), "lengths"),
        (40, struct.pack("<8h", 3, 120, 1, 1, 1, 1, 1, 1), "it is no image"),
        (40, struct.pack("<8h", 6, 6, 5, 2, 1, 1, 2, 1), "up to five axes"),
        (0, b"GIF8", "it starts with"),
        (108, struct.pack("<f", 1e30), "announces|begin|damaged"),
        (108, struct.pack("<f", math.nan), "damaged"),
        (112, struct.pack("<ff", 2.0, math.inf), "damaged"),
        (123, b"\x07", "its geometry is damaged"),
        (256, struct.pack("<fff", 9.0, 9.0, 9.0), "its geometry is damaged"),
    ],
)
def test_a_damaged_header_is_a_sentence(tmp_path, numbers, place, data, words):
    path = save(tmp_path / "a.nii", numbers, codes=(0, 1))
    patch(path, place, data)
    refused(path, words)


def test_surfaces_folders_and_other_files_are_refused(tmp_path):
    refused(SHIPPED / "row_major.dconn.nii", "CIFTI")
    (tmp_path / "folder.nii").mkdir()
    refused(tmp_path / "folder.nii", "not a file")
    (tmp_path / "plain.nii.gz").write_bytes((SHIPPED / "anatomical.nii").read_bytes())
    refused(tmp_path / "plain.nii.gz", "can't be decompressed")


def test_an_ending_in_capitals_is_the_same(tmp_path, numbers):
    save(tmp_path / "a.nii.gz", numbers).rename(tmp_path / "A.NII.GZ")
    scan = formats.read(tmp_path / "A.NII.GZ")
    np.testing.assert_array_equal(scan.filled()[..., 0], numbers.T)
    formats.write(tmp_path / "B.NII.GZ", scan, np.ones((4, 5, 6), "f4"))
    assert gzip.decompress((tmp_path / "B.NII.GZ").read_bytes())[:4] == struct.pack("<i", 348)


# The whole way


@pytest.mark.parametrize("orientation", ["stored", "RAS"])
def test_what_a_network_sees_is_found_at_the_same_millimetre_by_simpleitk(tmp_path, orientation):
    volume = np.random.default_rng(0).integers(0, 50, (16, 20, 12)).astype(np.int16)
    lesion = (11, 4, 7)  # x, y, z
    volume[10:13, 3:6, 6:9] = 1000
    path = save(tmp_path / "mri.nii.gz", volume)
    scan = formats.read(path, orientation=orientation)
    layers = [
        keras.layers.Conv3D(1, 3, padding="same", kernel_initializer="ones", name="conv"),
        keras.layers.GlobalAveragePooling3D(),
        keras.layers.Dense(1, kernel_initializer="ones"),
    ]
    model = keras.Sequential([keras.Input((*scan.shape[:-1], 1)), *layers])
    heatmap = tf_gradcam.make_gradcam_heatmap(model, scan, "conv")
    formats.write(tmp_path / "heatmap.nii.gz", scan, heatmap, label="lesion")
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "heatmap.nii.gz")))
    assert peak(found) == lesion[::-1]
    where = by_itk(tmp_path / "heatmap.nii.gz", peak(found))
    np.testing.assert_allclose(where, OBLIQUE[:3] @ [*lesion, 1], atol=1e-3)
