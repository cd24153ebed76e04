"""One small network in four costumes, with the same weights, and the real one."""

import functools
import gc
import inspect
import os
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker per core, so one thread per worker
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf

# A graph is many objects that stay: to look for garbage at every 700 new ones takes 5 % of the time.
gc.set_threshold(10_000, 10, 10)

SIDE, CLASSES = 17, 5
KINDS = ["functional", "nested", "sequential", "subclassed"]


def parts():
    return [
        keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv1"),
        keras.layers.Conv2D(6, 3, padding="same", name="conv2"),
        keras.layers.ReLU(name="relu2"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(CLASSES, activation="softmax", name="scores"),
    ]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.relu2, self.pool, self.scores = parts()

    def call(self, images):
        return self.scores(self.pool(self.relu2(self.conv2(self.conv1(images)))))


def chain(x, layers):
    for layer in layers:
        x = layer(x)
    return x


def build(kind):
    """Build the network as `kind`, with weights that depend on nothing."""
    images = keras.Input((SIDE, SIDE, 3))
    if kind == "functional":
        model = keras.Model(images, chain(images, parts()))
    elif kind == "nested":
        *features, pool, scores = parts()
        inner = keras.Model(images, chain(images, features), name="inner")
        outer = keras.Input((SIDE, SIDE, 3))
        model = keras.Model(outer, chain(outer, [inner, pool, scores]))
    elif kind == "sequential":
        model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *parts()])
    else:
        model = Subclassed()
        model(np.zeros((1, SIDE, SIDE, 3), "float32"))
    random = np.random.default_rng(7)
    model.set_weights([random.normal(scale=0.5, size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def head(*after, activation=None):
    """A model that ends in 3 units and then `after`."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIDE, SIDE, 3))
    x = chain(images, [*parts()[:-1], keras.layers.Dense(3, activation=activation, name="units"), *after])
    return keras.Model(images, x)


class Reused(keras.Model):
    """The usual style: one ReLU for all."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.relu, self.pool, self.scores = parts()

    def call(self, images):
        return self.scores(self.pool(self.relu(self.conv2(self.relu(self.conv1(images))))))


def reused(kind, images):
    model = Reused()
    model(images)
    if kind == "subclassed":
        return model
    inputs = keras.Input((SIDE, SIDE, 3))
    return keras.Model(inputs, model.call(inputs))


def count_runs(model, layer="pool"):
    """Return a list that grows by one each time the Python of that layer of `model` is run."""
    runs, layer = [], model.get_layer(layer)
    call = layer.call
    object.__setattr__(layer, "call", lambda *args, **kwargs: (runs.append(1), call(*args, **kwargs))[1])
    return runs


@pytest.hookimpl(tryfirst=True)  # before the choice of `-m`
def pytest_collection_modifyitems(items):
    """Mark as `full` the parameters for which `kept` of `@pytest.mark.product(kept=...)` is false."""
    for item in items:
        for product in item.iter_markers("product"):
            kept = product.kwargs["kept"]
            values = [item.callspec.params[name] for name in inspect.signature(kept).parameters]
            if not kept(*values):
                item.add_marker(pytest.mark.full)


def pytest_collection_finish():
    """Let the garbage collector skip what was imported and the tests themselves: they stay."""
    gc.collect()
    gc.freeze()


# Nested and sequential models are read as a graph, as the functional one is: test_zoo.py has all maps.
@pytest.fixture(
    params=[
        "functional",
        "subclassed",
        *(pytest.param(kind, marks=pytest.mark.full) for kind in ("nested", "sequential")),
    ]
)
def model(request):
    """The small network, written in each way."""
    return build(request.param)


@pytest.fixture
def functional():
    return build("functional")


@pytest.fixture(scope="session")
def unchanged():
    """The functional network, shared by tests that don't change it, so that they share its traces."""
    return build("functional")


@pytest.fixture
def reweighted(unchanged):
    """The shared network, for a test that sets other weights: they are reset after the test."""
    weights = unchanged.get_weights()
    yield unchanged
    unchanged.set_weights(weights)


@pytest.fixture(scope="session")
def images():
    """Three images `(3, 17, 17, 3)`, float32."""
    return np.random.default_rng(1).normal(size=(3, SIDE, SIDE, 3)).astype("float32")


def preprocess(photographs):
    """Return photographs, uint8, as the small network takes them."""
    return tf.cast(photographs, tf.float32) / 50 - 2.5


@pytest.fixture(scope="session")
def photographs():
    """Three photographs `(3, 17, 17, 3)`, uint8."""
    return np.random.default_rng(2).integers(0, 256, (3, SIDE, SIDE, 3), dtype="uint8")


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The small network with its Grad-CAM, by every signature, in a folder as TensorFlow Serving wants it."""
    from tf_gradcam import export_gradcam

    folder = tmp_path_factory.mktemp("models") / "cat"
    labels = [f"class {index}" for index in range(CLASSES)]
    export_gradcam(build("functional"), folder, preprocess=preprocess, labels=labels, top_k=2)
    return folder


@pytest.fixture(scope="session")
def exported_file(tmp_path_factory):
    """A function of a suffix to the file of the small network's Grad-CAM at conv1, written once."""
    from tf_gradcam import GradCAM, export_gradcam

    formats = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}
    cam = GradCAM(build("functional"), "conv1")

    @functools.cache
    def exported_file(suffix):
        path = tmp_path_factory.mktemp("Dateien für später") / f"small{suffix}"
        return export_gradcam(cam, path, format=formats[suffix])

    return exported_file


@pytest.fixture(scope="session")
def lite0():
    from tf_gradcam import pretrained

    return pretrained.efficientnet_lite0()


@pytest.fixture
def default_signals():
    """Signals as a shell leaves them to a command, even where the tests run in the background."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """A terminal-free run in an empty folder, in which our own model files may be loaded by any Keras."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))
