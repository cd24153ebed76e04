"""A model server's client: every response is read, little of it believed, and no TensorFlow is needed."""

import base64
import contextlib
import io
import json
import pathlib
import struct
import subprocess
import sys
import types
import zlib

import numpy as np
import PIL.Image
import pytest
import skimage.data
import tensorflow as tf
from conftest import build
from oracle import Oracle

import tf_gradcam
from tf_gradcam import GradCAM, serving
from tf_gradcam._heatmap import to_heatmap

# One image, a grid of 1 x 2, two channels, by hand: the gradients' means are 2 and -1, so the map is
# 2 * 1 - 1 * 0 = 2 and 2 * 3 - 1 * 2 = 4: as a heatmap 0.5 and 1.
ACTIVATIONS = [[[[1.0, 0.0], [3.0, 2.0]]]]
GRADIENTS = [[[[1.0, -3.0], [3.0, 1.0]]]]
SOURCES = pathlib.Path(serving.__file__).parents[2]
GREY = np.full((2, 4, 3), 100, np.uint8)
DTYPES = ["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]
DTYPES += ["uint64", "bool", "complex64", "complex128", "bfloat16"]


def png(pixels, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG", **options)
    return file.getvalue()


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def proto(**outputs):
    """A gRPC response, as far as it is read; the outputs are TensorFlow's own protos."""
    tensors = {
        name: value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
        for name, value in outputs.items()
    }
    return types.SimpleNamespace(outputs=tensors)


def tensor(dtype="DT_FLOAT", shape=(), **fields):
    made = type(tf.make_tensor_proto(0.0))(dtype=dtype, **fields)
    for length in shape:
        made.tensor_shape.dim.add(size=length)
    return made


# answers: REST


@pytest.mark.parametrize("form", [dict, json.dumps, lambda reply: json.dumps(reply).encode()])
@pytest.mark.parametrize(
    "reply",
    [
        {
            "predictions": [
                {"class": 3, "label": "cat", "heatmap": [[0.0, 1.0]], "heatmap_png_bytes": b64(b"\0a")},
                {"class": 5, "label": "dög", "heatmap": [[1, 0.5]], "heatmap_png_bytes": b64(b"b")},
            ]
        },
        {
            "outputs": {
                "class": [3, 5],
                "label": ["cat", "dög"],
                "heatmap": [[[0.0, 1.0]], [[1, 0.5]]],
                "heatmap_png_bytes": [b64(b"\0a"), b64(b"b")],
            }
        },
    ],
    ids=["rows", "columns"],
)
def test_rest_answers_the_same_in_rows_and_columns_as_text_bytes_and_dict(form, reply):
    named = serving.answers(form(reply))
    assert {name: values.dtype.kind for name, values in named.items()} == {
        "class": "i",
        "label": "O",
        "heatmap": "f",
        "heatmap_png_bytes": "O",
    }
    assert named["class"].tolist() == [3, 5]
    assert named["label"].tolist() == ["cat", "dög"]
    assert named["heatmap"].tolist() == [[[0, 1]], [[1, 0.5]]]
    assert named["heatmap_png_bytes"].tolist() == [b"\0a", b"b"]


@pytest.mark.parametrize("key", ["predictions", "outputs"])
@pytest.mark.parametrize(
    ("values", "expected"), [([[1, 2], [3, 4]], [[1, 2], [3, 4]]), ([b64(b"a")], ["a"]), ([], [])]
)
def test_an_output_that_is_alone_has_no_name(key, values, expected):
    (name,) = named = serving.answers({key: values})
    assert name == "output"
    assert named[name].tolist() == expected


@pytest.mark.parametrize("key", ["predictions", "outputs", "error"])
def test_answers_may_be_given_again_whatever_the_models_outputs_are_called(key):
    named = {key: np.ones((1, 2)), "map": np.ones((1, 2, 2))}
    again = serving.answers(named)
    assert list(again) == [key, "map"]
    assert again[key] is named[key]


def test_a_signature_that_was_loaded_in_python_answers_too():
    tensors = {
        "label": tf.constant(["cat"]),
        "class": tf.constant([3]),
        "heatmap_png_bytes": tf.constant([b"\xff"]),
    }
    named = serving.answers(tensors)
    assert {name: values.tolist() for name, values in named.items()} == {
        "label": ["cat"],
        "class": [3],
        "heatmap_png_bytes": [b"\xff"],
    }


@pytest.mark.parametrize("form", [dict, json.dumps])
@pytest.mark.parametrize("sentence", ["Servable not found for request: Latest(cat)", {"code": 404}])
def test_the_servers_error_is_quoted(form, sentence):
    with pytest.raises(ValueError, match="The server answered with an error: .*(cat|404)"):
        serving.answers(form({"error": sentence}))


@pytest.mark.parametrize(
    "text", ["", "<html>502 Bad Gateway</html>", b"\xff\xfe\xfd", '{"predictions": [[0.5,', "[" * 10**6]
)
def test_what_is_no_json_is_shown(text):
    with pytest.raises(ValueError, match=f"`response` must be JSON: .*Received: {len(text)} characters"):
        serving.answers(text)


@pytest.mark.parametrize("response", [None, 3, [1, 2], "[1, 2]", "3", types.SimpleNamespace(outputs=3)])
def test_what_is_no_response_is_a_type_error(response):
    with pytest.raises(TypeError, match="`response` must be REST's JSON .*Received: .*of type"):
        serving.answers(response)


@pytest.mark.parametrize(
    "outputs",
    [
        [[1, 2], [3]],
        [[[1, 2], [3, 4]], [[5, 6], 7]],
        [[1.0, None]],
        [1, "a"],
        [10**30],
        [10**400, 0.5],
        {"a": {"deeper": 1}},
        {"a": [b64(b"a"), "b"]},
        {"a": [{"b64": "Y!Q=="}]},
        {"a": [{"b64": "YQ"}]},
        {"a": [{"b64": 3}]},
        {"a": [{"b64": "YQ==", "more": 1}]},
        json.loads("[" * 100 + "]" * 100),
        json.loads("[" * 100 + "1" + "]" * 100),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_output_that_is_no_array_is_refused_by_name(outputs):
    with pytest.raises(
        ValueError, match="Output '(a|output)' of `response` (must be an array|can't be read)"
    ):
        serving.answers(json.dumps({"outputs": outputs}))


@pytest.mark.parametrize(
    ("values", "received"),
    [
        ([[1, 2], [3]], "type list in the shape .2,.. Lists at the same depth differ in length"),
        ([1, "a"], "type int, str in the shape .2,..$"),
    ],
)
def test_an_output_that_is_no_array_says_what_is_in_it(values, received):
    with pytest.raises(ValueError, match=f"Received: values of {received}"):
        serving.answers({"outputs": values})


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"a": 1}, "must be a list of one row for each image"),
        (3, "must be a list of one row for each image"),
        ([{"a": 1}, {"b": 1}], "must have the same outputs in every row"),
        ([{"a": 1}, 1], "must have the same outputs in every row"),
        ([1, {"a": 1}], "must have the same outputs in every row"),
    ],
)
def test_rows_that_differ_are_refused(rows, sentence):
    with pytest.raises(ValueError, match=f"`predictions` {sentence}"):
        serving.answers({"predictions": rows})


def test_strings_of_many_lengths_take_no_more_room_than_they_are_long():
    # As an array of NumPy's own strings these would take 40 GB.
    labels = ["a" * 10**6] + ["b"] * 10**4
    assert serving.answers({"outputs": {"label": labels}})["label"].tolist() == labels


# answers: gRPC


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("written", ["as values", "as bytes"])
def test_every_dtype_is_read_whichever_way_it_was_written(dtype, shape, written):
    numbers = np.resize([0, 1, 3, 100, 7, 1], shape)
    values = tf.cast(tf.constant(numbers), dtype)
    if written == "as bytes":  # as C++ writes it
        made = tensor().FromString(tf.io.serialize_tensor(values).numpy())
    else:
        made = tf.make_tensor_proto(values.numpy(), dtype=dtype)
        made.tensor_content = b""
        field = FIELDS.get(dtype, "int_val")
        bits = values.numpy().ravel().view(BITS.get(dtype, values.numpy().dtype))
        del getattr(made, field)[:]
        getattr(made, field).extend(bits.tolist())
    (answer,) = serving.answers(proto(given=made)).values()
    assert answer.shape == shape
    assert answer.dtype == ("float32" if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(answer, tf.cast(values, answer.dtype))


FIELDS = {"float32": "float_val", "float64": "double_val", "float16": "half_val", "bfloat16": "half_val"}
FIELDS |= {"int64": "int64_val", "uint32": "uint32_val", "uint64": "uint64_val", "bool": "bool_val"}
FIELDS |= {"complex64": "scomplex_val", "complex128": "dcomplex_val"}
BITS = {"float16": "uint16", "bfloat16": "uint16", "complex64": "float32", "complex128": "float64"}


def test_one_value_stands_for_all_and_takes_no_room():
    named = serving.answers(proto(given=tf.make_tensor_proto(0.5, shape=(2, 1000, 1000))))
    assert named["given"].shape == (2, 1000, 1000)
    assert (named["given"] == 0.5).all()
    assert named["given"].strides == (0, 0, 0)


@pytest.mark.parametrize("lengths", [[], [0], [3, 0, 5], [127, 128, 300, 70_000]])
def test_strings_are_read_whichever_way_they_were_written(lengths):
    strings = [bytes([65 + index]) * length for index, length in enumerate(lengths)]
    made = tensor("DT_STRING", [len(strings)])
    made.tensor_content = b"".join([*map(varint, lengths), *strings])
    serialized = made.SerializeToString()
    assert tf.io.parse_tensor(serialized, tf.string).numpy().tolist() == strings  # TensorFlow agrees
    for given in (made, tf.make_tensor_proto(np.array(strings, object), tf.string)):
        named = serving.answers(proto(label=given, png_bytes=given))
        assert named["png_bytes"].tolist() == strings
        assert named["label"].tolist() == [string.decode() for string in strings]


def varint(number):
    groups = [number >> 7 * place & 127 for place in range(max(1, (number.bit_length() + 6) // 7))]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def test_a_label_that_is_no_utf_8_is_still_text():
    assert serving.answers(proto(label=tf.make_tensor_proto([b"caf\xe9"])))["label"].tolist() == ["caf\ufffd"]


@pytest.mark.parametrize(
    "bad",
    [
        tensor(shape=[-1], float_val=[1]),
        tensor(shape=[-1, -1], float_val=[1]),
        tensor(shape=[-2, -3], float_val=[1] * 6),
        tensor(shape=[2, 3], float_val=[1] * 5),
        tensor(shape=[2, 3], float_val=[1] * 7),
        tensor(shape=[2]),
        tensor(shape=[2**62, 2**62], float_val=[1]),
        tensor(shape=[60_000, 60_000], float_val=[1]),
        tensor(shape=[1] * 70, float_val=[1]),
        tensor(shape=[2], tensor_content=b"\0" * 7),
        tensor(shape=[2], tensor_content=b"\0" * 12),
        tensor("DT_UINT8", [1], int_val=[256]),
        tensor("DT_HALF", [1], half_val=[-1]),
        tensor("DT_INVALID", [1]),
        tensor("DT_QINT8", [1], int_val=[1]),
        tensor("DT_VARIANT", [1]),
        tensor("DT_STRING", [2], string_val=[b"a"]),
        tensor("DT_STRING", [2**40], tensor_content=b"\0" * 9),
        tensor("DT_STRING", [1], tensor_content=b"\x05abc"),
        tensor("DT_STRING", [1], tensor_content=b"\x01abc"),
        tensor("DT_STRING", [1], tensor_content=b"\xff" * 9),
    ],
    ids=lambda bad: " ".join(str(bad).split())[-60:],
)
def test_a_tensor_that_contradicts_itself_is_refused_by_name(bad):
    with pytest.raises(ValueError, match="Output 'scores' of `response` can't be read: "):
        serving.answers(proto(scores=bad))


def test_an_unknown_rank_is_no_scalar():
    unknown = tensor(float_val=[1])
    unknown.tensor_shape.unknown_rank = True
    with pytest.raises(ValueError, match="its shape is not known"):
        serving.answers(proto(scores=unknown))


# heatmap


@pytest.mark.parametrize(
    "named",
    [
        {"heatmap": [[[0.5, 1.0]]]},
        {"heatmap": [[[[0.5, 1.0]]]]},
        {"map": [[[3.0, 6.0]]]},
        {"activations": ACTIVATIONS, "gradients": GRADIENTS},
        {"heatmap": [[[0.5, 1.0]]], "map": [[[1.0, 0.0]]]},
    ],
    ids=["heatmap", "K heatmaps", "map", "activations and gradients", "heatmap before map"],
)
def test_a_heatmap_is_made_of_whatever_the_server_gives(named):
    arrays = {name: np.float32(values) for name, values in named.items()}
    for response in (
        {"outputs": named},
        {"predictions": [{n: v[0] for n, v in named.items()}]},
        proto(**arrays),
    ):
        heatmap = serving.heatmap(response)
        assert heatmap.dtype == np.float32
        np.testing.assert_allclose(heatmap, [[0.5, 1]], atol=1e-7)


@pytest.mark.parametrize("key", ["outputs", "predictions"])
def test_an_output_that_is_alone_is_a_map(key):
    np.testing.assert_array_equal(serving.heatmap({key: [[[-3.0, 2.0, 4.0]]]}), [[0, 0.5, 1]])


def test_an_8_bit_heatmap_is_255_where_it_is_1():
    data = png([[0, 51, 255]])
    for response in (
        {"outputs": {"class": [3], "heatmap_png_bytes": [b64(data)]}},
        {"predictions": [{"class": 3, "heatmap_png_bytes": b64(data)}]},
        proto(heatmap_png_bytes=tf.make_tensor_proto([data])),
    ):
        np.testing.assert_allclose(serving.heatmap(response), [[0, 0.2, 1]], atol=1e-7)


def test_the_signed_map_is_cut_then_resized_then_divided():
    # Resized first, -2 would pull the second pixel to 2 * 0.75 - 2 * 0.25 = 1; cut first, it is 1.5 of 2.
    heatmap = serving.heatmap({"map": [[[2.0, -2.0]]]}, (1, 4))
    np.testing.assert_allclose(heatmap, [[1, 0.75, 0.25, 0]], atol=1e-7)
    # Divided last: at half the size the only pixel is the mean, and the maximum.
    np.testing.assert_allclose(serving.heatmap({"map": [[[2.0, 0.0]]]}, (1, 1)), [[1]])


def test_a_finished_heatmap_is_resized_and_not_divided():
    np.testing.assert_allclose(serving.heatmap({"heatmap": [[[0.0, 1.0]]]}, (1, 1)), [[0.5]])


@pytest.mark.parametrize("values", [[[0.0, 0.0]], [[-1.0, -2.0]]])
def test_no_evidence_is_0_and_not_0_by_0(values):
    np.testing.assert_array_equal(serving.heatmap({"map": [values]}, (2, 3)), np.zeros((2, 3)))


@pytest.fixture(scope="module")
def network():
    return build("functional")


@pytest.fixture(scope="module", params=["conv1", "conv2"])
def cam(network, request):
    """An explainer of each layer, traced once for all sizes."""
    return GradCAM(network, request.param)


@pytest.mark.parametrize("size", [None, (17, 17), (1, 1), (3, 2), (5, 31), (16, 4), (33, 1), (301, 199)])
def test_it_agrees_with_the_explainer_up_and_down_to_any_size(cam, images, size):
    expected = cam(images, size=size)
    layer, oracle = cam.layer.name, Oracle(cam.model.get_weights(), images)
    activations, gradients = oracle.activations[layer], oracle.gradients[layer]
    columns = {"activations": activations.tolist(), "gradients": gradients.tolist()}
    for index in range(len(images)):
        for response in (
            json.dumps({"outputs": columns}),
            proto(activations=np.float32(activations), gradients=np.float32(gradients)),
            {"map": expected.map},
        ):
            heatmap = serving.heatmap(response, size if size else expected.map.shape[1:], index=index)
            np.testing.assert_allclose(heatmap, expected.heatmap[index], atol=1e-5)


def test_grids_of_any_size_are_resized_as_tensorflow_does_it():
    random = np.random.default_rng(0)
    for _ in range(60):
        grid, size = random.integers(1, 50, 2), random.integers(1, 300, 2)
        signed_map = random.normal(size=(1, *grid)).astype("float32")
        expected = to_heatmap(tf.constant(signed_map), tf.constant(size, tf.int32), "bilinear")[0]
        np.testing.assert_allclose(serving.heatmap({"map": signed_map}, size), expected, atol=1e-5)


def test_index_chooses_the_image_and_rank_the_class():
    heatmaps = np.linspace(0, 1, 2 * 3 * 4).reshape(2, 3, 2, 2)
    for name in ("heatmap", "map"):
        for index in range(2):
            for rank in range(3):
                expected = heatmaps[index, rank] / (1 if name == "heatmap" else heatmaps[index, rank].max())
                heatmap = serving.heatmap({name: heatmaps}, index=index, rank=rank)
                np.testing.assert_allclose(heatmap, expected, atol=1e-7)


@pytest.mark.parametrize("value", [2, -1, 0.0, True, None, "0", np.float32(1)])
@pytest.mark.parametrize("argument", ["index", "rank"])
def test_an_image_or_class_that_is_not_there_is_refused(argument, value):
    with pytest.raises(
        ValueError, match=f"`{argument}` must be a whole number from 0 and below 2.*Received: "
    ):
        serving.heatmap({"heatmap": np.ones((2, 2, 1, 1))}, **{argument: value})


@pytest.mark.parametrize(
    "named",
    [
        {"heatmap": np.ones((1, 2, 2))},
        {"heatmap_png_bytes": np.array([png([[255]])], object)},
        {"activations": np.ones((1, 2, 2, 3)), "gradients": np.ones((1, 2, 2, 3))},
    ],
    ids=lambda named: next(iter(named)),
)
def test_where_there_is_one_heatmap_another_rank_is_refused(named):
    serving.heatmap(named)
    with pytest.raises(ValueError, match="`rank` must be a whole number from 0 and below 1.*rank=1"):
        serving.heatmap(named, rank=1)


def test_an_empty_batch_has_no_image_to_show():
    for response in ({"predictions": []}, {"heatmap": np.ones((0, 2, 2))}):
        with pytest.raises(ValueError, match="`index` must be .* below 0: the response has 0 images"):
            serving.heatmap(response)


@pytest.mark.parametrize(
    "response", [{"outputs": {"scores": [[1.0]], "class": [0]}}, proto(scores=[[1.0]]), proto()]
)
def test_a_response_without_a_heatmap_says_what_to_ask_for(response):
    with pytest.raises(ValueError, match="must have `heatmap`.*Received: ('scores'|no output).*`gradcam`"):
        serving.heatmap(response)


def test_an_empty_response_is_refused():
    with pytest.raises(ValueError, match="`response` must have outputs. Received: an empty dict"):
        serving.heatmap({})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.ones(()), "must have an axis for the batch"),
        (np.ones((1,)), "must be real numbers"),
        (np.ones((1, 5)), "must be real numbers"),
        (np.ones((1, 2, 2, 2, 2)), "must be real numbers"),
        (np.ones((1, 0, 5)), "must be real numbers"),
        (np.ones((1, 2, 2), complex), "must be real numbers"),
        (np.full((1, 2, 2), "a", object), "must be real numbers"),
        (np.full(1, "a", object), "must be real numbers"),
        (np.full((1, 2, 2), np.nan), "must be finite"),
        (np.full((1, 2, 2), np.inf), "must be finite"),
        (np.broadcast_to(np.float32(1), (1, 10**6, 10**6)), "must have at most 16,777,216 values"),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
@pytest.mark.parametrize("name", ["heatmap", "map"])
def test_a_map_that_is_none_is_refused(name, values, sentence):
    with pytest.raises(ValueError, match=f"`{name}` {sentence}.*Received: "):
        serving.heatmap({name: values})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_not_finite_in_json_is_refused(text):
    with pytest.raises(ValueError, match="`map` must be finite"):
        serving.heatmap(f'{{"outputs": {{"map": [[[0.5, {text}]]], "class": [0]}}}}')


@pytest.mark.parametrize("value", [-0.1, 1.1, 255])
def test_a_finished_heatmap_outside_0_to_1_is_refused(value):
    with pytest.raises(ValueError, match=r"`heatmap` must be in \[0, 1\].*as `map`"):
        serving.heatmap({"heatmap": np.array([[[0.5, value]]])})


def test_a_hair_beyond_0_or_1_is_cut_off():
    heatmap = serving.heatmap({"heatmap": np.array([[[-5e-7, 1 + 5e-7]]])})
    np.testing.assert_array_equal(heatmap, [[0, 1]])


@pytest.mark.parametrize(
    ("activations", "gradients", "sentence"),
    [
        (np.ones((1, 2, 2, 3)), np.ones((1, 2, 2, 4)), "must have the same shape"),
        (np.ones((1, 2, 2, 3)), np.ones((1, 3)), r"must be real numbers, \(h, w, K\)"),
        (np.ones((1, 9, 3)), np.ones((1, 9, 3)), r"must be real numbers, \(h, w, K\)"),
        (np.ones((1, 2, 2, 3)), np.full((1, 2, 2, 3), np.nan), "must be finite"),
        (np.full((1, 2, 2, 3), 1e308), np.full((1, 2, 2, 3), 1e308), "must be finite"),
        (*2 * [np.broadcast_to(np.float32(1), (1, 10**6, 10**6, 9))], "must have at most 16,777,216 values"),
    ],
)
def test_activations_and_gradients_that_do_not_fit_are_refused(activations, gradients, sentence):
    with pytest.raises(ValueError, match=f"(activations|gradients|map)` {sentence}"):
        serving.heatmap({"activations": activations, "gradients": gradients})


def test_numbers_beyond_float32_are_no_trouble():
    named = {"activations": np.full((1, 1, 2, 1), 1e200), "gradients": np.full((1, 1, 2, 1), 1e100)}
    np.testing.assert_array_equal(serving.heatmap(named), [[1, 1]])


def claims(width, height):
    """A PNG of a few bytes that announces any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "must hold the PNG file"),
        (b"no picture", "must hold the PNG file"),
        (png(np.ones((9, 9)))[:50], "must hold the PNG file"),
        (claims(60_000, 60_000), "must hold the PNG file of a heatmap: .*pixels"),
        (claims(4097, 4096), "must hold the PNG file of a heatmap: 4097 x 4096 pixels, more than 16,777,216"),
        (claims(9, 9), "must hold the PNG file"),
        (png(GREY * [1, 1, 0]), "must be grey"),
        (7, "must be bytes"),
        ([b"a", b"b"], "must be bytes"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_bytes_that_are_no_heatmap_are_refused(data, sentence):
    cells = np.empty(1, object)
    cells[0] = data
    with pytest.raises(ValueError, match=f"`heatmap_png_bytes` {sentence}"):
        serving.heatmap({"heatmap_png_bytes": cells})


@pytest.mark.parametrize("size", [0, (0, 5), (5,), (2.0, 3.0), (10**6, 10**6), "input"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="`size` must be None or .height, width."):
        serving.heatmap({"map": np.ones((1, 2, 2))}, size)


def test_flipped_bytes_of_a_response_give_a_heatmap_or_a_value_error_and_nothing_else():
    random = np.random.default_rng(0)
    text = json.dumps(
        {"predictions": [{"class": 3, "label": "cat", "map": [[0.5, 1.25]], "png_bytes": b64(b"abc")}]}
    )
    content = proto(map=np.float32([[[0.5, 1.25]]]), label=tf.make_tensor_proto(["cat"]))
    survived = 0
    for _ in range(2000):
        flipped = np.frombuffer(text.encode(), np.uint8).copy()
        flipped[random.integers(0, len(flipped), 2)] = random.integers(32, 127, 2)
        with contextlib.suppress(ValueError):
            survived += serving.heatmap(flipped.tobytes()).shape == (1, 2)
        message = np.frombuffer(content.outputs["map"].SerializeToString(), np.uint8).copy()
        message[random.integers(0, len(message))] = random.integers(0, 256)
        try:
            changed = type(content.outputs["map"]).FromString(message.tobytes())
        except Exception:  # the proto's own parser says no
            continue
        with contextlib.suppress(ValueError):
            survived += serving.heatmap(proto(map=changed)).ndim == 2
    assert 0 < survived < 4000


# overlay


def test_the_overlay_is_the_librarys_own(network, images):
    photograph = skimage.data.chelsea()
    expected = GradCAM(network)(images)
    response = proto(heatmap=expected.heatmap.numpy(), scores=expected.outputs.numpy())
    for index in range(3):
        for options in ({}, {"alpha": 0.7, "colormap": "viridis", "fade": True}):
            np.testing.assert_array_equal(
                serving.overlay(response, photograph, index=index, **options),
                tf_gradcam.overlay(photograph, expected.heatmap[index], **options),
            )


def test_an_8_bit_heatmap_is_laid_over_the_whole_photograph(tmp_path):
    photograph = skimage.data.chelsea()
    path = tmp_path / "cat.png"
    path.write_bytes(png(photograph))
    heatmap = np.rint(np.random.default_rng(0).random((7, 9)) * 255)
    response = {"predictions": [{"heatmap_png_bytes": b64(png(heatmap)), "class": 1}]}
    expected = tf_gradcam.overlay(photograph, heatmap / 255)
    for source in (path, str(path), path.read_bytes(), PIL.Image.open(path), photograph):
        np.testing.assert_array_equal(serving.overlay(response, source), expected)


def test_every_argument_changes_the_picture():
    heatmaps = np.random.default_rng(0).random((2, 3, 2, 4))
    response = {"heatmap": heatmaps}
    options = [{}, {"index": 1}, {"rank": 1}, {"alpha": 0.8}, {"colormap": "viridis"}, {"fade": False}]
    pictures = [serving.overlay(response, GREY, **each) for each in options]
    pictures += [serving.overlay(response, GREY + 9), serving.overlay({"heatmap": heatmaps**2}, GREY)]
    assert len({picture.tobytes() for picture in pictures}) == len(options) + 2
    sizes = [serving.heatmap(response, size).shape for size in (None, (5, 6))]
    assert sizes == [(2, 4), (5, 6)]


def test_a_signed_map_is_drawn_signed_and_in_one_scale():
    signed = np.array([[[-4.0, 2.0]], [[1.0, 0.0]]])
    layers = {"activations": signed[..., None], "gradients": np.ones((2, 1, 2, 1))}
    for response in ({"map": signed}, {"map": signed, "heatmap": np.ones((2, 1, 2))}, layers):
        for index, values in enumerate(signed):
            for options in ({"vmax": 2}, {"signed": True}, {"signed": True, "vmax": 8}):
                np.testing.assert_array_equal(
                    serving.overlay(response, GREY, index=index, **options),
                    tf_gradcam.overlay(GREY, values, **options),
                )
    for options in ({"vmax": 2}, {"signed": True}):
        with pytest.raises(ValueError, match="`response` must have `map`, or `activations` and `gradients`"):
            serving.overlay({"heatmap": np.ones((1, 2, 2))}, GREY, **options)


@pytest.mark.slow
def test_the_heatmap_of_a_cat_is_on_the_cat(lite0):
    photograph = skimage.data.chelsea()
    images = tf_gradcam.pretrained.preprocess(tf_gradcam.load_image(photograph, lite0.input_shape[1:3])[None])
    explanation = GradCAM(lite0)(images)
    response = {
        "predictions": [{"map": explanation.map[0].numpy().tolist(), "class": int(explanation.target[0])}]
    }
    heatmap = serving.heatmap(json.dumps(response), photograph.shape[:2])
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert 50 < y < 250
    assert 100 < x < 330


# boxes


def test_the_boxes_are_those_of_the_heatmap_in_the_response():
    heatmaps = np.zeros((2, 2, 3, 4), np.float32)
    heatmaps[1, 1, 1:, 2:] = 1
    heatmaps[1, 1, 0, 0] = 0.3
    (first, second) = serving.boxes({"heatmap": heatmaps}, index=1, rank=1)
    assert (first.box, second.box) == ((2, 1, 4, 3), (0, 0, 1, 1))
    options = {"index": 1, "rank": 1, "size": (6, 12), "sort": "area", "most": 1}
    (only,) = serving.boxes({"heatmap": heatmaps}, "otsu", **options)
    assert (only.box, only.area) == ((6, 2, 12, 6), 24)
    assert serving.boxes({"heatmap": heatmaps}) == []
    assert serving.boxes({"heatmap": heatmaps}, 0.5, index=1, rank=1, scale=2) == []


def test_boxes_are_found_in_a_map_and_in_a_png_file():
    signed = {"map": np.array([[[-3.0, 1.0], [-1.0, 10.0]]])}
    assert [each.box for each in serving.boxes(signed)] == [(1, 1, 2, 2)]
    assert [each.box for each in serving.boxes(signed, 0.05)] == [(1, 0, 2, 2)]
    grey = {"heatmap_png_bytes": np.array([png([[0, 255, 30]])], object)}
    assert [each.box for each in serving.boxes(grey)] == [(1, 0, 2, 1)]  # 30 / 255 is below 0.15.
    with pytest.raises(ValueError, match="`threshold` must be"):
        serving.boxes(signed, 2)


# In the client


def test_a_client_needs_neither_tensorflow_nor_keras_matplotlib_and_pillow():
    script = """if True:
        import sys
        sys.modules.update(dict.fromkeys(["tensorflow", "keras", "matplotlib", "PIL"]))
        from types import SimpleNamespace as Message
        import numpy as np
        from tf_gradcam import serving
        assert "cv2" not in sys.modules
        shape = Message(dim=[Message(size=1), Message(size=1), Message(size=2)], unknown_rank=False)
        tensor = Message(dtype=1, tensor_shape=shape, tensor_content=b"", float_val=[-1.0, 3.0])
        grpc = Message(outputs={"map": tensor})
        rest = '{"predictions": [{"class": 1, "map": [[-1.0, 3.0]]}]}'
        for response in (grpc, rest):
            picture = serving.overlay(response, np.full((2, 4, 3), 100, np.uint8))
            print(picture.shape, picture[0, 0], picture[0, 3], serving.heatmap(response, (1, 4)))
            assert serving.boxes(response)[0].box == (1, 0, 2, 1)
    """
    done = subprocess.run([sys.executable, "-c", script], cwd=SOURCES, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == 2 * "(2, 4, 3) [100 100 100] [198 204  53] [[0.   0.25 0.75 1.  ]]\n"


def test_without_pillow_a_file_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    heatmaps = {"heatmap": np.ones((1, 2, 2))}
    with pytest.raises(ImportError, match="pip install pillow$"):
        serving.overlay(heatmaps, png(GREY))
    assert serving.overlay(heatmaps, GREY).shape == GREY.shape


def test_without_opencv_a_map_keeps_its_size(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    named = {"map": np.ones((1, 2, 2))}
    np.testing.assert_array_equal(serving.heatmap(named), np.ones((2, 2)))
    with pytest.raises(ImportError, match="pip install opencv-python"):
        serving.heatmap(named, (4, 4))
