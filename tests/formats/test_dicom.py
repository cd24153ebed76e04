"""The values of DICOM files: rescaled, looked up, mirrored, in colours; by hand and by other libraries."""

import pickle
import sys

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import change, item, make_ct, save, shipped, table
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tf_gradcam import formats

RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300


def values(path, **options):
    """Return the values of a file without the axis of channels."""
    return formats.read(path, **options).values[..., 0]


@pytest.mark.parametrize(
    ("slope", "intercept", "bits", "signed", "dtype"),
    [
        (1, 0, 12, False, "uint16"),
        (1, 0, 8, False, "uint8"),
        (1, -1024, 12, False, "int16"),
        (1, -1024, 16, False, "int32"),
        (1, -32768, 16, False, "int16"),
        (-1, 0, 12, False, "int16"),
        (20, 0, 12, False, "uint32"),
        (1, 0, 16, True, "int16"),
        (1, 32768, 16, True, "uint16"),
        (100000, 0, 16, True, "int64"),
        (0.5, 0, 12, False, "float64"),
        (1, 0.25, 12, False, "float64"),
        (1e12, 0, 12, False, "float64"),
    ],
)
def test_values_are_rescaled_exactly_in_the_smallest_dtype_that_holds_them(
    tmp_path, slope, intercept, bits, signed, dtype
):
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = np.array([[*ends, 0, 1]], np.int16 if signed else np.uint16)
    path = save(tmp_path / "a.dcm", stored, BitsStored=bits, RescaleSlope=slope, RescaleIntercept=intercept)
    found = values(path)
    assert found.dtype == dtype
    expected = [each * slope + intercept for each in stored[0].tolist()]
    assert found[0].tolist() == expected


def test_a_slope_of_zero_is_refused_and_none_is_one(tmp_path):
    with pytest.raises(ValueError, match="rescale slope is 0"):
        formats.read(save(tmp_path / "zero.dcm", RAMP, RescaleSlope=0))
    path = save(tmp_path / "none.dcm", RAMP, RescaleSlope=None, RescaleIntercept=None)
    np.testing.assert_array_equal(values(path), RAMP)


@pytest.mark.parametrize("monochrome1", [False, True])
def test_a_modality_table_is_looked_up(tmp_path, monochrome1):
    stored = np.array([[0, 9, 10, 11, 12, 13]], np.uint16)
    path = save(
        tmp_path / "a.dcm",
        stored,
        ModalityLUTSequence=[table(10, [500, 300, 4000], bits=12)],
        PhotometricInterpretation="MONOCHROME1" if monochrome1 else "MONOCHROME2",
    )
    expected = np.array([[500, 500, 500, 300, 4000, 4000]])
    np.testing.assert_array_equal(values(path), 4095 - expected if monochrome1 else expected)
    np.testing.assert_array_equal(values(path, invert_monochrome1=False), expected)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -10), (-3, 7), (0.5, 0.25)])
def test_monochrome1_is_mirrored_as_simpleitk_and_highdicom_do(tmp_path, slope, intercept):
    path = save(
        tmp_path / "a.dcm",
        RAMP,
        BitsStored=12,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    found = values(path)
    np.testing.assert_array_equal(found, (4095 - RAMP.astype(int)) * slope + intercept)
    np.testing.assert_array_equal(found, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))[0])
    np.testing.assert_array_equal(found, highdicom.imread(path).get_frame(1))
    stored = values(path, invert_monochrome1=False)
    np.testing.assert_array_equal(stored, RAMP.astype(int) * slope + intercept)


def test_monochrome1_with_a_sign_is_mirrored_within_its_bits(tmp_path):
    stored = np.array([[-2048, -1, 0, 2047]], np.int16)
    path = save(
        tmp_path / "a.dcm", stored, BitsStored=12, PhotometricInterpretation="MONOCHROME1", RescaleIntercept=0
    )
    assert values(path)[0].tolist() == [2047, 0, -1, -2048]
    np.testing.assert_array_equal(values(path), highdicom.imread(path).get_frame(1))


@pytest.mark.parametrize(
    ("dtype", "attributes", "padded"),
    [
        (np.int16, {"PixelPaddingValue": -2000}, [0]),
        (np.int16, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -5}, [0, 1]),
        (np.int16, {"PixelPaddingValue": -5, "PixelPaddingRangeLimit": -2000}, [0, 1]),
        (np.int16, {"PixelPaddingValue": 777}, []),
        (np.int16, {}, []),
        (np.uint16, {"PixelPaddingValue": 63536}, [0]),
    ],
)
def test_padding_is_not_valid_and_keeps_its_value(tmp_path, dtype, attributes, padded):
    stored = np.array([[-2000, -5, 0, 30]]).astype(dtype)
    dataset = make_ct(stored, RescaleIntercept=0)
    for name, value in attributes.items():
        dataset.add_new(name, "SS" if value < 0 else "US", value)
    dataset.save_as(tmp_path / "a.dcm")
    scan = formats.read(tmp_path / "a.dcm")
    if not padded:
        assert scan.valid is None
        return
    assert np.flatnonzero(~scan.valid).tolist() == padded
    np.testing.assert_array_equal(np.asarray(scan)[..., 0], stored)
    assert scan.filled(7)[0, padded, 0].tolist() == [7] * len(padded)
    assert (scan.picture(limits=(-3000, 100))[0, padded] == 0).all()


def test_padding_written_without_its_sign_is_found(tmp_path):
    dataset = make_ct(np.array([[-2000, 5]], np.int16), RescaleIntercept=0)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    dataset.save_as(tmp_path / "a.dcm")
    assert formats.read(tmp_path / "a.dcm").valid.tolist() == [[False, True]]


@pytest.mark.parametrize("name", ["FloatPixelData", "DoubleFloatPixelData"])
def test_floating_pixels_are_read_as_they_are(tmp_path, name):
    dtype = np.float32 if name == "FloatPixelData" else np.float64
    stored = np.array([[0.1, -2.5, 1e-30], [3, np.nan, 99]], dtype)
    dataset = make_ct(RAMP[:2, :3], RescaleSlope=1, RescaleIntercept=0)
    for absent in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[absent]
    dataset.BitsAllocated = 8 * stored.itemsize
    setattr(dataset, name, stored.tobytes())
    setattr(dataset, name.replace("PixelData", "PixelPaddingValue"), 99.0)
    dataset.save_as(tmp_path / "a.dcm")
    scan = formats.read(tmp_path / "a.dcm")
    assert scan.values.dtype == dtype
    np.testing.assert_array_equal(scan.values[..., 0], stored)
    assert scan.valid.tolist() == [[True] * 3, [True, False, False]]


def test_the_frames_of_a_dose_are_in_gray_at_their_offsets():
    scan = formats.read(shipped("rtdose.dcm"))
    dataset = pydicom.dcmread(shipped("rtdose.dcm"))
    np.testing.assert_array_equal(scan.values[..., 0], dataset.pixel_array * float(dataset.DoseGridScaling))
    assert scan.axes == "zyx"
    x, y, z = dataset.ImagePositionPatient
    expected = (x, y, z + dataset.GridFrameOffsetVector[3])
    assert scan.position((3, 0, 0)) == pytest.approx(expected)


# Colours


def exact_rgb(ybr):
    """Return RGB of YBR_FULL by PS3.3, section C.7.6.3.1.2, in float64."""
    inverse = np.linalg.inv(
        [[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5000], [0.5000, -0.4187, -0.0813]]
    )
    return np.clip((ybr - [0, 128, 128]) @ inverse.T, 0, 255)


def test_ybr_becomes_rgb_once():
    path = shipped("examples_ybr_color.dcm")
    scan = formats.read(path)
    stored = pydicom.pixels.pixel_array(path, raw=True, index=7)
    assert np.abs(scan.values[7] - exact_rgb(stored.astype(float))).max() <= 1
    assert scan.bands == ("red", "green", "blue")


LOSSLESS = [
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
    "examples_jpeg2k.dcm",
    "ExplVR_BigEnd.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "693_J2KI.dcm",
    "CT_small.dcm",
    "image_dfl.dcm",
]
JPEG = [  # Decoders round differently.
    "JPGExtended.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm",
    "SC_rgb_jpeg_dcmd.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm",
]


@pytest.mark.parametrize("name", [*LOSSLESS, *JPEG])
def test_every_transfer_syntax_gives_what_simpleitk_reads(name):
    scan = formats.read(shipped(name))
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(shipped(name))).reshape(scan.shape)
    difference = np.abs(scan.values.astype(float) - expected)
    assert difference.max() <= (2 if name in JPEG else 0)


def test_colours_of_more_than_8_bits_are_shown_by_their_bits():
    scan = formats.read(shipped("SC_rgb_rle_16bit.dcm"))
    assert scan.values.dtype == np.uint16
    assert scan.limits == (0, 65535)
    assert scan.values[5, 50].tolist() == [65535, 0, 0]
    assert scan.picture()[5, 50].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([0, 257 * 9, 257 * 255], [0, 9, 255]),
        ([0, 256 * 9, 256 * 255], [0, 9, 255]),
        ([0, 1000, 65535], [0, 1000, 65535]),
    ],
)
def test_a_palette_of_16_bits_is_8_bits_where_it_holds_no_more(tmp_path, entries, expected):
    dataset = make_ct(
        np.array([[4, 5, 6, 200]], np.uint8),
        PhotometricInterpretation="PALETTE COLOR",
        RescaleSlope=None,
        RescaleIntercept=None,
    )
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [3, 4, 16])
        data = np.array(entries if colour == "Red" else [0, 0, 0], "<u2").tobytes()
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", data)
    dataset.save_as(tmp_path / "a.dcm")
    scan = formats.read(tmp_path / "a.dcm")
    assert scan.values[0, :, 0].tolist() == [*expected, expected[-1]]
    assert scan.values.dtype == (np.uint8 if max(expected) < 256 else np.uint16)


def save_palette(path, stored, entries, prefix=""):
    """Write an image with a palette that is red only, of entries of 8 bits, and return its path."""
    dataset = make_ct(stored, PhotometricInterpretation="PALETTE COLOR")
    count = 6 if prefix and len(entries) < 256 else len(entries)
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [count, 0, 8])
        data = bytes(entries) if colour == "Red" or prefix else bytes(len(entries))
        dataset.add_new(f"{prefix}{colour}PaletteColorLookupTableData", "OW", data)
    dataset.save_as(path)
    return path


def test_a_palette_may_have_more_than_256_entries_of_8_bits(tmp_path):
    entries = np.repeat(np.array([0, 200], np.uint8), 256)
    stored = np.array([[0, 255, 256, 511]], np.uint16)
    path = save_palette(tmp_path / "a.dcm", stored, entries)
    assert formats.read(path).values[0, :, 0].tolist() == [0, 0, 200, 200]
    path = save_palette(tmp_path / "b.dcm", stored, entries, "Segmented")
    with pytest.raises(ValueError, match="whose palette has 512 entries of 8 bits"):
        formats.read(path)


def test_a_palette_in_segments_is_expanded(tmp_path):
    # PS3.3, section C.7.9.2: (0, n, values) is discrete, (1, n, end) a line to the end in n steps.
    segments = np.array([0, 2, 10, 20, 1, 4, 60, 0], np.uint8)
    stored = np.arange(6, dtype=np.uint8)[None]
    path = save_palette(tmp_path / "a.dcm", stored, segments, "Segmented")
    assert formats.read(path).values[0, :, 0].tolist() == [10, 20, 30, 40, 50, 60]


def test_pixels_of_one_bit_are_shown_in_black_and_white():
    scan = formats.read(shipped("liver_1frame.dcm"))
    assert np.unique(scan.values).tolist() == [0, 1]
    assert np.unique(scan.picture()).tolist() == [0, 255]


# The file


def test_a_deflated_file_and_one_without_a_preamble_are_read(tmp_path):
    dataset = make_ct(RAMP, RescaleIntercept=0)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "deflated.dcm")
    np.testing.assert_array_equal(values(tmp_path / "deflated.dcm"), RAMP)
    dataset = make_ct(RAMP, RescaleIntercept=0)
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(tmp_path / "bare.dcm", implicit_vr=True, little_endian=True)
    assert (tmp_path / "bare.dcm").read_bytes()[:2] == b"\x08\x00"
    np.testing.assert_array_equal(values(tmp_path / "bare.dcm"), RAMP)


def test_one_frame_is_read_alone():
    whole = formats.read(shipped("examples_ybr_color.dcm"))
    one = formats.read(shipped("examples_ybr_color.dcm"), frame=29)
    assert one.axes == "yx"
    np.testing.assert_array_equal(one.values, whole.values[29])


def test_a_scan_goes_to_another_process(tmp_path):
    path = save(tmp_path / "a.dcm", RAMP, WindowCenter=40, WindowWidth=400)
    scan = formats.read(path)
    again = pickle.loads(pickle.dumps(scan))
    np.testing.assert_array_equal(again.picture(), scan.picture())
    assert again.header.planes[0].dataset.PatientID == scan.header.planes[0].dataset.PatientID


def test_a_parametric_map_of_whole_numbers_has_its_real_world_values(tmp_path):
    mapping = item(RealWorldValueSlope=0.001, RealWorldValueIntercept=-1.0)
    path = tmp_path / "a.dcm"
    dataset = make_ct(RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.30", RescaleIntercept=0)
    change(dataset, SharedFunctionalGroupsSequence=[item(RealWorldValueMappingSequence=[mapping])])
    dataset.save_as(path)
    np.testing.assert_allclose(values(path), RAMP * 0.001 - 1, rtol=1e-12)


def test_pydicom_is_imported_by_reading_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r'for the extra `dicom`.*pip install "tf_gradcam\[dicom\]"'):
        formats.read(shipped("CT_small.dcm"))
