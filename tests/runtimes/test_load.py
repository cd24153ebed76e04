"""Exported files as explainers: the answers of `GradCAM`, its checks and words, and files that are none."""

import concurrent.futures
import json
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from conftest import CLASSES, SIDE, build, preprocess

import tf_gradcam
from tf_gradcam import GradCAM, export_gradcam, load, targets

L = keras.layers
FORMATS = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}
SUFFIXES = [".tflite", ".onnx", pytest.param(".xml", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def cam():
    return GradCAM(build("functional"), "conv1")


@pytest.fixture(scope="module")
def many():
    """17 images `(17, 17, 17, 3)`."""
    return np.random.default_rng(3).normal(size=(17, SIDE, SIDE, 3)).astype("float32")


@pytest.fixture(scope="module")
def small(exported_file):
    """The small network's Grad-CAM at conv1, as ONNX Runtime runs it."""
    return load(exported_file(".onnx"))


def assert_same(found, expected, position=slice(None)):
    """Compare an explanation of a file with that of `GradCAM`."""
    assert isinstance(found, tf_gradcam.Explanation)
    for name in ("heatmap", "map", "score", "outputs"):
        values = getattr(found, name)
        assert type(values) is np.ndarray
        np.testing.assert_allclose(values, getattr(expected, name)[position], atol=1e-5)
    np.testing.assert_array_equal(found.target, expected.target[position])
    assert found.target.dtype == np.int32
    assert [each is found.heatmap for each in found.heatmaps] == [True]


# What it answers


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_called_as_the_explainer_is(suffix, cam, many, exported_file):
    expected = cam(many)
    for threads in (None, 1, 2):
        explainer = load(exported_file(suffix), threads=threads)
        for count in (1, 3, 17):
            assert_same(explainer(many[:count]), expected, slice(count))
        assert_same(explainer(many[0]), expected, slice(1))
    assert_same(explainer(many.astype("float64")), expected)
    assert_same(explainer(tf.constant(many)), expected)
    assert_same(explainer(many[:, ::-1].copy()[:, ::-1]), expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.product(kept=lambda suffix: suffix != ".xml")  # which names its inputs as the .onnx file does
def test_several_inputs_are_given_in_the_models_order_or_by_name(suffix, images, tmp_path):
    keras.utils.set_random_seed(0)
    # By the alphabet the table comes first.
    image, table = keras.Input((SIDE, SIDE, 3), name="photo"), keras.Input((4,), name="data")
    x = L.MaxPooling2D()(L.Conv2D(5, 3, activation="relu")(image))
    cam = GradCAM(keras.Model([image, table], L.Dense(3)(L.Concatenate()([L.Flatten()(x), table]))))
    numbers = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    path = export_gradcam(cam, tmp_path / f"two{suffix}", format=FORMATS[suffix])
    explainer, expected = load(path), cam([images, numbers])
    assert [spec.name for spec in explainer.inputs] == ["photo", "data"]
    for given in ([images, numbers], {"data": numbers, "photo": images}):
        np.testing.assert_allclose(explainer(given).heatmap, expected.heatmap, atol=1e-5)
    for wrong in (images, [images], {"photo": images, "date": numbers}):
        with pytest.raises(ValueError, match="`images` must hold what the model takes, 2 inputs"):
            explainer(wrong)


def test_several_inputs_without_an_order_are_given_by_name(images, tmp_path):
    keras.utils.set_random_seed(0)
    both = [keras.Input((SIDE, SIDE, 3), name=name) for name in ("zeta", "alpha")]  # of one shape
    maps = [L.GlobalAveragePooling2D()(L.Conv2D(5, 3, activation="relu")(each)) for each in both]
    model = keras.Model(both, L.Dense(3)(L.Concatenate()(maps)))
    cam, given = GradCAM(model, model.layers[2]), [images, images[:, ::-1].copy()]
    folder = export_gradcam(cam, tmp_path / "two")
    manifest = folder / "assets.extra" / "gradcam.json"
    notes = json.loads(manifest.read_text("utf-8"))
    assert notes["inputs"] == ["zeta", "alpha"]
    np.testing.assert_allclose(load(folder)(given).heatmap, cam(given).heatmap, atol=1e-5)
    manifest.write_text(json.dumps({**notes, "inputs": None}), "utf-8")
    explainer = load(folder)
    with pytest.raises(ValueError, match="`images` must be a dict by the names of the inputs"):
        explainer(given)
    by_name = dict(zip(("zeta", "alpha"), given, strict=True))
    np.testing.assert_allclose(explainer(by_name).heatmap, cam(given).heatmap, atol=1e-5)


@pytest.fixture(scope="module")
def of_pixels(tmp_path_factory):
    """A file that takes uint8 pixels and explains class 2 on the layer's grid, and its explainer."""
    cam = GradCAM(build("functional"), preprocess=preprocess)
    path = tmp_path_factory.mktemp("pixels") / "pixels.tflite"
    return cam, load(export_gradcam(cam, path, format="litert", target=2, size=None))


def test_pixels_of_any_dtype_are_taken_as_they_are(of_pixels, photographs):
    cam, explainer = of_pixels
    expected = cam(photographs, 2, size=None)
    for given in (photographs, photographs.astype("int64"), photographs.astype("float32")):
        assert_same(explainer(given), expected)
    with pytest.raises(ValueError, match="as the model takes uint8: from 0 to 255. Received: fractions"):
        explainer(photographs / 2)
    with pytest.raises(ValueError, match="Received: values from 200 to 455"):
        explainer(photographs.astype(int) * 0 + np.linspace(200, 455, SIDE).round().astype(int)[:, None])


def test_only_what_it_was_exported_for_is_explained(of_pixels, photographs):
    _, explainer = of_pixels
    assert explainer(photographs, 2).target.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="`target` was fixed .* explains target=2. Received: target=1"):
        explainer(photographs, 1)
    for name, value in {"size": (20, 30), "interpolation": "bicubic", "signed": True}.items():
        with pytest.raises(ValueError, match=f"`{name}` was fixed when the file was exported"):
            explainer(photographs, **{name: value})
    with pytest.raises(ValueError, match=r"Leave it out: the signed map is `explanation.map`"):
        explainer(photographs, signed=True)
    with pytest.raises(TypeError, match="takes no argument `sise`"):
        explainer(photographs, sise=3)


def test_the_target_that_it_was_exported_for_may_be_said(images, tmp_path):
    target = targets.TopClasses(2)
    explainer = load(
        export_gradcam(build("functional"), tmp_path / "best.onnx", format="onnx", target=target)
    )
    found = explainer(images, targets.TopClasses(2))
    np.testing.assert_array_equal(found.heatmap, explainer(images).heatmap)
    with pytest.raises(ValueError, match="`target` was fixed"):
        explainer(images, targets.TopClasses(3))


def test_a_class_is_the_files_own_however_it_is_written(of_pixels, photographs, monkeypatch):
    explainer, count = of_pixels[1], len(photographs)
    expected = explainer(photographs).heatmap
    two = [2, targets.Class(2), np.int32(2), targets.Class(np.int64(2)), [2] * count, (2,) * count]
    two += [np.array(2), np.full(count, 2), targets.Class([2] * count), targets.Class(tf.constant(2))]
    for own in (two[0], two[1], two[2], two[3], np.array(2), np.array(2, "int32"), tf.constant(2)):
        monkeypatch.setitem(explainer.notes, "target", repr(own))
        for given in two:
            np.testing.assert_array_equal(explainer(photographs, given).heatmap, expected)
        assert explainer(photographs[:1], [2]).target.tolist() == [2]
        for given in (
            [2],
            [2, 2, 1],
            1,
            True,
            2.0,
            targets.Class(),
            targets.Class(1),
            targets.Value(2),
            [[2]],
        ):
            with pytest.raises(ValueError, match="`target` was fixed"):
                explainer(photographs, given)


def test_a_class_within_a_target_may_be_written_otherwise(of_pixels, photographs, monkeypatch):
    explainer, count = of_pixels[1], len(photographs)
    for own, given in [
        (targets.Probability(np.int64(3)), targets.Probability([3] * count)),
        (targets.Output("a", targets.Class(1)), targets.Output("a", 1)),
        (targets.Output(0, 1), targets.Output(0, targets.Class([1] * count))),
        (targets.Class(), targets.Class()),
    ]:
        monkeypatch.setitem(explainer.notes, "target", repr(own))
        assert explainer(photographs, given).target.tolist() == [2] * count
        with pytest.raises(ValueError, match="`target` was fixed"):
            explainer(photographs, targets.Output("b", 1))
    monkeypatch.setitem(explainer.notes, "target", None)
    assert len(explainer(photographs, targets.Class()).heatmap) == count


def test_it_says_what_it_is(small, of_pixels, exported_file):
    assert repr(small) == (
        f"LoadedExplainer({str(exported_file('.onnx'))!r}, format='onnx', threads=None, "
        "images=float32 (None, 17, 17, 3), layer=['conv1'], method='tf_gradcam.methods.gradcam', "
        "explains the predicted class)"
    )
    assert "images=uint8 (None, 17, 17, 3)" in repr(of_pixels[1])
    assert of_pixels[1].notes["preprocess"] == "conftest.preprocess"
    assert of_pixels[1].inputs == (("images", (None, SIDE, SIDE, 3), "uint8"),)


def test_several_layers_have_one_heatmap_and_no_map(images, tmp_path):
    cam = GradCAM(build("functional"), ["conv1", "conv2"], method="gradcam_plus_plus")
    found = load(export_gradcam(cam, tmp_path / "several.onnx", format="onnx"))(images)
    assert (found.map, found.heatmaps) == (None, ())
    np.testing.assert_allclose(found.heatmap, cam(images).heatmap, atol=1e-5)
    assert "map: None" in repr(found)


def test_pictures_are_drawn_of_it(small, images, photographs):
    found = small(images)
    assert tf_gradcam.overlay(photographs[0], found.heatmap[0]).shape == photographs[0].shape
    one = small(images[0])
    for options in ({}, {"signed": True}, {"vmax": 1.0}):
        assert one.overlay(photographs[0], **options).dtype == np.uint8
    assert repr(one) == repr(small(images[:1]))
    assert repr(one).splitlines()[1] == f"  heatmap: (1, {SIDE}, {SIDE}) from 0 to 1"
    assert tf_gradcam.boxes(found.heatmap[0])


def test_threads_call_it_at_the_same_time(cam, many, exported_file):
    expected = cam(many)
    for suffix in (".tflite", ".onnx"):
        explainer = load(exported_file(suffix), threads=1)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda position: explainer(many[position]), [*range(17)] * 3))  # noqa: B023
        for position, each in enumerate(found):
            assert_same(each, expected, slice(position % 17, position % 17 + 1))


def test_it_is_pickled_as_the_path_of_its_file(exported_file, images, monkeypatch, tmp_path):
    monkeypatch.chdir(exported_file(".onnx").parent)
    explainer = load("small.onnx", threads=2)
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(explainer)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert (copy.threads, copy.format) == (2, "onnx")
    np.testing.assert_array_equal(copy(images).heatmap, explainer(images).heatmap)


WITHOUT_TENSORFLOW = """
import sys
import numpy as np
import tf_gradcam
explainer = tf_gradcam.load(sys.argv[1], threads=1)
found = explainer(np.ones((3, 17, 17, 3), "float32"))
explainer(np.ones((17, 17, 3))).overlay(np.zeros((17, 17, 3), "uint8"))
print(found.heatmap.shape, repr(found)[:11], sorted({"keras", "tensorflow"} & set(sys.modules)))
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_tensorflow_is_imported(suffix, exported_file):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(exported_file(suffix))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "(3, 17, 17) Explanation []\n", done.stderr


# Images that are none


WRONG = [
    np.ones((16, 17, 3)),
    np.ones((3, 17, 17)),
    np.ones((2, 17, 17, 4)),
    np.ones((17, 17)),
    np.ones((0, 17, 17, 3)),
    np.ones((5, 17, 17)),
    np.ones((17, 17, 1)),
    np.ones((17, 17, 4)),
    (np.ones((2, 17, 17, 3)), np.ones(2)),
    ["a.jpg", "b.jpg"],
    np.full((17, 17, 3), np.nan),
    np.full((17, 17, 3), np.inf),
    np.ones((17, 17, 3), complex),
    np.full((17, 17, 3), "a"),
    [np.ones((17, 17, 3)), np.ones((16, 17, 3))],
    np.ma.masked_less(np.arange(17 * 17 * 3).reshape(17, 17, 3), 5),
    "cat.jpg",
    pathlib.Path("cat.dcm"),
    b"\xff\xd8",
    None,
    {},
    [],
]


@pytest.mark.parametrize(
    "wrong", WRONG, ids=lambda wrong: f"{type(wrong).__name__}-{getattr(wrong, 'shape', '')}"
)
def test_it_refuses_what_the_explainer_refuses_in_its_words(wrong, cam, small):
    with pytest.raises((TypeError, ValueError)) as expected:
        cam(wrong)
    with pytest.raises(type(expected.value)) as found:
        small(wrong)
    # A file has no other `preprocess` and no windows to advise, and its input has a name of its own.
    advice = "; or in `preprocess`. What is too large for that is explained by windows: GradCAM.sliding."
    told = str(expected.value).replace(advice, ".")
    assert str(found.value) == re.sub(r"keras_tensor\w* ", "images ", told)


# Files that are none


def refused(path, words, error=ValueError):
    with pytest.raises(error, match=words) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("`path` must ")


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
def test_a_file_of_another_kind_is_refused(suffix, tmp_path):
    path = tmp_path / f"text{suffix}"
    (tmp_path / "text.bin").write_bytes(b"")
    for content in (b"", b"a text, and no model\n" * 20, bytes(100), b"\xff" * 100, b"<net>", b"    TFL3"):
        path.write_bytes(content)
        refused(path, "`path` must be what tf_gradcam.export_gradcam wrote, whole. Received: path='.*text")


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_a_file_that_is_cut_short_is_refused(suffix, exported_file, tmp_path):
    whole = exported_file(suffix).read_bytes()
    path = tmp_path / f"short{suffix}"
    for share in (0.1, 0.5, 0.8):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, "it is cut short")
    for count in (1, 100):  # within the notes at the end
        path.write_bytes(whole[:-count])
        refused(path, "it is cut short" if suffix == ".tflite" else "whole")


@pytest.mark.slow
def test_openvino_needs_its_whole_weights_beside_it(exported_file, tmp_path):
    source = exported_file(".xml")
    path = shutil.copy(source, tmp_path)
    refused(path, "beside it, in 'small.bin'", FileNotFoundError)
    (tmp_path / "small.bin").write_bytes(source.with_suffix(".bin").read_bytes()[:100])
    refused(path, "those of another file, or damaged")


def test_numbers_in_another_file_are_refused(exported_file, tmp_path):
    model = onnx.load(exported_file(".onnx"))
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.data", size_threshold=0)
    path = tmp_path / "external.onnx"
    onnx.save(model, path)
    refused(path, "it refers to another file")
    # In a constant of a node, too, and where it leads out of the folder.
    tensor = onnx.TensorProto(name="x", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    node = onnx.helper.make_node("Constant", [], ["x"], value=tensor)
    graph = onnx.helper.make_graph([node], "g", [], [onnx.helper.make_tensor_value_info("x", 1, [4])])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    refused(path, "it refers to another file")


def test_operations_of_its_own_are_refused(exported_file, tmp_path):
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(exported_file(".tflite").read_bytes(), 0)
    model.operatorCodes[0].customCode = b"Flex"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "custom.tflite"
    path.write_bytes(bytes(builder.Output()))
    refused(path, "it has operations of its own, which are never loaded")
    node = onnx.helper.make_node("Strange", ["images"], ["heatmap"], domain="elsewhere")
    values = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in ("images", "heatmap")]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    path = tmp_path / "custom.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("elsewhere", 1)]), path)
    refused(path, "Strange")


def test_a_tensor_that_is_not_there_is_refused(exported_file, tmp_path):
    import flatbuffers

    for change in ("buffer", "opcode", "input"):
        model = schema.ModelT.InitFromPackedBuf(exported_file(".tflite").read_bytes(), 0)
        graph = model.subgraphs[0]
        if change == "buffer":
            graph.tensors[0].buffer = 10**6
        elif change == "opcode":
            graph.operators[0].opcodeIndex = 10**4
        else:
            graph.operators[0].inputs = np.array([10**6])
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / "damaged.tflite"
        path.write_bytes(bytes(builder.Output()))
        refused(path, "it is damaged")


def test_a_file_of_another_model_is_refused(tmp_path):
    values = [onnx.helper.make_tensor_value_info(name, 1, ["N", 3]) for name in ("x", "dense")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["dense"])], "g", *([v] for v in values)
    )
    path = tmp_path / "other.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path
    )
    refused(path, "it answers 'dense', and must answer")


@pytest.mark.parametrize("notes", [b"[1]", b"{", b"\xff", b"[" * 100_000, json.dumps({"inputs": 3}).encode()])
def test_notes_may_say_anything(notes, exported_file, images, tmp_path):
    model = onnx.load(exported_file(".onnx"))
    model.metadata_props[-1].value = notes.decode("latin1")
    path = tmp_path / "notes.onnx"
    onnx.save(model, path)
    explainer = load(path)
    assert explainer(images).heatmap.shape == (3, SIDE, SIDE)
    assert "explains what it was exported for" in repr(explainer)


def test_a_path_must_lead_to_a_file_or_folder(tmp_path, exported_file):
    refused(tmp_path / "nothing.onnx", "which doesn't exist", FileNotFoundError)
    (tmp_path / "model.pt").write_bytes(b"")
    refused(tmp_path / "model.pt", "which is none of these")
    refused(tmp_path / "m.keras", r"GradCAM\(keras.models.load_model", FileNotFoundError)
    refused("", "must be a file or folder")
    refused("a\0b.onnx", "must be a file or folder")
    refused(3, "must be a path", TypeError)
    refused(tmp_path, "it has no saved_model.pb")
    for threads in (0, -1, 1.5, True, "2", 10**6):
        with pytest.raises(ValueError, match="`threads` must be None or a whole number from 1 to 1024"):
            load(exported_file(".onnx"), threads)


@pytest.mark.parametrize(("suffix", "package"), [(".tflite", "ai_edge_litert"), (".onnx", "onnxruntime")])
def test_a_missing_runtime_is_named_with_its_extra(suffix, package, exported_file, monkeypatch):
    path = exported_file(suffix)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"tf_gradcam.{FORMATS[suffix]}"):
        load(path)


# SavedModels


@pytest.fixture(scope="module")
def of_savedmodel(served):
    return GradCAM(build("functional"), preprocess=preprocess), load(served)


def test_a_savedmodel_explains_any_class(of_savedmodel, photographs):
    cam, explainer = of_savedmodel
    assert explainer.format == "tensorflow"
    assert explainer.path.name == "1"
    assert_same(explainer(photographs), cam(photographs))
    assert_same(explainer(photographs[0]), cam(photographs), slice(1))
    assert_same(explainer(photographs, 3), cam(photographs, 3))
    assert_same(explainer(photographs, [0, 1, 4]), cam(photographs, [0, 1, 4]))
    assert_same(explainer(photographs, targets.Class([0, 1, 4])), cam(photographs, [0, 1, 4]))
    best = explainer(photographs, targets.TopClasses(2))
    assert_same(best, cam(photographs, targets.TopClasses(2)))
    assert best.heatmap.shape == (3, 2, SIDE, SIDE)
    assert explainer.notes["labels"][3] == "class 3"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (targets.TopClasses(3), r"the count .* exported with, 2. Received: target=TopClasses\(count=3\)"),
        (targets.Value(1), "`target` was fixed"),
        ([1, 2], "must be a class, or one for each of 3 images"),
        ([1.5, 2, 3], "must be a class, or one for each of 3 images"),
        (CLASSES, "must be a class from 0 to 4"),
        (2**32 + 1, "must be a class, or one for each of 3 images"),
        ([0, 1, -(2**32)], "must be a class, or one for each of 3 images"),
        (-1, "must be a class from 0 to 4"),
    ],
    ids=str,
)
def test_a_savedmodel_explains_no_other_target(target, words, of_savedmodel, photographs):
    with pytest.raises(ValueError, match=words):
        of_savedmodel[1](photographs, target)


def test_other_savedmodels_are_refused(tmp_path, served):
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "other"))
    refused(tmp_path / "other", "it has no assets.extra")
    damaged = shutil.copytree(served, tmp_path / "damaged")
    (damaged / "1" / "saved_model.pb").write_bytes(b"damaged")
    refused(damaged, "TensorFlow can't load it")
    with pytest.raises(ValueError, match="`images` must have a shape that the model .*Received: .1, 9, 9"):
        load(served)(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="`threads` must be None for a SavedModel"):
        load(served, threads=2)
