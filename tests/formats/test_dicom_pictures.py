"""How DICOM files are shown: by their windows, tables and photometric interpretation."""

import warnings

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import make_ct, save, shipped, table

from tf_gradcam import formats

RAMP = np.arange(-200, 312, dtype=np.int16).reshape(16, 32)


def shown(path, **options):
    """Return the grey pixels of the picture of a file."""
    reading = {name: options.pop(name) for name in ("invert_monochrome1",) if name in options}
    picture = formats.read(path, **reading).picture(**options)
    assert (picture == picture[..., :1]).all()
    return picture[..., 0].astype(int)


def by_pydicom(path, index=0):
    """Return what pydicom shows, from 0 to 255."""
    dataset = pydicom.dcmread(path)
    values = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    voi = pydicom.pixels.apply_voi_lut(values, dataset, index)
    return (voi - LOW[0]) / (LOW[1] - LOW[0]) * 255 if voi.dtype == np.float64 else voi / 255


LOW = (-(2.0**15) - 24, 2.0**15 - 25)  # of pydicom's windows: what 16 bits can hold, less the intercept


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_each_window_is_shown_by_its_own_function(tmp_path, function):
    path = save(
        tmp_path / "a.dcm",
        RAMP,
        RescaleIntercept=-24,
        WindowCenter=[40, -10.5],
        WindowWidth=[101, 30],
        VOILUTFunction=function,
    )
    scan = formats.read(path)
    assert scan.windows == ((40, 101), (-10.5, 30))
    for index in (0, 1):
        np.testing.assert_allclose(shown(path, window=index), by_pydicom(path, index), atol=0.51)
        frame = highdicom.imread(path).get_frame(
            1, apply_voi_transform=True, voi_transform_selector=index, voi_output_range=(0, 255)
        )
        np.testing.assert_allclose(shown(path, window=index), frame, atol=0.51)
    np.testing.assert_array_equal(shown(path), shown(path, window=0))


def test_the_edges_of_a_linear_window_are_those_of_the_standard(tmp_path):
    # PS3.3, section C.11.2.1.2.1: center 2048 and width 4096 map 0 to 0, and 4095 to 255.
    stored = np.array([[0, 1, 2047, 2048, 4094, 4095]], np.uint16)
    path = save(tmp_path / "a.dcm", stored, RescaleIntercept=0, WindowCenter=2048, WindowWidth=4096)
    assert formats.read(path).limits == (0, 4095)
    assert shown(path)[0].tolist() == [0, 0, 127, 128, 255, 255]
    path = save(tmp_path / "b.dcm", stored, RescaleIntercept=0, WindowCenter=2048, WindowWidth=1)
    assert shown(path)[0].tolist() == [0, 0, 0, 255, 255, 255]


def test_an_own_window_limits_or_percentiles_replace_those_of_the_file(tmp_path):
    path = save(tmp_path / "a.dcm", RAMP, RescaleIntercept=0, WindowCenter=0, WindowWidth=1)
    expected = np.rint(np.clip((RAMP + 100) / 200, 0, 1) * 255)
    np.testing.assert_array_equal(shown(path, window=(0, 200)), expected)
    np.testing.assert_array_equal(shown(path, limits=(-100, 100)), expected)
    assert len(np.unique(shown(path, percentiles=(0, 100)))) == 256
    with pytest.raises(ValueError, match="number of one of the file's 1 windows"):
        shown(path, window=1)
    with pytest.raises(ValueError, match="Give one of"):
        shown(path, window=0, limits=(0, 1))


def test_a_file_without_a_window_is_shown_by_percentiles(tmp_path):
    scan = formats.read(save(tmp_path / "a.dcm", RAMP, RescaleIntercept=0))
    assert (scan.limits, scan.windows) == (None, ())
    np.testing.assert_array_equal(scan.picture(), scan.picture(percentiles=(1, 99)))


def test_a_linear_window_of_width_1_shows_the_greys_of_fractions(tmp_path):
    stored = np.array([[0, 64, 128, 255]], np.uint16)
    window = {"WindowCenter": 0.5, "WindowWidth": 1, "RescaleIntercept": 0}
    path = save(tmp_path / "a.dcm", stored, RescaleSlope="0.0039215686274", **window)
    assert formats.read(path).limits == (0, 1)
    assert shown(path)[0].tolist() == [0, 64, 128, 255]
    path = save(tmp_path / "b.dcm", stored, RescaleSlope=1, **window)
    assert shown(path)[0].tolist() == [0, 255, 255, 255]


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_of_no_width_is_left_out(tmp_path, width):
    dataset = make_ct(RAMP, WindowCenter=[5, 40], WindowWidth=[width, 400])
    dataset.save_as(tmp_path / "a.dcm")
    assert formats.read(tmp_path / "a.dcm").windows == ((40, 400),)


def test_a_voi_table_is_shown_before_windows_and_has_the_first_number(tmp_path):
    stored = np.array([[0, 100, 101, 102, 103, 500]], np.uint16)
    path = save(
        tmp_path / "a.dcm",
        stored,
        RescaleIntercept=-50,
        VOILUTSequence=[table(50, [0, 40, 200, 1023], bits=10)],
        WindowCenter=40,
        WindowWidth=400,
    )
    scan = formats.read(path)
    assert scan.windows == ((51.5, 3), (40, 400))
    expected = np.rint(np.array([0, 0, 40, 200, 1023, 1023]) / 1023 * 255)
    assert shown(path)[0].tolist() == expected.tolist()
    np.testing.assert_array_equal(shown(path, window=0), shown(path))
    assert shown(path, window=1)[0, -1] == 255


def test_a_voi_table_may_begin_below_zero(tmp_path):
    path = save(
        tmp_path / "a.dcm",
        np.array([[1000, 1001, 1002]], np.uint16),
        RescaleIntercept=-1024,
        VOILUTSequence=[table(-24, [0, 100, 255], bits=8)],
    )
    assert shown(path)[0].tolist() == [0, 100, 255]


VIEWS = {
    "linear": {"WindowCenter": 100, "WindowWidth": 201},
    "exact": {"WindowCenter": 100, "WindowWidth": 201, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 100, "WindowWidth": 90, "VOILUTFunction": "SIGMOID"},
    "table": {"VOILUTSequence": [table(80, range(0, 256, 5), bits=8)]},
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("shape", [None, "INVERSE"])
def test_monochrome1_is_shown_as_a_negative_whatever_its_values_are(tmp_path, view, shape):
    plain = save(tmp_path / "plain.dcm", RAMP, RescaleIntercept=-24, RescaleSlope=1, **view)
    negative = save(
        tmp_path / "negative.dcm",
        RAMP,
        RescaleIntercept=-24,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape=shape,
        **view,
    )
    for options in ({}, {"invert_monochrome1": False}):
        np.testing.assert_allclose(shown(negative, **options), 255 - shown(plain), atol=1)
    scan, stored = formats.read(negative), formats.read(negative, invert_monochrome1=False)
    assert (scan.negative, stored.negative) == (False, True)
    ends = -48 - 1
    np.testing.assert_array_equal(scan.values, ends - stored.values)
    assert scan.limits == pytest.approx((ends - stored.limits[1], ends - stored.limits[0]))
    own = {"limits": (ends - 50, ends + 150)}
    mirrored = {"limits": (-150, 50)}
    np.testing.assert_allclose(scan.picture(**own), stored.picture(**mirrored), atol=1)


def test_monochrome2_with_an_inverse_shape_is_shown_as_a_negative(tmp_path):
    window = {"WindowCenter": 100, "WindowWidth": 201, "RescaleIntercept": 0}
    plain = save(tmp_path / "plain.dcm", RAMP, **window)
    inverse = save(tmp_path / "inverse.dcm", RAMP, PresentationLUTShape="INVERSE", **window)
    np.testing.assert_array_equal(shown(inverse), 255 - shown(plain))
    np.testing.assert_array_equal(shown(inverse, window=(0, 50)), 255 - shown(plain, window=(0, 50)))
    np.testing.assert_array_equal(formats.read(inverse).values, formats.read(plain).values)


def test_padding_is_black_in_a_negative(tmp_path):
    dataset = make_ct(np.array([[-2000, 0, 100]], np.int16), PhotometricInterpretation="MONOCHROME1")
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.save_as(tmp_path / "a.dcm")
    for invert in (True, False):
        assert shown(tmp_path / "a.dcm", invert_monochrome1=invert)[0, 0] == 0


def test_shipped_files_are_shown_as_highdicom_shows_them():
    for name in ("examples_overlay.dcm", "MR_small.dcm", "J2K_pixelrep_mismatch.dcm"):
        path = shipped(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = highdicom.imread(path).get_frame(
                1, apply_voi_transform=True, voi_output_range=(0, 255), apply_real_world_transform=False
            )
        np.testing.assert_allclose(shown(path), frame, atol=0.51)
