"""The command `explain` with files of the fields: each is a row, and each mistake is one sentence."""

import json
import pathlib
import shutil
import threading

import keras
import nibabel
import numpy as np
import pytest
from dicom_files import PATIENT, save, save_series, shipped
from photo_files import files, read_rows

from tf_gradcam._cli import main
from tf_gradcam._run import scans

SIDE = 32


pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A folder with a network whose map is the sum of four bands, one for volumes, and their labels."""
    folder, layers = tmp_path_factory.mktemp("scans"), keras.layers
    images = [layers.Conv2D(1, 1, kernel_initializer="ones"), layers.GlobalAveragePooling2D()]
    volumes = [layers.Conv3D(1, 1, kernel_initializer="ones"), layers.GlobalAveragePooling3D()]
    for name, shape, between in (
        ("grey", (SIDE, SIDE, 1), images),
        ("bands", (SIDE, SIDE, 4), [type(each).from_config(each.get_config()) for each in images]),
        ("volumes", (4, SIDE, SIDE, 1), volumes),
    ):
        units = layers.Dense(2, activation="softmax")
        model = keras.Sequential([keras.Input(shape), layers.Rescaling(1e-3), *between, units])
        units.set_weights([np.array([[1, -1]], "float32"), np.zeros(2, "float32")])
        model.save(folder / f"{name}.keras")
    (folder / "labels.txt").write_text("lesion\nnothing\n")
    return folder


@pytest.fixture
def explain(model_folder):
    """Return a function that runs the command with one of the models; it returns its exit code."""

    def run(model, *arguments):
        options = ["--model", model_folder / f"{model}.keras", "--labels", model_folder / "labels.txt"]
        try:
            return main(["explain", *map(str, [*arguments, *options])])
        except SystemExit as error:
            return error.code

    return run


@pytest.fixture
def volume():
    values = np.random.default_rng(1).integers(0, 50, (8, SIDE, SIDE)).astype(np.int16)
    values[5, 20, 9] = 30_000
    return values


def write_volume(path, values):
    nibabel.save(nibabel.Nifti1Image(values.T, np.diag([2, 2, 3, 1.0])), path)


def test_files_of_all_kinds_in_one_run_each_with_its_own_options(explain, volume, capsys):
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    save("ct.dcm", volume[5], RescaleSlope=1, RescaleIntercept=0)
    write_volume("mri.nii.gz", volume)
    scene = np.repeat(volume[5:6], 4, axis=0).astype("uint16")
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    profile = {"driver": "GTiff", "count": 4, "height": SIDE, "width": SIDE, "dtype": "uint16"}
    with rasterio.open("scene.tif", "w", photometric="minisblack", **profile, **place) as file:
        file.write(scene)
    options = ["--window", "40,400", "--bands", "4,3,2", "--target", "lesion", "--out", "out"]
    assert explain("grey", "ct.dcm", "mri.nii.gz", "scene.tif", *options) == 1
    ct, mri, refused = read_rows("out")
    assert ct["picture"] == mri["picture"] == {"window": [40.0, 400.0]}
    assert (ct["peak"], mri["peak"]) == ([20, 9], [5, 20, 9])
    assert (mri["position"], mri["space"]) == ([18, 40, 15], "RAS mm")
    said = capsys.readouterr()
    assert refused.keys() == {"file", "error"}
    assert "must take as many channels as the file has bands, 4" in refused["error"]
    assert said.err.count("--bands") == 1
    assert explain("bands", "scene.tif", *options, "--restart") == 0
    (row,) = read_rows("out")
    assert row["picture"] == {"bands": [4, 3, 2]}
    assert row["position"] == [500_095.0, 4_999_795.0]
    assert {"ct-heatmap.dcm", "mri-heatmap.nii.gz", "scene-heatmap.tif"} < files("out")


def test_a_series_and_windows_over_a_volume(explain, volume, capsys):
    volume = np.concatenate([volume, volume[:2] // 2])  # 10 slices: no whole number of windows of 4.
    save_series(pathlib.Path("series"), volume, RescaleSlope=1, RescaleIntercept=0)
    assert explain("volumes", "series", "--series", "--sliding", "--target", "0") == 0
    (row,) = read_rows()
    assert (row["file"], row["peak"], row["space"]) == ("series", [5, 20, 9], "LPS mm")
    said = "".join(capsys.readouterr()) + json.dumps(row)
    assert PATIENT not in said
    assert explain("volumes", "series", "--series", "--sliding") == 2
    assert "`--target` must name a class for windows" in capsys.readouterr().err


def test_what_can_not_be_read_is_a_row_with_a_sentence_and_the_others_count(explain, volume, capsys):
    save("good.dcm", volume[5])
    pathlib.Path("d").mkdir()
    whole = pathlib.Path("good.dcm").read_bytes()
    write_volume("mri.nii.gz", volume)
    broken = {
        "d/cut.dcm": whole[:-300],
        "d/cut.nii.gz": pathlib.Path("mri.nii.gz").read_bytes()[:-100],
        "d/empty.dcm": b"",
        "d/photo.nii.gz": b"\x89PNG\r\n\x1a\n",
        "d/text.mp4": b"no video",
        "d/text.tif": b"no scene",
        "d/volume.dcm": pathlib.Path("mri.nii.gz").read_bytes(),
    }
    for path, content in broken.items():
        pathlib.Path(path).write_bytes(content)
    np.save("d/python.npy", np.array([{}]), allow_pickle=True)
    np.save("d/nan.npy", np.full((SIDE, SIDE), np.nan, "float32"))
    names = [*sorted(broken), "d/nan.npy", "d/python.npy"]
    assert explain("grey", "d", "d/nan.npy", "d/python.npy", "good.dcm", "--target", "0") == 1
    rows = read_rows()
    assert [row["file"] for row in rows] == [*names, "good.dcm"]
    assert "error" not in rows[-1]
    library = ("Error", "Traceback", "0x", "nibabel", "pydicom.", "rasterio", "struct.")
    for row in rows[:-1]:
        assert row["error"].count(" ") > 4, row
        assert not any(word in row["error"] for word in library), row
        assert PATIENT not in row["error"]
    assert capsys.readouterr().err.count("error: ") == len(names)


def test_an_encrypted_file_is_said_to_be_one(explain, capsys):
    # The standard's own way: the attributes are there, encrypted, and the pixels are not.
    save("ct.dcm", np.zeros((SIDE, SIDE), "int16"), PixelData=None)
    pathlib.Path("sealed.dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    assert explain("grey", "ct.dcm", "sealed.dcm") == 1
    no_pixels, sealed = (row["error"] for row in read_rows())
    assert "pixel" in no_pixels
    assert "encrypted" in sealed


def test_an_interrupt_loses_no_scan_that_was_explained(explain, volume, monkeypatch, capsys):
    for name in ("a", "b"):
        write_volume(f"{name}.nii.gz", volume)
    explain_scan = scans.explain_scan
    explained = threading.Event()

    def interrupt(*arguments):
        if explained.is_set():
            raise KeyboardInterrupt
        explained.set()
        return explain_scan(*arguments)

    monkeypatch.setattr("tf_gradcam._run.run.explain_scan", interrupt)
    assert explain("grey", "a.nii.gz", "b.nii.gz", "--target", "0") not in (0, 1)
    (row,) = json.loads(pathlib.Path("gradcam", "explanations-unfinished.json").read_text())
    assert (row["file"], row["peak"]) == ("a.nii.gz", [5, 20, 9])
    monkeypatch.undo()
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))
    capsys.readouterr()


def test_every_signature_is_checked_with_a_scan(served, capsys):
    shutil.copy(shipped("CT_small.dcm"), "ct.dcm")
    code = main(["serve-check", str(served), "ct.dcm", "--out", "out"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "gradcam_bytes" in said.out
    assert files("out") == {"ct-served.png"}


def test_the_shipped_ct_keeps_its_units_and_its_patient_to_itself(explain):
    shutil.copy(shipped("CT_small.dcm"), "ct.dcm")
    assert explain("grey", "ct.dcm", "--target", "lesion", "--window", "40,400") == 0
    assert files("gradcam") == {
        ".explanations.jsonl",
        "ct-heatmap.dcm",
        "ct-heatmap.png",
        "ct-overlay.dcm",
        "ct-overlay.png",
        "explanations.json",
    }
    for name in files("gradcam"):
        if not name.endswith(".dcm"):
            assert PATIENT.encode() not in pathlib.Path("gradcam", name).read_bytes()
