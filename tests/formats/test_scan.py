"""`Scan` as an array, and what `write` refuses before any format sees it."""

import pathlib
import types

import numpy as np
import pytest

from tf_gradcam import formats


@pytest.fixture
def scan():
    values = np.arange(24, dtype="uint16").reshape(4, 6, 1)
    valid = np.ones((4, 6), bool)
    valid[0, 0] = valid[3, 2] = False
    return formats.Scan(values=values, axes="yx", format="NumPy", path=pathlib.Path("a.npy"), valid=valid)


@pytest.mark.parametrize("value", [0, 7, 65535, np.int64(9), 3.0])
def test_nodata_becomes_any_value_that_the_dtype_holds(scan, value):
    filled = scan.filled(value)
    assert (filled.dtype, filled[0, 0], filled[3, 2]) == (np.uint16, value, value)
    assert (filled[scan.valid] == scan.values[scan.valid]).all()


@pytest.mark.parametrize("value", [-1, 65536, 0.5, float("nan"), float("inf")])
def test_nodata_becomes_no_other_value(scan, value):
    with pytest.raises(ValueError, match="`value` must be a whole number from 0 to 65535, .* uint16"):
        scan.filled(value)


@pytest.mark.parametrize("value", ["0", True, [0]])
def test_nodata_becomes_a_number(scan, value):
    with pytest.raises(TypeError, match="`value` must be a number"):
        scan.filled(value)


def test_an_array_of_a_scan_is_a_copy_where_numpy_promises_one():
    values = np.arange(24.0).reshape(4, 6, 1)
    scan = formats.Scan(values=values, axes="yx", format="NumPy", path=pathlib.Path("a.npy"))
    copy = np.array(scan)
    copy[:] = -1
    assert scan.values.min() == 0
    assert np.shares_memory(np.asarray(scan), values)
    assert np.asarray(scan, "float32").dtype == np.float32


def test_a_place_needs_an_index_for_each_axis():
    scan = formats.Scan(
        values=np.zeros((4, 6, 1)),
        axes="yx",
        format="GeoTIFF",
        path=pathlib.Path("a.tif"),
        affine=np.array([[0, 10.0, 5], [-10.0, 0, 7]]),
    )
    np.testing.assert_array_equal(scan.position((1, 2)), [25, -3])
    with pytest.raises(ValueError, match=r"`index` must have a number for each of 'yx'"):
        scan.position((1, 2, 3))


def test_what_is_written_must_be_a_scan_a_finite_heatmap_and_texts(scan, tmp_path):
    path, heatmap = tmp_path / "heatmap.npy", np.ones((2, 3))
    for write in (formats.write, formats.write_pictures):
        with pytest.raises(TypeError, match="`scan` must be what tf_gradcam.formats.read returns"):
            write(tmp_path / "heatmap.dcm", heatmap, heatmap)
        with pytest.raises(TypeError, match="`path` must be a path, and comes first. Received: .* ndarray"):
            write(heatmap, path, scan)
    with pytest.raises(TypeError, match="`path` must be a path, and comes first. Received: .* ndarray"):
        formats.read(heatmap)
    with pytest.raises(TypeError, match="`heatmap` must be an array.*Give its heatmap: explanation.heatmap"):
        formats.write(path, scan, types.SimpleNamespace(heatmap=heatmap))
    with pytest.raises(ValueError, match="`heatmap` must hold finite values that fit float32"):
        formats.write(path, scan, heatmap * 1e300)
    for name in ("method", "label", "model"):
        with pytest.raises(TypeError, match=f"`{name}` must be a str. Received: {name}=None"):
            formats.write(path, scan, heatmap, **{name: None})
    for ending in (".vrt", ".hdr"):  # They are read, or refused with a reason, and never written.
        with pytest.raises(ValueError, match="`path` must end in one of"):
            formats.write(path.with_suffix(ending), scan, heatmap)
    assert not list(tmp_path.iterdir())
