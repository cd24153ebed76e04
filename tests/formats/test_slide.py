"""Whole-slide images: levels, regions and places, windows, damage, and heatmaps written back."""

import math
import threading
import zlib

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide

from tf_gradcam.formats import read, write

APERIO = "Aperio Image Library v11.2.1\r\n{width}x{height} (256x256)|AppMag = 20|MPP = {mpp}"
SIZES = ((1801, 2220), (899, 1109), (225, 277))  # Neither is half of the one before it, rounded either way.


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), "uint8")


def ramp(size):
    """RGB that says where it is: red by column, green by row, from 0 to 1 of the slide's own size."""
    row, column = ((np.arange(length) + 0.5) / length * 255 for length in size)
    picture = np.zeros((*size, 3))
    picture[..., 0], picture[..., 1] = column, row[:, None]
    return np.rint(picture).astype("uint8")


def make(path, levels, mpp=0.25, description=None, **options):
    """Write levels as a pyramid of tiles, as generic TIFF or, with a description, as Aperio does."""
    options = {"photometric": "rgb", "tile": (256, 256), "metadata": None, "software": False, **options}
    if mpp:
        options |= {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                level, subfiletype=0 if description or not number else 1, description=description, **options
            )
            if description and not number:  # Aperio's second image is a thumbnail, in strips.
                file.write(level[::16, ::16], photometric="rgb", metadata=None, description=description)
    return levels


@pytest.fixture(scope="module")
def levels():
    return [noise(size, seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module", params=["generic-tiff", "aperio"])
def slide(request, levels, tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "slide.svs"
    description = APERIO.format(height=SIZES[0][0], width=SIZES[0][1], mpp=0.25)
    make(path, levels, description=description if request.param == "aperio" else None)
    with openslide.OpenSlide(path) as file:
        assert (file.properties["openslide.vendor"], file.level_count) == (request.param, 3)
    return path


# Levels and regions


def test_level_0_is_read_exactly_in_any_window(slide, levels):
    scan = read(slide)
    assert (scan.format, scan.axes, scan.shape, scan.values.dtype) == ("slide", "yx", (*SIZES[0], 3), "uint8")
    for index in (np.s_[...], np.s_[1000:1100, 37:91], np.s_[5], np.s_[-3:, -700:, 1], np.s_[50:40:-1, 7]):
        np.testing.assert_array_equal(scan.values[index], levels[0][index])
    assert scan.picture().shape == (*SIZES[0], 3)


def test_a_level_keeps_its_pixels_and_its_true_place(slide, levels):
    scan = read(slide, level=1)
    np.testing.assert_array_equal(scan.values[...], levels[1])
    with openslide.OpenSlide(slide) as file:
        downsample = file.level_downsamples[1]
    assert downsample == pytest.approx(2.00257, abs=1e-5)
    assert scan.space == "mm"
    np.testing.assert_allclose(scan.spacing, downsample * 0.00025, rtol=1e-12)
    np.testing.assert_allclose(scan.position((0, 0)), downsample * 0.00025 / 2, rtol=1e-12)
    # The lower right corner is that of level 0, within a pixel of it.
    np.testing.assert_allclose(scan.position((898.5, 1108.5)), (2220 * 0.00025, 1801 * 0.00025), atol=0.0005)


def test_the_level_of_a_pixel_size_is_the_coarsest_that_is_as_fine(slide):
    # OpenSlide reads level 0 for twice the pixel size, for 2.0026 is more than 2.
    with openslide.OpenSlide(slide) as file:
        assert file.get_best_level_for_downsample(2) == 0
    for mpp, height in ((0.25, 1801), (0.4, 1801), (0.5, 899), (1, 899), (1.99, 225), (100, 225)):
        assert read(slide, mpp=mpp).shape[0] == height
    with pytest.raises(ValueError, match="`mpp` must be at least 0.25, that of the finest level"):
        read(slide, mpp=0.2)


def test_windows_of_a_level_lie_where_they_should(tmp_path):
    make(tmp_path / "slide.svs", [ramp(size) for size in SIZES])
    for level, size in enumerate(SIZES):
        whole = ramp(size).astype(int)
        scan = read(tmp_path / "slide.svs", level=level)
        for top, left in ((0, 0), (100, 51), (size[0] - 40, size[1] - 30)):
            window = scan.values[top : top + 40, left : left + 30]
            # OpenSlide interpolates between two pixels of a level that is no whole part of level 0.
            assert np.abs(window - whole[top : top + 40, left : left + 30]).max() <= (1 if level else 0)


def test_a_region_is_in_pixels_of_level_0_whatever_the_level(slide, levels):
    fine = read(slide, region=(300, 200, 128, 64))
    np.testing.assert_array_equal(fine.values[...], levels[0][200:264, 300:428])
    np.testing.assert_allclose(fine.position((0, 0)), (300.5 * 0.00025, 200.5 * 0.00025))
    whole, coarse = read(slide, level=1), read(slide, level=1, region=(300, 200, 128, 64))
    top, left = 200 // 2.00257, 300 // 2.00257
    np.testing.assert_allclose(coarse.position((3, 5)), whole.position((top + 3, left + 5)), rtol=1e-12)
    assert coarse.shape == (math.ceil(264 / 2.00257) - top, math.ceil(428 / 2.00257) - left, 3)
    np.testing.assert_array_equal(coarse.values[...], whole.values[99:132, 149:214])
    last = read(slide, level=2, region=(2219, 1800, 1, 1))
    assert last.values[...].shape == (1, 1, 3)


def test_steps_are_read_from_smaller_levels_at_the_same_place(tmp_path):
    make(tmp_path / "slide.svs", [ramp(size) for size in SIZES])
    with_all = read(tmp_path / "slide.svs")
    exact = ramp(SIZES[0])[::16, ::16].astype(int)
    assert np.abs(with_all.values[::16, ::16] - exact).max() <= 2
    part = read(tmp_path / "slide.svs", region=(500, 700, 1000, 900), level=1)
    exact = ramp(SIZES[1])[349:799, 249:749][::-9, ::7].astype(int)
    assert np.abs(part.values[::-9, ::7] - exact).max() <= 2


def test_steps_within_a_level_are_exact(tmp_path, monkeypatch):
    picture = noise((700, 900))
    make(tmp_path / "slide.svs", [picture])
    monkeypatch.setattr("tf_gradcam.formats._windows._CHUNK", 50_000)  # few rows at once
    monkeypatch.setattr("tf_gradcam.formats._slide._STRIP", 10_000)
    values = read(tmp_path / "slide.svs").values
    np.testing.assert_array_equal(values[...], picture)
    for index in (np.s_[::3, ::2], np.s_[600:10:-7, 5::11], np.s_[9, ::4]):
        # The centre of each step's first pixel, as there is no smaller level.
        np.testing.assert_array_equal(values[index], picture[index])


def test_a_slide_without_pixel_size_has_places_in_pixels(tmp_path, levels):
    make(tmp_path / "slide.svs", levels, mpp=None)
    scan = read(tmp_path / "slide.svs", level=1)
    assert scan.space == "pixels of level 0"
    np.testing.assert_allclose(scan.spacing, 2.00257, rtol=1e-5)
    with pytest.raises(ValueError, match=r"`mpp` must be None for 'slide.svs'.*Give `level`, from 0 to 2"):
        read(tmp_path / "slide.svs", mpp=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level": 3}, "`level` must be from 0 to 2. Received: level=3"),
        ({"level": -1}, "`level` must be from 0 to 2. Received: level=-1"),
        ({"level": True}, "`level` must be from 0 to 2. Received: level=True"),
        ({"level": 1.0}, "`level` must be from 0 to 2"),
        ({"level": 1, "mpp": 1}, "Give `level` or `mpp`, not both"),
        ({"mpp": -1}, "`mpp` must be a number above 0"),
        ({"mpp": math.nan}, "`mpp` must be a number above 0"),
        ({"mpp": "1"}, "`mpp` must be a number above 0"),
        ({"region": (0, 0, 2221, 1)}, "`region` must be (left, top, width, height)"),
        ({"region": (-1, 0, 5, 5)}, "inside the slide of 2220 x 1801. Received: region=(-1, 0, 5, 5)"),
        ({"region": (0, 0, 0, 5)}, "`region` must be"),
        ({"region": (0, 0, 5.5, 5)}, "`region` must be"),
        ({"region": (0, 0, 5)}, "`region` must be"),
    ],
)
def test_options_that_do_not_fit_are_refused(slide, options, said):
    with pytest.raises(ValueError, match=".*") as error:
        read(slide, **options)
    assert said in str(error.value)


# The two libraries


def test_what_openslide_refuses_is_read_by_tiffslide(tmp_path):
    picture = noise((400, 500))
    path = tmp_path / "strips.svs"
    description = APERIO.format(height=400, width=500, mpp=0.5)
    tifffile.imwrite(path, picture, photometric="rgb", metadata=None, description=description)
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(path)
    scan = read(path)
    np.testing.assert_array_equal(scan.values[100:150, 200:260], picture[100:150, 200:260])
    np.testing.assert_array_equal(scan.values[...], picture)
    np.testing.assert_allclose(scan.spacing, 0.0005)


def test_levels_of_tiffslide_are_exact_in_any_window(tmp_path):
    path = tmp_path / "slide.svs"
    levels = [noise((511, 700)), noise((255, 349)), noise((63, 87))]
    make(path, levels, description=APERIO.format(height=511, width=700, mpp=0.25), compression="lzma")
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(path)
    with tiffslide.TiffSlide(path) as file:
        assert file.level_count == 3
    scan = read(path, level=1)
    for top in range(0, 200, 7):
        window = scan.values[top : top + 50, top : top + 60]
        np.testing.assert_array_equal(window, levels[1][top : top + 50, top : top + 60])


def test_threads_read_windows_at_once(slide, levels):
    scan, wrong = read(slide), []

    def check(seed):
        for row, column in np.random.default_rng(seed).integers(0, 1700, (20, 2)):
            if not np.array_equal(scan.values[row : row + 50, column : column + 50],
                                  levels[0][row : row + 50, column : column + 50]):  # fmt: skip
                wrong.append((row, column))

    threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_was_not_scanned_has_the_background_of_the_file(monkeypatch, slide):
    shown = np.zeros((1, 3, 4), "uint8")
    shown[0] = [[10, 20, 30, 255], [0, 0, 0, 0], [100, 0, 0, 51]]

    class Picture:
        mode = "RGBA"

        def __array__(self, dtype=None, copy=None):
            return shown

    monkeypatch.setattr(openslide.OpenSlide, "read_region", lambda *args: Picture())
    assert read(slide).values[:1, :3].tolist() == [[[10, 20, 30], [255, 255, 255], [224, 204, 204]]]
    properties = {**openslide.OpenSlide(slide).properties, "openslide.background-color": "FF8000"}
    monkeypatch.setattr(openslide.OpenSlide, "properties", properties)
    assert read(slide).values[:1, :3].tolist() == [[[10, 20, 30], [255, 128, 0], [224, 102, 0]]]


# Files that are not trusted


def test_a_slide_that_was_cut_short_is_never_read_as_if_it_were_whole(tmp_path, slide, levels):
    data = slide.read_bytes()
    path = tmp_path / "slide.svs"
    for share in (0, 0.001, 0.3, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        try:
            found = np.asarray(read(path))
        except ValueError as error:
            assert str(error).startswith(  # noqa: PT017
                "`path` must be a complete slide. Received: 'slide.svs', which can't"
            )
            assert str(tmp_path) not in str(error)  # noqa: PT017
        else:  # Only smaller levels are lost.
            np.testing.assert_array_equal(found, levels[0])
            assert share == 0.9
    (tmp_path / "folder.svs").mkdir()
    with pytest.raises(ValueError, match="`path` must be the file of a slide"):
        read(tmp_path / "folder.svs")
    path.write_text("no slide at all")
    with pytest.raises(ValueError, match="which can't be opened: Unsupported or missing image"):
        read(path)


def test_a_damaged_tile_is_named_and_the_others_are_read(tmp_path):
    path = tmp_path / "slide.svs"
    picture = noise((600, 600))
    make(path, [picture], compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    scan = read(path)
    for _ in range(2):
        with pytest.raises(
            ValueError, match="can't be decoded in rows 250 to 300, columns 250 to 300 of level 0: "
        ):
            scan.values[250:300, 250:300]
        np.testing.assert_array_equal(scan.values[:256], picture[:256])


def test_a_slide_larger_than_the_limit_is_read_by_windows_and_shown(tmp_path):
    path = tmp_path / "large.svs"
    small = noise((220, 240))
    with tifffile.TiffWriter(path) as file:
        tile = ramp((256, 256))
        encoded = zlib.compress(tile.tobytes())
        file.write(
            (encoded for _ in range(43 * 47)), shape=(11_000, 12_000, 3), dtype="uint8", photometric="rgb",
            tile=(256, 256), metadata=None, compression="zlib",
        )  # fmt: skip
        file.write(
            small, subfiletype=1, photometric="rgb", tile=(256, 256), metadata=None, compression="zlib"
        )
    scan = read(path)
    np.testing.assert_array_equal(scan.values[512:768, 10_240:10_496], tile)
    with pytest.raises(ValueError, match=r"Received: 11000 x 12000.*sliding"):
        np.asarray(scan)
    np.testing.assert_array_equal(scan.values[25::50, 25::50], small)


# Heatmaps written back


@pytest.mark.parametrize("level", [0, 1])
def test_a_heatmap_of_a_slide_has_the_size_of_its_cells(tmp_path, slide, level):
    scan = read(slide, level=level)
    heatmap = np.zeros((9, 11), "float32")
    heatmap[6, 2] = 1
    write(tmp_path / "heatmap.tif", scan, heatmap, label="tumour")
    with tifffile.TiffFile(tmp_path / "heatmap.tif") as file:
        page, found = file.pages[0], file.asarray()
        cells_in_cm = page.resolution
        assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
    np.testing.assert_array_equal(found, heatmap)
    # As wide and high as the slide, and the peak at the same millimetre.
    wide, high = 11 / cells_in_cm[0] * 10, 9 / cells_in_cm[1] * 10
    np.testing.assert_allclose((wide, high), (2220 * 0.00025, 1801 * 0.00025), rtol=1e-3)
    height, width = scan.shape[:2]
    peak = scan.position(((6 + 0.5) / 9 * height - 0.5, (2 + 0.5) / 11 * width - 0.5))
    np.testing.assert_allclose(peak, (2.5 * wide / 11, 6.5 * high / 9), rtol=1e-6)
    assert read(tmp_path / "heatmap.tif").bands == ("gradcam: tumour",)
