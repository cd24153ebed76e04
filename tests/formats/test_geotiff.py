"""GeoTIFF and TIFF: values, validity, place, windows, stacks of pages, damage, heatmaps written back."""

import contextlib
import json
import math
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import warnings

import keras
import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from tf_gradcam import make_gradcam_heatmap
from tf_gradcam.formats import read, write

ROOT = pathlib.Path(__file__).parents[2]
UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
ROTATED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -20)

needs_gdal = pytest.mark.skipif(not shutil.which("gdalinfo"), reason="GDAL's own programs are not installed")


def make(path, bands, **profile):
    """Write bands `(C, H, W)` with rasterio."""
    profile = {"crs": "EPSG:32632", "transform": UTM, "photometric": "minisblack", **profile}
    after = profile.pop("after", lambda file: None)
    count, height, width = bands.shape
    shape = {"height": height, "width": width, "count": count, "dtype": bands.dtype}
    with unplaced(), rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        after(file)
        file.write(bands)
    return bands


@contextlib.contextmanager
def unplaced():
    """Let rasterio say that a file has no place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def noise(shape, dtype="uint16", seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    bounds = np.iinfo(dtype)
    return random.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)


def gdalinfo(path):
    done = subprocess.run(["gdalinfo", "-json", path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


# Values


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
@pytest.mark.parametrize(("count", "layout"), [(1, {}), (4, {"tiled": True}), (13, {"interleave": "pixel"})])
def test_values_of_any_dtype_and_number_of_bands_are_the_files_own(tmp_path, dtype, count, layout):
    stored = make(tmp_path / "scene.tif", noise((count, 70, 50), dtype), **layout)
    scan = read(tmp_path / "scene.tif")
    assert (scan.shape, scan.axes, scan.values.dtype) == ((70, 50, count), "yx", dtype)
    np.testing.assert_array_equal(np.asarray(scan), np.moveaxis(stored, 0, -1))
    assert scan.bands == tuple(str(number) for number in range(1, count + 1))
    assert (scan.valid is None) == (np.dtype(dtype).kind != "f")


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True, "tile": (32, 16), "compression": "zlib"},
        {"byteorder": ">", "rowsperstrip": 7},
        {"compression": "lzma", "predictor": True},
        {"photometric": "rgb", "extrasamples": ["unspecified"] * 10},
    ],
)
def test_tiffs_of_another_writer_are_read_whatever_their_layout(tmp_path, options):
    stored = noise((40, 50, 13))
    options = {"photometric": "minisblack", "planarconfig": "contig", **options}
    tifffile.imwrite(tmp_path / "plain.tiff", stored, **options)
    scan = read(tmp_path / "plain.tiff")
    np.testing.assert_array_equal(scan.values[...], stored)
    assert (scan.affine, scan.space) == (None, "")


def test_planes_are_bands(tmp_path):
    stored = noise((13, 40, 50))
    tifffile.imwrite(tmp_path / "planes.tif", stored, photometric="minisblack", planarconfig="separate")
    np.testing.assert_array_equal(read(tmp_path / "planes.tif").values[...], np.moveaxis(stored, 0, -1))


def test_values_of_12_bits_keep_every_level_and_say_their_range(tmp_path):
    stored = make(tmp_path / "twelve.tif", np.arange(4096, dtype="uint16").reshape(1, 64, 64), nbits=12)
    scan = read(tmp_path / "twelve.tif")
    np.testing.assert_array_equal(scan.values[..., 0], stored[0])
    assert scan.limits == (0, 4095)
    assert scan.picture()[-1, -1].tolist() == [255, 255, 255]


def test_scale_and_offset_are_applied_once(tmp_path):
    def tag(file):
        file.scales, file.offsets = (0.0001, 0.5), (-0.1, 0)

    stored = make(tmp_path / "scaled.tif", noise((2, 300, 300)), nodata=0, after=tag)
    scan = read(tmp_path / "scaled.tif")
    exact = stored.astype(np.float64) * [[[0.0001]], [[0.5]]] + [[[-0.1]], [[0]]]
    assert scan.values.dtype == np.float32
    np.testing.assert_array_equal(scan.values[...], np.moveaxis(exact, 0, -1).astype(np.float32))
    for band in range(2):  # no level is lost
        assert len(np.unique(scan.values[..., band])) == len(np.unique(stored[band]))
    np.testing.assert_array_equal(scan.valid[...], (stored != 0).all(axis=0))  # of the stored values


def test_nodata_may_overflow_where_it_is_scaled(tmp_path):
    def tag(file):
        file.scales = (10,)

    lowest = float(np.finfo("float32").min)
    stored = np.array([[[1, lowest, math.nan, math.inf]]], "float32")
    make(tmp_path / "scaled.tif", stored, nodata=lowest, after=tag)
    scan = read(tmp_path / "scaled.tif")
    assert scan.filled()[0, :, 0].tolist() == [10, 0, 0, 0]


def test_scaled_values_of_32_bits_are_doubles(tmp_path):
    def tag(file):
        file.scales = (0.1,)

    stored = make(tmp_path / "scaled.tif", noise((1, 20, 20), "int32"), after=tag)
    np.testing.assert_array_equal(read(tmp_path / "scaled.tif").values[..., 0], stored[0] * 0.1)


def test_chosen_bands_keep_their_order_and_their_names(tmp_path):
    def name(file):
        file.descriptions = ("B02 blue", "B03 green", "B04 red", None)

    path = tmp_path / "scene.tif"
    stored = make(path, noise((4, 20, 30)), after=name)
    assert read(tmp_path / "scene.tif").bands == ("B02 blue", "B03 green", "B04 red", "4")
    scan = read(tmp_path / "scene.tif", bands=(3, 2, 1))
    assert scan.bands == ("B04 red", "B03 green", "B02 blue")
    np.testing.assert_array_equal(scan.values[...], np.moveaxis(stored[[2, 1, 0]], 0, -1))
    for bands in ((5,), (0,), (), (1.5,), "red", ((1, 2),)):
        with pytest.raises(
            ValueError, match="`bands` must be numbers of bands from 1 to 4, 10,000 at most. Received"
        ):
            read(tmp_path / "scene.tif", bands=bands)


def test_a_spectrum_of_thousands_of_bands_is_read_at_once(tmp_path):
    stored = noise((20, 30, 2000), "uint8")
    tifffile.imwrite(tmp_path / "spectrum.tif", stored, photometric="minisblack", planarconfig="contig")
    start = time.perf_counter()
    scan = read(tmp_path / "spectrum.tif")
    assert time.perf_counter() - start < 5
    np.testing.assert_array_equal(scan.values[3:5, 7:9], stored[3:5, 7:9])
    too_many = np.zeros((2, 2, 10_001), "uint8")
    tifffile.imwrite(tmp_path / "spectrum.tif", too_many, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ValueError, match="`bands` must be numbers of bands from 1 to 10001, 10,000 at most"):
        read(tmp_path / "spectrum.tif")
    assert read(tmp_path / "spectrum.tif", bands=(10_001, 1)).bands == ("10001", "1")


def test_complex_values_are_refused(tmp_path):
    make(tmp_path / "radar.tif", np.ones((1, 4, 4), "complex64"))
    with pytest.raises(
        ValueError, match="`path` must hold real values. Received: 'radar.tif' with complex64"
    ):
        read(tmp_path / "radar.tif")


def test_a_description_that_is_not_utf8_is_left_out(tmp_path):
    path = tmp_path / "scene.tif"
    make(path, noise((1, 20, 30)), after=lambda file: file.set_band_description(1, "Hohe"))
    path.write_bytes(path.read_bytes().replace(b"Hohe", b"H\xf6he"))
    assert read(path).bands == ("1",)


# Validity


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -9999), ("float32", -9999), ("float32", math.nan)])
def test_valid_is_where_all_bands_are(tmp_path, dtype, nodata):
    stored = noise((3, 20, 30), dtype)
    stored[0, 2, 3] = stored[1, 4, 5] = stored[2, 6, 7] = nodata
    make(tmp_path / "scene.tif", stored, nodata=nodata)
    scan = read(tmp_path / "scene.tif")
    invalid = np.argwhere(~scan.valid[...]).tolist()
    assert invalid == [[2, 3], [4, 5], [6, 7]]
    assert (scan.filled()[2, 3] == 0).all()
    assert np.argwhere(~read(tmp_path / "scene.tif", bands=(2, 2)).valid[...]).tolist() == [[4, 5]]


def test_what_is_not_finite_is_invalid_beside_any_nodata(tmp_path):
    stored = noise((2, 20, 30), "float64")
    stored[0, 1, 1], stored[1, 2, 2], stored[0, 3, 3] = math.nan, math.inf, -1
    for profile in ({}, {"nodata": -1}):
        make(tmp_path / "scene.tif", stored, **profile)
        expected = [[1, 1], [2, 2], *([[3, 3]] if profile else [])]
        assert np.argwhere(~read(tmp_path / "scene.tif").valid[...]).tolist() == expected


def test_a_nodata_value_that_the_dtype_lacks_makes_nothing_invalid(tmp_path):
    stored = noise((20, 30, 1))
    tifffile.imwrite(tmp_path / "scene.tif", stored, extratags=[(42113, "s", 0, "-9999", False)])
    scan = read(tmp_path / "scene.tif")
    assert scan.valid is None or scan.valid[...].all()


def test_an_alpha_band_is_a_mask_unless_its_number_is_given(tmp_path):
    stored = noise((4, 20, 30), "uint8")
    stored[3] = 255
    stored[3, :5] = 0
    make(tmp_path / "rgba.tif", stored, photometric="rgb", alpha="non-premultiplied")
    scan = read(tmp_path / "rgba.tif")
    assert scan.shape == (20, 30, 3)
    assert not scan.valid[:5].any()
    assert scan.valid[5:].all()
    whole = read(tmp_path / "rgba.tif", bands=(1, 2, 3, 4))
    assert whole.valid is None
    np.testing.assert_array_equal(whole.values[..., 3], stored[3])


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_in_the_file_or_beside_it_says_what_is_valid(tmp_path, internal):
    mask = noise((20, 30), "uint8") > 100
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        make(tmp_path / "scene.tif", noise((2, 20, 30)), after=lambda file: file.write_mask(mask))
    assert (tmp_path / "scene.tif.msk").exists() != internal
    np.testing.assert_array_equal(read(tmp_path / "scene.tif").valid[...], mask)


# Windows

INDICES = [
    np.s_[...],
    np.s_[10:40, 5:33],
    np.s_[-7:, -9:-2, 1],
    np.s_[3],
    np.s_[3, 5],
    np.s_[3, -1, 2],
    np.s_[::3, 1::5],
    np.s_[60:2:-4, ::-1, ::-1],
    np.s_[..., 0],
    np.s_[:, 2, ...],
    np.s_[5:5],
    np.s_[:, 90:],
    np.s_[np.int64(4), 2:200],
]


def test_every_slice_is_that_of_the_array(tmp_path, monkeypatch):
    stored = noise((3, 70, 50), "float32")
    stored[:, 10:30, 10:30] = math.nan
    make(tmp_path / "scene.tif", stored, tiled=True, blockxsize=16, blockysize=32)
    scan, array = read(tmp_path / "scene.tif"), np.moveaxis(stored, 0, -1)
    for chunk in (2**26, 1000):  # at once, and few rows at once
        monkeypatch.setattr("tf_gradcam.formats._windows._CHUNK", chunk)
        for index in INDICES:
            np.testing.assert_array_equal(scan.values[index], array[index], err_msg=str(index))
            valid = np.isfinite(array).all(axis=-1)
            if not (isinstance(index, tuple) and len([each for each in index if each is not ...]) > 2):
                plane = index if index != np.s_[..., 0] else np.s_[..., 0:1]
                np.testing.assert_array_equal(scan.valid[plane], valid[plane], err_msg=str(index))
    assert (scan.values.ndim, len(scan.values), scan.valid.ndim) == (3, 70, 2)


@pytest.mark.parametrize(
    "index", [[1, 2], np.array([True] * 70), None, 1.5, True, "a", (0, 0, 0, 0), (..., ...), 70]
)
def test_other_indices_are_refused(tmp_path, index):
    make(tmp_path / "scene.tif", noise((3, 70, 50)))
    with pytest.raises(IndexError):
        read(tmp_path / "scene.tif").values[index]


def test_overviews_are_not_read(tmp_path):
    stored = make(tmp_path / "scene.tif", noise((1, 256, 256)), tiled=True)
    with rasterio.open(tmp_path / "scene.tif", "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    np.testing.assert_array_equal(read(tmp_path / "scene.tif").values[::4, ::4, 0], stored[0, ::4, ::4])


def test_threads_read_windows_at_once(tmp_path):
    stored = make(tmp_path / "scene.tif", noise((2, 300, 300)), tiled=True, compress="deflate")
    scan, wrong = read(tmp_path / "scene.tif"), []

    def check(seed):
        for row, column in np.random.default_rng(seed).integers(0, 250, (40, 2)):
            window = scan.values[row : row + 50, column : column + 50]
            if not np.array_equal(
                np.moveaxis(window, -1, 0), stored[:, row : row + 50, column : column + 50]
            ):
                wrong.append((row, column))

    threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory):
    """A sparse scene of the size of a Sentinel-2 tile, with values in one tile only."""
    path = tmp_path_factory.mktemp("scene") / "sentinel.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=10_980, width=10_980, count=4, dtype="uint16", crs="EPSG:32632",
        transform=UTM, tiled=True, blockxsize=512, blockysize=512, compress="deflate", sparse_ok=True,
        nodata=0, photometric="minisblack",
    ) as file:  # fmt: skip
        file.write(np.full((4, 512, 512), 77, "uint16"), window=((5120, 5632), (5120, 5632)))
    assert path.stat().st_size < 1e6
    return path


def test_a_window_of_a_scene_larger_than_the_limit_is_read_alone(sentinel):
    start = time.perf_counter()
    scan = read(sentinel)
    window = scan.values[5100:5400, 5100:5400]
    assert time.perf_counter() - start < 5
    assert (window[20:, 20:] == 77).all()
    assert not window[:20].any()
    np.testing.assert_array_equal(scan.valid[5100:5400, 5100:5400], (window != 0).all(axis=-1))
    for whole in (lambda: np.asarray(scan.values), lambda: scan.values[...], lambda: np.asarray(scan)):
        with pytest.raises(ValueError, match=r"at most 100,000,000 pixels.*Received: 10980 x 10980.*sliding"):
            whole()


def test_reading_windows_takes_little_memory(sentinel):
    # A process of its own: the peak of this one is that of other tests.
    code = f"""
import pathlib, resource
from tf_gradcam.formats import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scan = read(pathlib.Path({str(sentinel)!r}))
for top in range(0, 10_980, 2048):
    for left in range(0, 10_980, 512):
        scan.values[top:top + 512, left:left + 512]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    assert int(run_python(code)) < 400_000  # kB; all of it is 942,000


def test_decoded_tiles_are_dropped_before_they_fill_the_memory(tmp_path, monkeypatch):
    stored = make(tmp_path / "scene.tif", noise((2, 256, 256)), tiled=True, blockxsize=16, blockysize=16)
    scan = read(tmp_path / "scene.tif")
    monkeypatch.setattr("tf_gradcam.formats._geotiff.reading._KEPT", 4 * 1024)
    opened = []
    original = rasterio.open
    monkeypatch.setattr(
        rasterio, "open", lambda *args, **kwargs: opened.append(1) or original(*args, **kwargs)
    )
    for left in range(0, 256, 16):
        window = scan.values[:16, left : left + 16]
        np.testing.assert_array_equal(window, np.moveaxis(stored[:, :16, left : left + 16], 0, -1))
        again = scan.values[:16, left : left + 16]  # what is kept counts once
        np.testing.assert_array_equal(again, window)
    assert len(opened) == 4  # for four windows each


# Place


@pytest.mark.parametrize("transform", [UTM, ROTATED], ids=["upright", "rotated"])
@pytest.mark.parametrize("point", [False, True], ids=["area", "point"])
def test_positions_are_those_of_centres(tmp_path, transform, point):
    tags = {"AREA_OR_POINT": "Point"} if point else {}
    make(
        tmp_path / "scene.tif",
        noise((1, 20, 30)),
        transform=transform,
        after=lambda file: file.update_tags(**tags),
    )
    scan = read(tmp_path / "scene.tif")
    assert scan.space == "EPSG:32632"
    with rasterio.open(tmp_path / "scene.tif") as file:
        for row, column in ((0, 0), (7, 21), (19, 29)):
            np.testing.assert_allclose(scan.position((row, column)), file.xy(row, column), rtol=1e-15)
    np.testing.assert_allclose(scan.spacing, (20, 10) if transform is ROTATED else (10, 10))


@pytest.mark.parametrize("number", [math.nan, math.inf, -1e200])
def test_a_transform_that_is_no_place_is_refused(tmp_path, number):
    stored = noise((20, 30))
    tags = [(33550, "d", 3, (10.0, number, 0.0), False), (33922, "d", 6, (0.0, 0, 0, 5e5, 5e6, 0), False)]
    tifffile.imwrite(tmp_path / "scene.tif", stored, extratags=tags)
    with pytest.raises(
        ValueError, match="`path` must have a transform of finite numbers. Received: 'scene.tif'"
    ):
        read(tmp_path / "scene.tif")


def test_a_reference_system_without_a_code_has_its_name(tmp_path):
    crs = rasterio.CRS.from_proj4("+proj=laea +lat_0=52.5 +lon_0=10.25 +R=6000000")
    make(tmp_path / "scene.tif", noise((1, 20, 30)), crs=crs)
    assert read(tmp_path / "scene.tif").space == "unknown"
    make(tmp_path / "scene.tif", noise((1, 20, 30)), crs=None)
    scan = read(tmp_path / "scene.tif")
    assert (scan.space, scan.position((0, 0)).tolist()) == ("", [500_005, 4_999_995])


def test_control_points_and_polynomials_are_no_affine_and_go_along(tmp_path):
    corners = [(0, 0, 11, 48), (0, 30, 12, 48.1), (20, 30, 12.1, 47), (20, 0, 11.1, 46.9)]
    points = [GroundControlPoint(row=row, col=col, x=x, y=y) for row, col, x, y in corners]
    make(tmp_path / "points.tif", noise((1, 20, 30)), gcps=points, crs="EPSG:4326", transform=None)
    scan = read(tmp_path / "points.tif")
    assert (scan.affine, scan.space) == (None, "EPSG:4326 by ground control points")
    write(tmp_path / "heatmap.tif", scan, np.ones((4, 5)))
    with rasterio.open(tmp_path / "heatmap.tif") as file:
        found, crs = file.gcps
    assert crs.to_epsg() == 4326
    assert [(p.row / 4, p.col / 5, p.x, p.y) for p in found] == [
        (r / 20, c / 30, x, y) for r, c, x, y in corners
    ]

    numbers = [float(number) for number in range(1, 21)]
    rpcs = RPC(
        height_off=1, height_scale=2, lat_off=3, lat_scale=4, line_den_coeff=numbers, line_num_coeff=numbers,
        line_off=9.5, line_scale=10, long_off=5, long_scale=6, samp_den_coeff=numbers, samp_num_coeff=numbers,
        samp_off=14.5, samp_scale=15, err_bias=None, err_rand=None,
    )  # fmt: skip

    def tag(file):
        file.rpcs = rpcs

    make(tmp_path / "rpc.tif", noise((1, 20, 30)), crs=None, transform=None, after=tag)
    scan = read(tmp_path / "rpc.tif")
    assert (scan.affine, scan.space) == (None, "rational polynomial coefficients")
    write(tmp_path / "heatmap.tif", scan, np.ones((4, 5)))
    with (
        unplaced(),
        rasterio.open(tmp_path / "heatmap.tif") as file,
    ):  # The centre of 20 x 30 is that of 4 x 5.
        found = file.rpcs
    assert (found.line_off, found.samp_off, found.line_scale, found.samp_scale) == (1.5, 2, 2, 2.5)
    assert found.line_num_coeff == numbers


# Pages


def test_pages_that_the_file_explains_are_a_stack(tmp_path):
    stored = noise((3, 2, 20, 30))
    tifffile.imwrite(tmp_path / "stack.ome.tif", stored, metadata={"axes": "ZCYX"})
    scan = read(tmp_path / "stack.ome.tif")
    assert (scan.axes, scan.shape) == ("zyx", (3, 20, 30, 2))
    np.testing.assert_array_equal(scan.values, np.moveaxis(stored, 1, -1))
    tifffile.imwrite(tmp_path / "clip.tif", stored, imagej=True, metadata={"axes": "TZYX"})
    scan = read(tmp_path / "clip.tif")
    assert (scan.axes, scan.values.dtype.isnative) == ("tzyx", True)
    np.testing.assert_array_equal(scan.values[..., 0], stored)
    tifffile.imwrite(tmp_path / "colours.tif", noise((4, 20, 30, 3), "uint8"), metadata={"axes": "ZYXS"})
    assert read(tmp_path / "colours.tif").shape == (4, 20, 30, 3)


def test_pages_that_nothing_explains_must_be_named(tmp_path):
    stored = noise((13, 20, 30))
    tifffile.imwrite(tmp_path / "stack.tif", stored)
    with pytest.raises(ValueError, match=r"the 13 pages of 'stack.tif'.*pages='bands', 'slices' or 'frames'"):
        read(tmp_path / "stack.tif")
    scan = read(tmp_path / "stack.tif", pages="bands")
    assert scan.axes == "yx"
    np.testing.assert_array_equal(scan.values, np.moveaxis(stored, 0, -1))
    assert read(tmp_path / "stack.tif", pages="slices").axes == "zyx"
    assert read(tmp_path / "stack.tif", pages="frames").axes == "tyx"
    np.testing.assert_array_equal(read(tmp_path / "stack.tif", pages=3).values[..., 0], stored[3])
    np.testing.assert_array_equal(
        read(tmp_path / "stack.tif", pages=12, bands=(1,)).values[..., 0], stored[12]
    )
    for pages in (13, -1, "b", 1.5, True):
        with pytest.raises(ValueError, match="`pages` must be .* Received: pages="):
            read(tmp_path / "stack.tif", pages=pages)
    with pytest.raises(ValueError, match="`bands` must be None for a stack of 13 pages"):
        read(tmp_path / "stack.tif", pages="bands", bands=(1,))


def test_what_is_said_of_pages_must_not_contradict_the_file(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", noise((13, 20, 30)), metadata={"axes": "ZYX"})
    make(tmp_path / "scene.tif", noise((1, 20, 30)))
    for name in ("stack.tif", "scene.tif"):
        with pytest.raises(ValueError, match="`pages` must be None or a number"):
            read(tmp_path / name, pages="bands")
    assert read(tmp_path / "scene.tif", pages=0).shape == (20, 30, 1)


def test_pages_of_different_sizes_are_read_one_by_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "album.tif") as file:
        file.write(noise((20, 30)))
        file.write(noise((7, 9), seed=1))
    with pytest.raises(ValueError, match="whose 2 pages differ in size or type. Read one with pages=0"):
        read(tmp_path / "album.tif")
    np.testing.assert_array_equal(read(tmp_path / "album.tif", pages=1).values[..., 0], noise((7, 9), seed=1))


# Files that are not trusted


def test_a_damaged_tile_is_named_and_the_others_are_read(tmp_path):
    path = tmp_path / "scene.tif"
    stored = make(path, noise((1, 256, 256)), tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[3], file.pages[0].databytecounts[3]
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    scan = read(path)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"can't be decoded in rows 100 to 200, columns 130 to 140: \S.*\."
        ):
            scan.values[100:200, 130:140]
        np.testing.assert_array_equal(scan.values[:128, ..., 0], stored[0, :128])


@pytest.mark.parametrize("layout", [{}, {"compress": "lzw"}, {"tiled": True}, {"compress": "jpeg"}])
def test_a_file_that_was_cut_short_is_never_read_as_if_it_were_whole(tmp_path, layout):
    path = tmp_path / "scene.tif"
    dtype = "uint8" if "jpeg" in layout.values() else "uint16"
    make(path, noise((1, 300, 300), dtype), **layout)
    data = path.read_bytes()
    whole = read(path).values[...]
    for share in (0, 0.01, 0.3, 0.7, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        try:
            found = read(path).values[...]
        except ValueError as error:
            assert "`path` must be a complete" in str(error)  # noqa: PT017
            assert str(tmp_path) not in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(found, whole)  # nothing but a tag or padding is lost


def test_flipped_bytes_of_the_header_give_a_sentence_or_values(tmp_path):
    path = tmp_path / "scene.tif"
    make(path, noise((2, 64, 64)), tiled=True, nodata=3, compress="deflate")
    data, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in random.integers(0, 500, 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            scan = read(path)
            np.asarray(scan.values[:64, :64]), scan.valid is not None and scan.valid[:64, :64]
        except ValueError as error:
            assert "Received: " in str(error)  # noqa: PT017
            refused += 1
    assert refused > 50


def test_a_tile_larger_than_the_limit_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("tf_gradcam.formats._geotiff.reading._MAX_BLOCK", 256 * 256 - 1)
    path = tmp_path / "scene.tif"
    with unplaced(), rasterio.open(
        path, "w", driver="GTiff", height=512, width=512, count=1, dtype="uint8", tiled=True,
        blockxsize=256, blockysize=256, compress="deflate",
    ):  # fmt: skip
        pass
    with pytest.raises(ValueError, match="tiles or strips of at most 65,535 bytes.*256 x 256"):
        read(path)


VRT = (
    '<VRTDataset rasterXSize="30" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1">'
    '<SimpleSource><SourceFilename relativeToVRT="1">secret.tif</SourceFilename></SimpleSource>'
    "</VRTRasterBand></VRTDataset>"
)


def test_files_that_name_other_files_are_refused(tmp_path):
    make(tmp_path / "secret.tif", noise((1, 20, 30), "uint8"))
    (tmp_path / "scene.vrt").write_text(VRT)
    with pytest.raises(ValueError, match=r"names other files.*gdal_translate scene.vrt scene.tif"):
        read(tmp_path / "scene.vrt")
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(ValueError, match="`path` must be a complete GeoTIFF or TIFF. Received: 'folder.tif'"):
        read(tmp_path / "folder.tif")
    (tmp_path / "scene.tif").write_text(VRT)
    with pytest.raises(ValueError, match="`path` must be a complete GeoTIFF or TIFF. Received: 'scene.tif'"):
        read(tmp_path / "scene.tif")
    make(tmp_path / "scene.tif", noise((1, 20, 30), "uint8"))
    (tmp_path / "scene.tif.msk").write_text(VRT)
    with pytest.raises(ValueError, match="The mask beside `path` must be a TIFF. Received: 'scene.tif.msk'"):
        read(tmp_path / "scene.tif")


def test_overviews_that_name_another_file_are_not_opened(tmp_path):
    stored = make(tmp_path / "scene.tif", noise((1, 64, 64), "uint8"))
    make(tmp_path / "other.tif", np.zeros((1, 32, 32), "uint8"))
    with rasterio.open(tmp_path / "scene.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "other.tif"))
    np.testing.assert_array_equal(read(tmp_path / "scene.tif").values[::2, ::2, 0], stored[0, ::2, ::2])


@pytest.mark.parametrize("name", ["a#1.tif", "b!x.tif", "c?q=1.tif", "d:e.tif", "%41 ü.TIF", "zip+f.tiff"])
def test_names_are_no_addresses(tmp_path, name):
    stored = make(tmp_path / "scene.tif", noise((1, 20, 30)))
    (tmp_path / "scene.tif").rename(tmp_path / name)
    scan = read(tmp_path / name)
    np.testing.assert_array_equal(scan.values[..., 0], stored[0])
    write(tmp_path / name, scan, np.ones((2, 3)))
    assert read(tmp_path / name).shape == (2, 3, 1)


# Heatmaps written back


@needs_gdal
@pytest.mark.parametrize("transform", [UTM, ROTATED], ids=["upright", "rotated"])
@pytest.mark.parametrize("grid", [(7, 7), (1, 3), (70, 45)])
def test_a_written_heatmap_has_the_corners_of_its_scene(tmp_path, transform, grid):
    make(tmp_path / "scene.tif", noise((2, 210, 90)), transform=transform)
    heatmap = noise(grid, "float32") ** 2
    write(tmp_path / "heatmap.tif", read(tmp_path / "scene.tif"), heatmap, label="forest", model="net")
    scene, written = gdalinfo(tmp_path / "scene.tif"), gdalinfo(tmp_path / "heatmap.tif")
    assert written["size"] == [grid[1], grid[0]]
    for corner, place in scene["cornerCoordinates"].items():
        np.testing.assert_allclose(written["cornerCoordinates"][corner], place, rtol=1e-12)
    assert written["coordinateSystem"]["wkt"] == scene["coordinateSystem"]["wkt"]
    (band,) = written["bands"]
    assert (band["type"], band["description"], str(band["noDataValue"])) == (
        "Float32",
        "gradcam: forest",
        "NaN",
    )
    tags = written["metadata"][""]
    assert {name: tags[name] for name in ("method", "label", "model")} == {
        "method": "gradcam", "label": "forest", "model": "net",
    }  # fmt: skip
    assert written["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "heatmap.tif"), heatmap)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heatmap.tif", "scene.tif"]


def test_the_peak_of_a_real_network_is_at_the_same_map_coordinates(tmp_path):
    bright = np.zeros((4, 112, 112), "uint16")
    bright[:, 64:80, 16:32] = 10_000  # cell (4, 1) of 7 x 7
    make(tmp_path / "scene.tif", bright, nodata=65535)
    images = keras.Input((112, 112, 4))
    x = keras.layers.AveragePooling2D(16, name="cells")(images)
    x = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="last")(x)
    model = keras.Model(images, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(x)))
    model.layers[-1].set_weights([np.ones((1, 1)), np.zeros(1)])
    scan = read(tmp_path / "scene.tif")
    heatmap = make_gradcam_heatmap(model, np.asarray(scan, "float32")[None], "last", size=None)
    write(tmp_path / "heatmap.tif", scan, heatmap)

    with tifffile.TiffFile(tmp_path / "heatmap.tif") as file:
        found = file.asarray()
        tags = file.pages[0].geotiff_tags
    row, column = np.unravel_index(found.argmax(), found.shape)
    (wide, high, _), (_, _, _, left, top, _) = tags["ModelPixelScale"], tags["ModelTiepoint"]
    assert int(tags["ProjectedCSTypeGeoKey"]) == 32632
    place = (left + (column + 0.5) * wide, top - (row + 0.5) * high)
    assert found.shape == (7, 7)
    np.testing.assert_allclose(place, scan.position((71.5, 23.5)), rtol=1e-12)


def test_overviews_of_a_written_heatmap_stay_in_its_range(tmp_path):
    make(tmp_path / "scene.tif", noise((1, 900, 1100)))
    heatmap = (np.indices((900, 1100)).sum(axis=0) % 7 < 3).astype(
        np.float32
    )  # edges, where cubic overshoots
    write(tmp_path / "heatmap.tif", read(tmp_path / "scene.tif"), heatmap)
    with rasterio.open(tmp_path / "heatmap.tif", OVERVIEW_LEVEL=0) as file:
        smaller = file.read(1)
    assert smaller.shape == (450, 550)
    np.testing.assert_allclose(smaller, heatmap.reshape(450, 2, 550, 2).mean(axis=(1, 3)), atol=1e-6)
    assert smaller.min() >= 0
    assert smaller.max() <= 1


@pytest.mark.parametrize("grid", [(7, 5), (1, 1), (40, 60), (100, 100), (33, 60)])
def test_cells_without_a_valid_pixel_are_nodata(tmp_path, grid, monkeypatch):
    monkeypatch.setattr("tf_gradcam.formats._geotiff.writing._ROWS", 13)  # cells lie across the parts
    stored = noise((2, 40, 60))
    stored[:, 5:29, 10:44] = 0
    stored[0, 12, 20] = 1
    stored[:, 30:] = np.where(noise((10, 60), seed=1) < 60_000, 0, 1)
    make(tmp_path / "scene.tif", stored, nodata=0)
    scan = read(tmp_path / "scene.tif")
    write(tmp_path / "heatmap.tif", scan, np.ones(grid))
    valid = (stored != 0).all(axis=0)
    expected = np.zeros(grid, bool)
    for row, column in np.ndindex(grid):
        rows = slice(math.floor(row * 40 / grid[0]), math.ceil((row + 1) * 40 / grid[0]))
        columns = slice(math.floor(column * 60 / grid[1]), math.ceil((column + 1) * 60 / grid[1]))
        expected[row, column] = valid[rows, columns].any()
    with rasterio.open(tmp_path / "heatmap.tif") as file:
        found = file.read(1)
        np.testing.assert_array_equal(file.dataset_mask() > 0, expected)
    np.testing.assert_array_equal(np.isfinite(found), expected)


def test_a_scan_without_a_place_is_written_without_one(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", noise((20, 30)))
    heatmap = noise((2, 3), "float32")
    write(tmp_path / "heatmap.tif", read(tmp_path / "plain.tif"), heatmap, label='a\0b\n<c>&"é"')
    scan = read(tmp_path / "heatmap.tif")
    assert (scan.affine, scan.space) == (None, "")
    assert scan.bands == ('gradcam: a\\x00b <c>&"é"',)
    np.testing.assert_array_equal(scan.values[..., 0], heatmap)


def test_a_stack_is_not_written_to_a_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", noise((5, 20, 30)), metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match="`scan` must have rows and columns only for a TIFF.*'zyx'"):
        write(tmp_path / "heatmap.tif", read(tmp_path / "stack.tif"), np.ones((5, 2, 3)))


def test_a_heatmap_that_finds_no_room_leaves_the_earlier_file(tmp_path):
    make(tmp_path / "scene.tif", noise((1, 20, 30)))
    (tmp_path / "heatmap.tif").write_bytes(b"earlier")
    code = f"""
import pathlib, resource, signal
import numpy as np
from tf_gradcam.formats import read, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
folder = pathlib.Path({str(tmp_path)!r})
try:
    write(folder / "heatmap.tif", read(folder / "scene.tif"), np.random.default_rng(0).random((300, 300)))
except OSError as error:
    print(error)
"""
    assert "can't be written" in run_python(code)
    assert (tmp_path / "heatmap.tif").read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heatmap.tif", "scene.tif"]
