"""Scans in a run: explained by path as by array, and written where they were measured, without a name."""

import json
import pathlib
import shutil
import warnings

import cv2
import highdicom
import keras
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from dicom_files import PATIENT, save, save_series
from photo_files import classify, files, run
from pydicom.data import get_testdata_file

import tf_gradcam
from tf_gradcam import formats
from tf_gradcam._files import PictureOptions
from tf_gradcam._images import hottest_slices
from tf_gradcam._run import (
    Photograph,
    Request,
    explain_photographs,
    find_photographs,
    scans,
    write_results,
)
from tf_gradcam._run.findings import PhotographExplainer

av = pytest.importorskip("av", reason="PyAV is not installed")
rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
SIDE, DEPTH = 32, 8
HOT = (20, 9)  # row and column of what is measured
PLACE = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def thousandth(images):
    return images / 1000


def pointing(*shape):
    """Return a network whose map is the sum of the channels, and whose logits are its mean and minus that."""
    layers = keras.layers
    conv, pool = (
        (layers.Conv2D, layers.GlobalAveragePooling2D)
        if len(shape) == 3
        else (layers.Conv3D, layers.GlobalAveragePooling3D)
    )
    units = layers.Dense(2, activation="softmax")
    model = keras.Sequential(
        [keras.Input(shape), conv(1, 1, kernel_initializer="ones", name="conv"), pool(), units]
    )
    units.set_weights([np.array([[1, -1]], "float32"), np.zeros(2, "float32")])
    return classify(model, thousandth, ["lesion", "nothing"])


@pytest.fixture(scope="module")
def of_images():
    return pointing(SIDE, SIDE, 1)


@pytest.fixture(scope="module")
def of_volumes():
    return pointing(DEPTH, SIDE, SIDE, 1)


def measured(dtype, top, *channels):
    """Return an image of small numbers with one high one; all of their levels count."""
    values = np.random.default_rng(0).integers(0, 90, (SIDE, SIDE, *channels)).astype(dtype)
    values[HOT] = top
    return values


def write_scene(path, values, **options):
    """Write a scene `(H, W, C)` in UTM zone 32."""
    height, width, count = values.shape
    options = {"crs": "EPSG:32632", "transform": PLACE, "photometric": "minisblack", **options}
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", **profile, **options) as file:
        file.write(np.moveaxis(values, -1, 0))
    return path


def write_nifti(path, values):
    """Write a volume `(z, y, x)` with voxels of 2 x 2 x 3 mm."""
    affine = np.array([[-2, 0, 0, 10], [0, 2, 0, -5], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(np.transpose(values), affine), path)
    return path


def write_clip(path, count=22, hot=15, rate=10):
    """Write a dark clip with one frame that has a bright square; return its path."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            frame = np.full((48, 64, 3), 20, np.uint8)
            frame[16:32, 32:48] = 255 if number == hot else 20
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    return path


def itk_place(path, index):
    """Return where SimpleITK places `(z, y, x)`, in LPS mm."""
    image = SimpleITK.ReadImage(str(path))
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(each) for each in index[::-1]]))


def peak(values):
    return tuple(int(each) for each in np.unravel_index(np.argmax(values), values.shape))


# The same class and map by path as by array


def by_pydicom(path):
    return pydicom.dcmread(path).pixel_array[..., None]


def by_tifffile(path):
    values = tifffile.imread(path)
    return values if values.shape[-1] < SIDE else np.moveaxis(values, 0, -1)


def map_by_pydicom(path):
    written = pydicom.dcmread(path)
    return np.frombuffer(written.FloatPixelData, np.float32).reshape(written.Rows, written.Columns)


UNSCALED = {"RescaleSlope": 1, "RescaleIntercept": 0}
KINDS = {
    "12 bits": ("a.dcm", measured("uint16", 4095), {"BitsStored": 12, **UNSCALED}),
    "16 bits": ("a.dcm", measured("uint16", 65535), UNSCALED),
    "int16": ("a.dcm", measured("int16", 30000) - np.int16(50), UNSCALED),
    "float32": ("a.npy", measured("float32", 4321.5, 1) / 7, {}),
    "4 bands": ("a.tif", measured("uint16", 9000, 4) + np.uint16(1), {"nodata": 0}),
    "13 bands": ("a.tif", measured("uint16", 12000, 13), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_grey_level_reaches_the_model_and_the_map_by_path_as_by_array(kind, of_images):
    name, values, options = KINDS[kind]
    write = {"a.dcm": save, "a.tif": write_scene, "a.npy": np.save}[name]
    write(name, values, **options)
    read_by = {"a.dcm": by_pydicom, "a.tif": by_tifffile, "a.npy": np.load}[name]
    array = read_by(name)
    channels = array.shape[-1]
    classifier = of_images if channels == 1 else pointing(SIDE, SIDE, channels)
    (row,) = run(classifier, name, target="lesion", **({"picture": _bands(4, 3, 2)} if channels > 3 else {}))

    logit = np.mean(np.sum(values.astype(np.float64).reshape(SIDE, SIDE, -1), axis=-1)) / 1000
    assert row["score"] == pytest.approx(logit, rel=1e-6)
    assert row["probability"] == pytest.approx(1 / (1 + np.exp(-2 * logit)), rel=1e-5)
    explained = tf_gradcam.GradCAM(classifier.model, "conv")(thousandth(array[None].astype("float32")), 0)
    read_map = {"a.dcm": map_by_pydicom, "a.tif": tifffile.imread, "a.npy": np.load}[name]
    written = read_map(f"gradcam/{row['map']}")
    np.testing.assert_allclose(written, explained.heatmap[0], atol=1e-6)
    assert (row["label"], peak(written), tuple(row["peak"])) == ("lesion", HOT, HOT)
    assert row.get("picture") == ({"bands": (4, 3, 2)} if channels > 3 else None)


def _bands(*numbers):
    return PictureOptions(bands=numbers)


def test_each_class_and_each_method_has_its_files_with_boxes_in_pixels(of_images):
    save("ct.dcm", measured("int16", 3000), **UNSCALED)
    window = PictureOptions(window=(40, 400))
    rows = run(of_images, "ct.dcm", top=2, boxes=0.5, fade=True, format="jpg", picture=window)
    assert [row["class"] for row in rows] == [0, 1]
    assert [row["map"] for row in rows] == ["ct-1-heatmap.dcm", "ct-2-heatmap.dcm"]
    assert rows[0]["boxes"] == [{"bbox": [HOT[1], HOT[0], 1, 1], "area": 1, "score": 1.0}]
    assert rows[1]["boxes"] == []
    assert all(row["picture"] == {"window": (40, 400)} for row in rows)
    assert all(row["overlay"].endswith(".jpg") for row in rows)
    rows = run(of_images, "ct.dcm", methods=("gradcam", "layercam"), target="lesion", out="methods")
    assert [row["map"] for row in rows] == ["ct-gradcam-heatmap.dcm", "ct-layercam-heatmap.dcm"]
    named = {row[key] for row in rows for key in ("overlay", "heatmap", "map", "capture", "comparison")}
    assert files("methods") == named


# Volumes and videos


@pytest.fixture
def volume():
    values = np.random.default_rng(1).integers(0, 50, (2 * DEPTH, SIDE, SIDE)).astype(np.int16)
    values[10:12, 20, 9] = 30_000
    return values


@pytest.mark.parametrize("takes", ["images", "volumes", "windows"])
def test_the_peak_of_a_volume_is_at_its_millimetre_for_simpleitk(takes, volume, of_images, of_volumes):
    write_nifti("mri.nii.gz", volume)
    of_what, options = of_volumes, {}
    if takes == "windows":
        volume = np.concatenate([volume, volume[:3]])  # No whole number of windows.
        write_nifti("mri.nii.gz", volume)
        options = {"sliding": 0.5}
    elif takes == "images":
        of_what = of_images
    (row,) = run(of_what, "mri.nii.gz", target="lesion", format="jpg", **options)
    path = f"gradcam/{row['map']}"
    written = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
    # The model of volumes takes two slices as one; the windows have a map of each voxel.
    middle = (10.5, 20, 9) if takes == "volumes" else (10, 20, 9)
    expected = itk_place("mri.nii.gz", middle)
    np.testing.assert_allclose(itk_place(path, peak(written)), expected, atol=1e-3)
    np.testing.assert_allclose(np.array(row["position"]) * (-1, -1, 1), expected, atol=1e-3)
    assert (row["space"], row["axes"], row["peak"]) == ("RAS mm", "zyx", list(middle))
    assert files("gradcam") == {"mri-overlay.png", "mri-heatmap.nii.gz"} == {row["overlay"], row["map"]}


def test_slices_are_explained_for_the_class_that_is_best_on_average(volume, of_images):
    np.save("dark.npy", -np.abs(volume[..., None]))
    steps = []
    request = Request(pathlib.Path("out"))
    found = explain_photographs([Photograph("dark.npy", "dark.npy")], request, of_images, steps.append)
    ((finding,),) = list(found)
    logit = np.abs(volume.astype(np.float64)).mean() / 1000
    assert finding.row["label"] == "nothing"
    assert finding.row["score"] == pytest.approx(logit, rel=1e-5)
    assert steps == ["slice 16 of 16"]


def test_a_series_is_explained_in_the_order_of_its_places_and_names_no_patient(volume, of_volumes):
    save_series(pathlib.Path("series"), volume, **UNSCALED)
    save_series(pathlib.Path("flat"), volume[:, ::-1].copy(), **UNSCALED)
    (found,) = find_photographs(["series"], series=True).photographs
    (finding,) = next(explain_photographs([found], Request(pathlib.Path("out"), target="lesion"), of_volumes))
    row = finding.row
    assert row["peak"] == [10.5, 20, 9]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = highdicom.imread(f"out/{row['map']}").get_volume()
    where = written.affine @ [*peak(written.array), 1]
    np.testing.assert_allclose(where[:3], row["position"], atol=1e-3)
    write_results([row], pathlib.Path("out"))
    patient = [PATIENT.encode(), b"CompressedSamples", pydicom.dcmread("series/001.dcm").PatientID.encode()]
    for file in files("out"):
        if not file.endswith(".dcm"):  # which belong to the patient's study
            assert not any(name in pathlib.Path("out", file).read_bytes() for name in patient), file
    assert pydicom.dcmread(f"out/{row['capture']}").NumberOfFrames == len(volume)


@pytest.mark.parametrize("takes", ["images", "volumes"])
def test_a_video_comes_back_with_its_clock_whatever_the_number_of_maps(takes, of_images):
    # 16 maps for 22 frames: neither one for each, nor one for two or more.
    classifier = of_images if takes == "images" else pointing(16, SIDE, SIDE, 1)
    write_clip("clip.mp4")
    (row,) = run(classifier, "clip.mp4", target="lesion")
    assert row["axes"] == "tyx"
    assert row["seconds_at_peak"] == pytest.approx(1.5, abs=0.001 if takes == "images" else 0.07)
    capture, seconds, reds = cv2.VideoCapture(f"gradcam/{row['overlay']}"), [], []
    while (frame := capture.read())[0]:
        seconds.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        reds.append(frame[1][16:32, 32:48, 2].astype(int).mean() - frame[1][16:32, 32:48, 0].mean())
    np.testing.assert_allclose(seconds, np.arange(22) / 10, atol=1e-3)
    assert int(np.argmax(reds)) == 15
    assert np.load(f"gradcam/{row['map']}").shape == (22 if takes == "images" else 16, SIDE, SIDE)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_scene_of_any_number_of_bands_and_any_size_is_fitted_to_the_model(dtype):
    bands = 13
    scene = np.random.default_rng(0).integers(0, 200, (50, 77, bands)).astype(dtype)
    write_scene("scene.tif", scene)
    seen = []

    def see(images):
        seen.append(np.asarray(images))
        return images / np.float32(1000)

    (row,) = run(pointing(SIDE, SIDE, bands)._replace(preprocess=see), "scene.tif", target="lesion")
    assert "error" not in row
    values = scene if dtype == "uint8" else scene.astype(np.float32)
    for band in range(bands):
        alone = cv2.resize(values[..., band].copy(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(seen[-1][0, ..., band], alone)


# Windows


def test_nodata_is_no_evidence_by_windows_nor_for_the_model(of_images):
    values = measured("int16", 3000, 1)
    scene = np.tile(values, (2, 3, 1))[:55, :81]  # No whole number of windows.
    hot = (HOT[0] + SIDE, HOT[1] + SIDE)
    scene[hot] = 3200
    scene[:10] = 30_000  # the file's nodata, brighter than all else
    write_scene("scene.tif", scene, nodata=30_000)
    (row,) = run(of_images, "scene.tif", target="lesion", sliding=0.5, boxes=0.9)
    assert tuple(row["peak"]) == hot
    assert row["score"] < 1  # 10 of 32 rows of nodata would make it 9.
    assert row["boxes"][0]["bbox"] == [hot[1], hot[0], 1, 1]
    with rasterio.open(f"gradcam/{row['map']}") as file, rasterio.open("scene.tif") as source:
        heatmap = file.read(1)
        assert file.bounds == source.bounds
        assert np.isnan(heatmap[:10]).all()
        assert source.xy(*hot) == file.xy(*peak(np.nan_to_num(heatmap))) == tuple(row["position"])


def test_a_place_in_degrees_is_told_to_a_hundredth_of_a_pixel():
    affine = np.array([[0, 1e-5, 11.123456], [-1e-5, 0, 48.654321]])
    scan = formats.Scan(
        values=np.zeros((50, 60, 1)), axes="yx", format="GeoTIFF", path=pathlib.Path("a.tif"), affine=affine
    )
    heatmap = np.zeros((50, 60))
    heatmap[7, 31] = 1
    found = scans.place_of_peak(scan, heatmap)
    np.testing.assert_allclose(found["position"], [11.123456 + 31e-5, 48.654321 - 7e-5], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"boxes": 0.5}, "`boxes` must be left out for a volume or video"),
        ({"top": 2}, "`top` must be 1 for a volume or video"),
        (
            {"target": 0, "sliding": 0.5},
            "`sliding` must be left out for a volume or video by a model of images",
        ),
        ({"sliding": 0.5}, "`target` must name a class for windows"),
    ],
)
def test_what_is_for_one_image_or_names_no_class_is_refused(asked, error, volume, of_images):
    scan = formats.read(write_nifti("mri.nii", volume))
    request = Request(pathlib.Path("out"), **asked)
    with pytest.raises(ValueError, match=error):
        scans.explain_scan(scan, PhotographExplainer(request, of_images), request, print)


def test_a_heatmap_by_windows_is_bounded():
    size = scans._size_by_windows
    assert size((700, 900)) == (700, 900)
    assert size((10_980, 10_980)) == (3660, 3660)
    assert size((300, 512, 512)) == (150, 256, 256)
    assert max(size((20, 50_000))) <= 16_384


# Files of others, and of earlier runs


def test_the_table_of_contents_of_a_disc_is_no_scan():
    pathlib.Path("disc").mkdir()
    shutil.copy(get_testdata_file("DICOMDIR"), "disc/DICOMDIR")
    save("disc/IM0001", measured("int16", 3000))
    found = find_photographs(["disc"])
    assert [each.file for each in found.photographs] == ["disc/IM0001"]
    assert found.no_photographs == {"disc/DICOMDIR"}


def test_a_run_replaces_its_own_files_and_no_others(volume, of_images):
    save("ct.dcm", measured("int16", 3000), **UNSCALED)
    write_nifti("mri.nii.gz", volume)
    out = pathlib.Path("out")
    out.mkdir()
    theirs = {"mri-overlay.png": b"mine", "ct-heatmap.dcm": b"mine, too"}
    for name, content in theirs.items():
        (out / name).write_bytes(content)
    for _ in range(2):
        rows = run(of_images, "ct.dcm", "mri.nii.gz", target="lesion", format="jpg", out="out")
        write_results(rows, out)
        assert [row["map"] for row in rows] == ["ct_2-heatmap.dcm", "mri_2-heatmap.nii.gz"]
        assert {name: (out / name).read_bytes() for name in theirs} == theirs
    again = find_photographs(["out"])
    assert [each.file for each in again.photographs] == ["out/ct-heatmap.dcm", "out/mri-overlay.png"]
    assert json.loads((out / "explanations.json").read_text())[0]["position"] == rows[0]["position"]


def test_files_of_the_run_before_the_last_one_are_still_known(volume):
    scan, out = formats.read(write_nifti("mri.nii.gz", volume)), pathlib.Path("out")
    out.mkdir()
    rows = [{"file": f"{name}.nii.gz", "map": f"{name}-heatmap.nii.gz"} for name in "abc"]
    for row in rows:
        formats.write(out / row["map"], scan, np.ones((2, 2, 2)))
        write_results([row], out)
    shutil.copy("mri.nii.gz", "out/their-heatmap.nii.gz")
    found = find_photographs(["out"])
    assert [each.file for each in found.photographs] == ["out/their-heatmap.nii.gz"]
    assert found.own_pictures == {f"out/{row['map']}" for row in rows}
    for row in rows[:2]:
        (out / row["map"]).unlink()
    write_results(rows[2:], out)
    assert ".explanations-earlier.json" not in files("out")


def test_a_format_that_can_not_hold_the_map_gets_an_array_and_says_why(of_images):
    save("ct.dcm", measured("int16", 3000), StudyInstanceUID=None, **UNSCALED)
    (row,) = run(of_images, "ct.dcm", target="lesion")
    assert "error" not in row
    assert "Study" in row["warning"]
    assert peak(np.load(f"gradcam/{row['map']}")) == HOT
    assert files("gradcam") == {"ct-overlay.png", "ct-heatmap.png", "ct-heatmap.npy"}


def test_slices_of_a_volume_are_drawn_on_one_scale():
    values = np.full((4, SIDE, SIDE), 100, np.int16)
    values[:, ::2] = 0
    values[3] = 10 * values[3]
    scan = formats.Scan(values=values[..., None], axes="zyx", format="NumPy", path=pathlib.Path("a.npy"))
    shown = hottest_slices(scan, "heatmap", np.ones((4, 8, 8)))
    brightest = [picture.max() for picture in shown.pictures]
    assert brightest[0] < brightest[3] / 5
