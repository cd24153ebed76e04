"""The examples of docs/fields.md, docs/sliding.md and the pages of fields without a test of their own run."""

import pathlib
import re
import shlex
import shutil
import sys

import keras
import nibabel
import numpy as np
import pytest
from dicom_files import save_series, shipped
from matplotlib import pyplot
from photo_files import read_rows

from tf_gradcam import pretrained
from tf_gradcam._cli import main

DOCS = pathlib.Path(__file__).parent.parent / "docs"
av = pytest.importorskip("av", reason="PyAV is not installed")
rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))


def blocks(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def network(shape, classes=2, **options):
    """Return a network whose convolution is called `conv5`."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    conv, pool = (
        (layers.Conv2D, layers.GlobalAveragePooling2D)
        if len(shape) == 3
        else (layers.Conv3D, layers.GlobalAveragePooling3D)
    )
    inside = [conv(4, 3, strides=4, padding="same", name="conv5"), pool()]
    return keras.Sequential([keras.Input(shape), *inside, layers.Dense(classes, activation="softmax")])


def write_clip(path, count=5):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            frame = np.full((48, 64, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))


def write_scene(path):
    profile = {"driver": "GTiff", "count": 4, "height": 40, "width": 48, "dtype": "uint16"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", photometric="minisblack", **profile, **place) as file:
        file.write(np.random.default_rng(0).integers(0, 3000, (4, 40, 48)).astype("uint16"))


def shown_lines(code, out):
    """Assert that what `print(scan)` printed is what the comments beside it say."""
    for said in re.findall(r"print\(scan\)  # (.*)", code):
        start, _, _ = said.partition("...")
        assert any(line.startswith(start) for line in out.splitlines()), (said, out)


def test_the_python_of_the_page_of_all_fields_runs(capsys):
    shutil.copy(shipped("CT_small.dcm"), "ct.dcm")
    (code,) = blocks("fields.md")
    exec(code, {"model": network((128, 128, 1)), "preprocess": lambda images: images / 1000})
    pyplot.close("all")
    shown_lines(code, capsys.readouterr().out)
    assert pathlib.Path("ct-heatmap.dcm").is_file()


def test_the_commands_of_the_page_of_all_fields_run():
    shutil.copy(shipped("CT_small.dcm"), "scan.dcm")
    write_clip("clip.mp4")
    write_scene("tile.tif")
    write_scene("scene.tif")
    volume = np.random.default_rng(0).integers(0, 100, (6, 20, 24)).astype("int16")
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), "volume.nii.gz")
    save_series(pathlib.Path("series"), volume)
    pathlib.Path("l.txt").write_text("nodule\nnothing\n")
    models = {"m": network((32, 32, 3)), "nodules3d": network((4, 16, 16, 1))}
    for name, model in {**models, "landcover": network((32, 32, 4), classes=5)}.items():
        model.save(f"{name}.keras")
    (commands,) = blocks("fields.md", "bash")
    commands = commands.strip().splitlines()
    rows = []
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "tf-gradcam"
        assert main(arguments) == 0, command
        out = arguments[arguments.index("--out") + 1] if "--out" in arguments else "gradcam"
        rows += read_rows(out)
        shutil.rmtree(out)
    assert [row["file"] for row in rows[4:]] == ["scene.tif", "series/"]
    assert [row["map"].partition(".")[2] for row in rows] == ["dcm", "tif", "npy", "nii.gz", "tif", "dcm"]


@pytest.mark.parametrize("page", ["sliding.md", "fields/geotiff.md", "fields/slides.md", "fields/video.md"])
def test_the_python_of_a_page_runs_as_it_stands(page, monkeypatch, capsys):
    if page == "fields/slides.md":
        pytest.importorskip("openslide", reason="OpenSlide is not installed")
    write_clip("clip.mp4")
    monkeypatch.setattr(pretrained, "efficientnet_lite0", lambda: network((224, 224, 3), classes=1000))
    code = "".join(blocks(page))
    exec(compile(code, page, "exec"), {})
    shown_lines(code, capsys.readouterr().out)
