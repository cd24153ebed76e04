"""Graphs in plain operations: the same numbers, without the operations that only TensorFlow has."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import build

from tf_gradcam import GradCAM
from tf_gradcam._export.plain_graph import rewrite
from tf_gradcam._export.plain_windows import UnsupportedOperation
from tf_gradcam._freezing.folding import fold_variables

SHAPE = 12, 13, 4


def full(*values):
    return pytest.param(*values, marks=pytest.mark.full)


def graph_of(function, shape=SHAPE):
    """Return `function` of `(N, *shape)` in TensorFlow's own operations, constant, and in plain ones."""
    spec = tf.TensorSpec([None, *shape])
    concrete = fold_variables(tf.function(function, autograph=False).get_concrete_function(spec))
    return concrete, rewrite(concrete, ["x"], ["y"])


def run(graph, values):
    return run_each(graph, [values])[0]


def run_each(graph, batches):
    """Return what a graph answers to each batch, in one session."""
    with tf.Graph().as_default() as whole, tf.compat.v1.Session(graph=whole) as session:
        tf.graph_util.import_graph_def(graph, name="")
        return [session.run("y:0", {"x:0": values}) for values in batches]


def numbers(count, shape=SHAPE, seed=0):
    # Quarters: many are alike, and many are 0, as after a ReLU.
    return np.random.default_rng(seed).integers(-6, 30, (count, *shape)).astype("float32") / 4


def gradient(layer):
    """Return the function of `x` that is the gradient of `layer`, weighed differently at each place."""

    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            weights = tf.sin(tf.reshape(tf.range(np.prod(y.shape[1:]), dtype=tf.float32), [1, *y.shape[1:]]))
            score = tf.reduce_sum(y * weights)
        return tape.gradient(score, x)

    return function


def assert_plain(function, kinds, shape=SHAPE, atol=1e-5):
    """Assert that `function` has operations of these kinds, that its plain graph has none, and agrees."""
    concrete, graph = graph_of(function, shape)
    assert set(kinds) <= {each.type for each in concrete.graph.get_operations()}
    assert not set(kinds) & {node.op for node in graph.node}
    batches = [numbers(count, shape) for count in (1, 2, 4)]
    for values, found in zip(batches, run_each(graph, batches), strict=True):
        (expected,) = concrete(tf.constant(values))
        np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "elu", "selu", "softsign", "tanh"])
def test_the_gradient_of_an_activation(name):
    kind = {"relu": "Relu", "relu6": "Relu6"}.get(name, name.title().replace("_Relu", "Relu"))
    assert_plain(gradient(getattr(tf.nn, name)), [f"{kind}Grad"])


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        (tf.sigmoid, ["SigmoidGrad"]),
        (lambda x: tf.sqrt(x**2 + 1), ["SqrtGrad"]),
        (lambda x: tf.math.rsqrt(x**2 + 1), ["RsqrtGrad"]),
        (lambda x: tf.math.reciprocal(x**2 + 1), ["ReciprocalGrad"]),
        (tf.math.erfc, ["Erfc"]),
        (tf.math.erf, ["Erf"]),
    ],
)
def test_the_gradient_of_a_function(function, kinds):
    assert_plain(gradient(function), kinds)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("window", [(3, 2), ((2, 3), (1, 2)), (2, 3), *map(full, [(2, 2), (3, 1), (5, 3)])])
@pytest.mark.parametrize("pool", ["max_pool2d", "avg_pool2d"])
def test_the_gradient_of_a_pooling(pool, window, padding):
    size, step = window
    kind = {"max_pool2d": "MaxPoolGrad", "avg_pool2d": "AvgPoolGrad"}[pool]
    assert_plain(gradient(lambda x: getattr(tf.nn, pool)(x, size, step, padding)), [kind])


@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [0, 1], [0, 0]]])
@pytest.mark.parametrize(
    ("size", "step", "dilation"),
    [(4, 3, 1), (3, 1, 2), *(full(*each) for each in [(1, 1, 1), (3, 1, 1), (3, 2, 1), (1, 2, 1)])],
)
def test_the_gradient_of_a_convolution(size, step, dilation, padding):
    if not isinstance(padding, str) and (size == 1 or dilation > 1):
        padding = "SAME"  # TensorFlow differentiates no others
    filters = np.random.default_rng(0).normal(size=(size, size, 4, 6)).astype("float32")
    layer = gradient(lambda x: tf.nn.conv2d(x, filters, step, padding, dilations=dilation))
    assert_plain(layer, ["Conv2DBackpropInput"], atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("step", "dilation", "multiplier"), [(2, 1, 1), (2, 1, 2), full(1, 1, 1), full(1, 2, 1)]
)
def test_the_gradient_of_a_depthwise_convolution(step, dilation, multiplier, padding):
    filters = np.random.default_rng(0).normal(size=(3, 3, 4, multiplier)).astype("float32")

    def layer(x):
        steps = [1, step, step, 1]
        return tf.nn.depthwise_conv2d(x, filters, steps, padding, dilations=[dilation] * 2)

    kinds = ["DepthwiseConv2dNativeBackpropInput"] if dilation == 1 else []  # TensorFlow takes batches
    assert_plain(gradient(layer), kinds, atol=1e-4)


@pytest.mark.parametrize("method", ["bicubic", "area", "gaussian", full("lanczos3"), full("mitchellcubic")])
@pytest.mark.parametrize("size", [(20, 30), (5, 4)])
def test_a_resize(method, size):
    kind = {"bicubic": "ResizeBicubic", "area": "ResizeArea"}.get(method, "ScaleAndTranslate")
    assert_plain(lambda x: tf.image.resize(x, size, method), [kind])


@pytest.mark.parametrize("method", ["bilinear", "nearest", "bicubic"])
def test_the_gradient_of_a_resize(method):
    kind = "NearestNeighbor" if method == "nearest" else method.title()
    assert_plain(gradient(lambda x: tf.image.resize(x, (20, 30), method)), [f"Resize{kind}Grad"])


def test_the_gradient_of_a_repetition_has_few_axes():
    def repeated(x):
        return tf.repeat(tf.repeat(x, 2, axis=1), 3, axis=2)

    concrete, graph = graph_of(gradient(repeated))
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(graph, name="")
    sums = [each.inputs[0].shape.rank for each in whole.get_operations() if each.type == "Sum"]
    assert sums
    assert max(sums) <= 5
    np.testing.assert_allclose(run(graph, numbers(3)), concrete(tf.constant(numbers(3)))[0], atol=1e-5)


@pytest.mark.parametrize("cut", [np.s_[:, 0], np.s_[:, 1:-1, 2], np.s_[..., 1:], np.s_[:, -3:]])
def test_the_gradient_of_a_slice(cut):
    assert_plain(gradient(lambda x: x[cut]), ["StridedSliceGrad"])


def test_the_gradient_of_a_frame_whose_axis_comes_before_the_images():
    """`TimeDistributed` takes the frames one by one."""
    assert_plain(gradient(lambda x: tf.transpose(x, [1, 0, 2, 3])[2]), ["StridedSliceGrad"])


def test_what_was_picked_from_each_image_goes_back_to_where_it_was():
    def best(x):
        return tf.gather(x, tf.argmax(x, axis=1, output_type=tf.int32), batch_dims=1)[:, None]

    assert_plain(gradient(best), ["UnsortedSegmentSum"], shape=(7,))


def test_what_was_picked_at_every_pixel_goes_back_to_where_it_was():
    def channel(x):
        sums = tf.reduce_sum(x, axis=1)
        return tf.gather(x, tf.argmax(sums, axis=1, output_type=tf.int32)[:, None], axis=2, batch_dims=1)

    assert_plain(gradient(channel), ["UnsortedSegmentSum"], shape=(6, 5))


def test_a_product_of_whole_numbers():
    weights = np.random.default_rng(0).integers(-127, 128, (6, 5)).astype("int8")

    def product(x):
        return tf.cast(
            tf.matmul(tf.cast(x, tf.int8), weights.T, transpose_b=True, output_type=tf.int32), x.dtype
        )

    assert_plain(product, ["BatchMatMulV3"], shape=(3, 6))


@pytest.mark.parametrize("weighted", [False, True])
def test_classes_are_counted(weighted):
    def count(x):
        weights = tf.abs(x) if weighted else tf.zeros([0], tf.int32)
        classes = tf.cast(tf.abs(x), tf.int32) % 5
        return tf.cast(tf.raw_ops.DenseBincount(input=classes, size=5, weights=weights), tf.float32)

    assert_plain(count, ["DenseBincount"], shape=(20,))


def test_a_part_of_all_images_keeps_its_lengths():
    def second(x):
        return tf.slice(tf.concat([x, 2 * x], axis=1), [0, 12, 0, 0], tf.stack([tf.shape(x)[0], 12, 13, 4]))

    concrete, graph = graph_of(second)
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(graph, name="")
    assert whole.get_tensor_by_name("y:0").shape[1:] == SHAPE
    np.testing.assert_allclose(run(graph, numbers(3)), concrete(tf.constant(numbers(3)))[0])


def test_numbers_are_kept_within_limits():
    limits = {"clip_value_min": -1.0, "clip_value_max": 2.0}
    assert_plain(lambda x: tf.raw_ops.ClipByValue(t=x, **limits), ["ClipByValue"])


def test_division_by_zero_is_zero():
    assert_plain(lambda x: tf.math.divide_no_nan(x, tf.nn.relu(x - 1)), ["DivNoNan"])


def test_shapes_are_numbers():
    """Of all the arithmetic on shapes nothing is left but the count of images."""

    def function(x):
        shape = tf.shape(x)
        return tf.reshape(x, [shape[0], shape[1] * shape[2], -1]) * tf.cast(shape[0] * 2 + shape[3], x.dtype)

    concrete, graph = graph_of(function)
    assert sum(node.op == "Shape" for node in graph.node) == 1
    assert not {"Pack", "ConcatV2"} & {node.op for node in graph.node}
    for count in (1, 7):
        (expected,) = concrete(tf.constant(numbers(count)))
        np.testing.assert_allclose(run(graph, numbers(count)), expected)


@pytest.mark.parametrize("count", [2, 3])
def test_what_grows_otherwise_than_in_line_is_computed(count):
    concrete, graph = graph_of(lambda x: x * tf.cast(tf.shape(x)[0] ** 2, x.dtype))
    (expected,) = concrete(tf.constant(numbers(count + 5)))
    np.testing.assert_allclose(run(graph, numbers(count + 5)), expected)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: tf.map_fn(tf.sin, x), "While"),
        (gradient(lambda x: x[:, ::2]), "StridedSliceGrad"),
        (gradient(lambda x: tf.nn.local_response_normalization(x)), "LRNGrad"),
    ],
)
def test_what_there_is_no_way_to_write_is_refused_by_its_name(function, kind):
    with pytest.raises(UnsupportedOperation) as refused:
        graph_of(function)
    assert kind in refused.value.operation.type


def test_the_graph_is_the_explainers(images):
    cam = GradCAM(build("functional"))

    def heatmap(x):
        return cam(x).heatmap

    _, graph = graph_of(heatmap, images.shape[1:])
    np.testing.assert_allclose(run(graph, images), cam(images).heatmap, atol=1e-6)
