"""A saved sub-model loads in any process that imports tf_gradcam; in others the error says what to import."""

import os
import subprocess
import sys

import keras
import pytest
from conftest import build

from tf_gradcam import build_submodel

KERAS = tuple(map(int, keras.version().split(".")[:2]))

pytestmark = pytest.mark.slow  # Each test starts a process that loads TensorFlow.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "submodel.keras"
    build_submodel(build("functional"), "conv2").save(path)
    return path


def load(path, imports):
    code = f"{imports}\nmodel = load_model({str(path)!r})\nprint(type(model.layers[-1]).__name__)\n"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("import tf_gradcam\nfrom keras.models import load_model", marks=pytest.mark.full),
        "from keras.models import load_model\nimport tf_gradcam",
        "import tf_gradcam\nimport tensorflow as tf\nload_model = tf.keras.models.load_model",
    ],
    ids=["before Keras", "after Keras", "before TensorFlow"],
)
def test_a_submodel_loads_where_the_library_was_imported(saved, imports):
    done = load(saved, imports)
    assert done.stdout == "Probe\n", done.stderr


@pytest.mark.skipif(KERAS < (3, 12), reason="this Keras imports whatever module a file names")
def test_without_the_library_the_error_says_what_to_import(saved):
    done = load(saved, "from keras.models import load_model")
    assert done.returncode == 1
    assert "Could not locate class 'Probe'" in done.stderr
    assert "'to_load': 'import tf_gradcam before keras.models.load_model'" in done.stderr


def test_importing_the_library_changes_nothing_for_who_has_no_keras():
    code = "import sys; sys.modules['keras'] = None; import tf_gradcam; print(tf_gradcam.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
