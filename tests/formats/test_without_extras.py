"""Without the optional libraries each format names its extra, and photographs are explained as always."""

import pathlib
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from tf_gradcam import formats

ROOT = pathlib.Path(__file__).parent.parent.parent
FIELDS = ("arrays", "dicom", "geo", "nifti", "scale", "slide", "video")
LIBRARIES = (
    *("av", "h5py", "highdicom", "nibabel", "openslide", "pyarrow", "pydicom", "pylibjpeg", "rasterio"),
    *("tifffile", "tiffslide", "zarr"),
)
UNNEEDED = set(LIBRARIES) - {"h5py"}  # Keras itself needs h5py
WITHOUT = f"""
import sys
import tf_gradcam

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {UNNEEDED}:
            raise ModuleNotFoundError(f"{{name}} was imported")

sys.meta_path.insert(0, Missing())
from tf_gradcam import formats
from tf_gradcam._cli import main

try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
import keras
import numpy as np

layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()]
keras.Sequential([*layers, keras.layers.Dense(2)]).save("model.keras")
import cv2

cv2.imwrite("photo.jpg", np.zeros((20, 30, 3), np.uint8))
assert not main(["explain", "photo.jpg", "--model", "model.keras", "--out", "out"])
assert not {UNNEEDED} & set(sys.modules)
"""


@pytest.fixture(autouse=True)
def without(monkeypatch):
    for name in LIBRARIES:
        for loaded in [each for each in sys.modules if each.startswith(f"{name}.")]:
            monkeypatch.setitem(sys.modules, loaded, None)
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def slice_with_a_place(tmp_path):
    affine = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    return formats.Scan(
        values=np.zeros((4, 4, 1)),
        axes="yx",
        format="NIfTI",
        path=tmp_path / "a.nii",
        affine=affine,
        space="RAS mm",
    )


@pytest.mark.parametrize(
    ("ending", "extra"),
    [
        *((".dcm", "dicom"), (".nii", "nifti"), (".mgh", "nifti"), (".tif", "geo"), (".mp4", "video")),
        *((".avi", "video"), (".svs", "slide"), (".h5", "arrays"), (".zarr", "arrays")),
    ],
)
def test_reading_names_the_extra(tmp_path, ending, extra):
    (tmp_path / f"a{ending}").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(ImportError, match=rf'for the extra `{extra}`.*pip install "tf_gradcam\[{extra}\]"'):
        formats.read(tmp_path / f"a{ending}")


@pytest.mark.parametrize(("ending", "extra"), [(".nii.gz", "nifti"), (".tif", "geo"), (".parquet", "scale")])
def test_writing_names_the_extra(tmp_path, slice_with_a_place, ending, extra):
    with pytest.raises(ImportError, match=rf'for the extra `{extra}`.*pip install "tf_gradcam\[{extra}\]"'):
        formats.write(tmp_path / f"a{ending}", slice_with_a_place, np.ones((2, 2)))
    assert list(tmp_path.iterdir()) == []


def test_writing_a_video_names_the_extra(tmp_path):
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    clip = formats.Scan(
        values=frames, axes="tyx", format="NumPy", path=tmp_path / "a.npy", times=np.array([0, 1.0])
    )
    with pytest.raises(ImportError, match=r'pip install "tf_gradcam\[video\]"'):
        formats.write_pictures(tmp_path / "a.mp4", clip, frames)


def test_arrays_of_numpy_need_no_extra(tmp_path, slice_with_a_place):
    formats.write(tmp_path / "a.npy", slice_with_a_place, np.ones((2, 2)))
    formats.write(tmp_path / "a.npz", slice_with_a_place, np.ones((2, 2)))
    assert formats.read(tmp_path / "a.npy").shape == (2, 2, 1)
    assert formats.read(tmp_path / "a.npz", name="heatmap").shape == (2, 2, 1)


def test_every_extra_of_a_field_is_named_by_some_module():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    sources = [path.read_text("utf-8") for path in (ROOT / "tf_gradcam").rglob("*.py")]
    for extra in FIELDS:
        assert extra in extras
        assert any("require(" in source and f'"{extra}")' in source for source in sources)


def test_a_photograph_is_explained_without_any_of_them(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usage" in done.stdout
    assert (tmp_path / "out" / "explanations.json").exists()
