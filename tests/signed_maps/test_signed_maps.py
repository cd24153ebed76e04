"""In the graph: several scores and layers from one pass, the image that a layer looks at, complaints."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import CLASSES, SIDE, build, chain, parts
from oracle import Oracle

from tf_gradcam import GradCAM, make_gradcam_heatmap, targets
from tf_gradcam._graph.graph import ancestors
from tf_gradcam._signed_maps.several_scores import scores_per_pass


@pytest.mark.parametrize("layer", ["conv2", "relu2"])  # after the latter nothing but pooling: CAM
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "gradcam_plus_plus", "eigengradcam"])
@pytest.mark.product(
    kept=lambda model, layer, method: (model == "functional" and layer == "conv2") or method == "gradcam"
)
def test_several_classes_at_once_are_what_each_is_alone(model, images, layer, method):
    cam = GradCAM(model, layer, method=method)
    together = cam(images, targets.Classes([4, 0, 2]))
    assert together.heatmap.shape == (3, 3, SIDE, SIDE)
    for place, index in enumerate([4, 0, 2]):
        expected = Oracle(model.get_weights(), images, index).map(layer, method)
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(together.map[:, place], expected, rtol=0, atol=atol)
        alone = cam(images, index)
        np.testing.assert_allclose(together.heatmap[:, place], alone.heatmap, atol=1e-5)
        np.testing.assert_allclose(together.score[:, place], alone.score, atol=1e-5)
        np.testing.assert_array_equal(together.target[:, place], alone.target)


@pytest.mark.parametrize("layer", ["conv2", "relu2"])
@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
@pytest.mark.product(
    kept=lambda model, layer, method: model == "functional" or (layer, method) == ("conv2", "gradcam")
)
def test_the_best_classes_are_explained_as_if_they_had_been_asked_for(model, images, layer, method):
    cam = GradCAM(model, layer, method=method)
    best = cam(images, targets.TopClasses(3))
    order = np.argsort(-best.outputs.numpy(), axis=1)[:, :3]
    np.testing.assert_array_equal(best.target, order)
    asked = cam(images, targets.Classes(order))
    np.testing.assert_allclose(best.heatmap, asked.heatmap, atol=1e-5)


def counted(kind):
    """A model that notes each time its Python is run."""
    model, runs = build(kind), []
    call = model.get_layer("pool").call
    object.__setattr__(
        model.get_layer("pool"), "call", lambda *args, **kwargs: (runs.append(1), call(*args, **kwargs))[1]
    )
    return model, runs


def operations(cam):
    """The operations that the one trace of a `GradCAM` runs: those that its answers come out of."""
    (concrete,) = cam._explainer._traces.values()
    inner = [each.graph for each in concrete.graph._functions.values() if hasattr(each, "graph")]
    return [op for graph in (concrete.graph, *inner) for op in ancestors(graph.outputs)]


@pytest.mark.parametrize("layer", ["conv2", "relu2"])
def test_several_classes_are_one_forward_pass_for_any_number_of_them(images, layer):
    model, runs = counted("functional")
    cam = GradCAM(model, layer)
    cam(images, targets.Classes([0, 1]))
    before = len(runs)
    cam(images, targets.Classes([[0, 1], [2, 3], [4, 0]]))  # others for each image
    assert len(runs) == before
    convolutions = [op for op in operations(cam) if op.type == "Conv2D"]
    assert len(convolutions) == 2  # conv1 and conv2, and none in the loop over classes


@pytest.mark.parametrize("method", ["gradcam", "layercam", lambda activations, gradients: gradients[..., 0]])
def test_more_classes_than_go_back_in_one_pass_are_what_each_is_alone(images, method):
    model, classes = build("functional"), [*range(CLASSES)] * 15
    maps = GradCAM(model, "conv1", method=method)(images, targets.Classes(classes)).map
    assert maps.shape[:2] == (3, 75)
    for index in range(CLASSES):
        network = Oracle(model.get_weights(), images, index)
        expected = network.gradients["conv1"][..., 0] if callable(method) else network.map("conv1", method)
        difference = np.abs(maps.numpy()[:, index::CLASSES] - expected[:, None]).max()
        assert difference < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("count", "rows", "largest", "expected"),
    [
        (10, 1, 1000, (1, 10)),
        (100, 1, 1000, (4, 25)),  # not 32, 32, 32 and 4
        (3, 64, 1000, (3, 1)),
        (10, 1, 2**22, (3, 4)),  # so many numbers in the largest tensor
        (2, 1, 2**26, (2, 1)),
        (0, 1, 1000, (0, 0)),
        (5, 0, 0, (1, 5)),
    ],
)
def test_scores_go_back_in_passes_of_bounded_memory(count, rows, largest, expected):
    passes = scores_per_pass(tf.constant(count), tf.constant(rows), tf.constant(largest))
    assert tuple(map(int, passes)) == expected


def test_where_pooling_and_a_dense_layer_follow_no_class_has_a_pass_of_its_own(images):
    loops = {}
    for layer in ("conv2", "relu2"):
        cam = GradCAM(build("functional"), layer)
        cam(images, targets.Classes([0, 1]))
        loops[layer] = [op.type for op in operations(cam) if "While" in op.type]
    assert loops["conv2"]
    assert not loops["relu2"]


class Step(keras.layers.Layer):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def call(self, x):
        return self.step(x)


def summed(x):
    places = tf.shape(x)[1] * tf.shape(x)[2]
    return tf.reduce_mean(x, axis=(1, 2)) * tf.cast(places, x.dtype)


POOL = keras.layers.GlobalAveragePooling2D
HEADS = {  # what is like average pooling and a dense layer, and what only looks like it
    "a way round the layer": lambda x, a: keras.layers.Concatenate()([POOL()(a), POOL()(x)]),
    "pooled twice": lambda x, a: keras.layers.Concatenate()([POOL()(a), POOL()(a)]),
    "the sum over places": lambda x, a: Step(summed)(a),
    "the mean over other axes": lambda x, a: Step(lambda v: tf.reduce_mean(v, axis=(1, 3)))(a),
    "less the mean of the batch": lambda x, a: Step(lambda v: v - tf.reduce_mean(v, 0, True))(POOL()(a)),
    "the batch turned round": lambda x, a: Step(lambda v: v[::-1])(POOL()(a)),
    "batch normalization": lambda x, a: keras.layers.BatchNormalization()(POOL()(a)),
    "half precision": lambda x, a: keras.layers.Dense(4, dtype="mixed_bfloat16")(POOL()(a)),
    "a hidden layer": lambda x, a: keras.layers.Dense(4, activation="relu")(POOL()(a)),
}


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_classes_of_any_head_are_what_each_is_alone(images, head):
    keras.utils.set_random_seed(0)
    x = keras.Input((SIDE, SIDE, 3))
    activations = chain(x, parts()[:3])
    cam = GradCAM(keras.Model(x, parts()[-1](HEADS[head](x, activations))), "relu2")
    together = cam(images, targets.Classes([4, 0])).map
    for place, index in enumerate([4, 0]):
        alone = cam(images, index).map
        np.testing.assert_allclose(together[:, place], alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_classes_of_one_of_several_outputs_leave_the_others_alone(images):
    x = keras.Input((SIDE, SIDE, 3))
    activations = chain(x, parts()[:3])
    outputs = [parts()[-1](POOL()(activations)), keras.layers.Dense(2)(keras.layers.Flatten()(activations))]
    cam = GradCAM(keras.Model(x, outputs), "relu2")
    together = cam(images, targets.Output(0, targets.Classes([4, 0])))
    np.testing.assert_allclose(together.map[:, 1], cam(images, targets.Output(0, 0)).map, atol=1e-6)


def test_classes_of_a_network_for_each_frame_are_refused_as_one_class_is(images):
    frames = keras.Input((2, SIDE, SIDE, 3))
    rows = Step(lambda v: tf.reshape(v, [-1, SIDE, SIDE, 3]))(frames)
    pooled = POOL()(chain(rows, parts()[:3]))
    joined = keras.layers.GlobalAveragePooling1D()(Step(lambda v: tf.reshape(v, [-1, 2, 6]))(pooled))
    cam = GradCAM(keras.Model(frames, parts()[-1](joined)), "relu2")
    for target in (1, targets.Classes([0, 1])):
        with pytest.raises(ValueError, match="`layer` must return one map for each image"):
            cam(np.stack([images, images], axis=1), target)


def test_a_callable_may_return_several_scores(functional, images):
    explanation = GradCAM(functional)(images, lambda outputs: outputs[:, 1:3])
    assert explanation.map.shape == (3, 2, 8, 8)
    alone = GradCAM(functional)(images, lambda outputs: outputs[:, 2])
    np.testing.assert_allclose(explanation.map[:, 1], alone.map, atol=1e-7)


def test_several_scores_in_float16_do_not_vanish():
    random = np.random.default_rng(0)
    image, scores = random.normal(size=(1, 32, 32, 3)), {}
    for policy in ("mixed_float16", "float32"):
        keras.utils.set_random_seed(0)
        x = keras.Input((32, 32, 3))
        features = keras.layers.Conv2D(8, 3, dtype=policy, name="conv")(x)
        pooled = keras.layers.GlobalAveragePooling2D(dtype=policy)(features)
        units = keras.layers.Dense(
            3, kernel_initializer=keras.initializers.RandomNormal(0, 1e-3), dtype=policy
        )
        model = keras.Model(x, units(pooled))
        scores[policy] = GradCAM(model, "conv")(image, targets.Classes([0, 1, 2])).map.numpy()
    scale = np.abs(scores["float32"]).max()
    np.testing.assert_allclose(scores["mixed_float16"], scores["float32"], rtol=0, atol=1e-2 * scale)


def test_the_heatmap_has_the_size_of_the_image_that_the_layer_looks_at():
    small, large, table = keras.Input((12, 14, 3)), keras.Input((20, 24, 3)), keras.Input((4,))
    features = [
        keras.layers.Conv2D(2, 3, name=name)(x) for name, x in [("on_small", small), ("on_large", large)]
    ]
    pooled = [keras.layers.GlobalAveragePooling2D()(each) for each in features]
    scores = keras.layers.Dense(3)(keras.layers.Concatenate()([table, *pooled]))
    model = keras.Model([table, small, large], scores)
    random = np.random.default_rng(0)
    images = [random.normal(size=shape) for shape in [(2, 4), (2, 12, 14, 3), (2, 20, 24, 3)]]
    assert GradCAM(model, "on_small")(images).heatmap.shape == (2, 12, 14)
    assert GradCAM(model, "on_large")(images).heatmap.shape == (2, 20, 24)


def test_a_grid_that_no_input_has_needs_a_size():
    signal = keras.Input((64,))
    spectrum = keras.layers.Reshape((8, 8, 1))(signal)
    features = keras.layers.Conv2D(4, 3, name="conv")(spectrum)
    model = keras.Model(signal, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(features)))
    signals = np.random.default_rng(0).normal(size=(2, 64))
    with pytest.raises(ValueError, match='`size` must be None or 2 lengths. Received: size="input"'):
        make_gradcam_heatmap(model, signals, "conv")
    assert GradCAM(model, "conv")(signals, size=None).heatmap.shape == (2, 6, 6)
    assert GradCAM(model, "conv")(signals, size=(16, 16)).heatmap.shape == (2, 16, 16)
    with pytest.raises(ValueError, match="one length for each of the 2 axes.*Received: 3 lengths"):
        GradCAM(model, "conv")(signals, size=(16, 16, 16))


class Windows(keras.layers.Layer):
    """Cut each image into four, as windowed attention does."""

    def call(self, x):
        _, height, width, channels = x.shape
        x = keras.ops.reshape(x, (-1, 2, height // 2, 2, width // 2, channels))
        x = keras.ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return keras.ops.reshape(x, (-1, height // 2, width // 2, channels))


class Joined(keras.layers.Layer):
    def call(self, x):
        return keras.ops.reshape(x, (-1, 4 * x.shape[1] * x.shape[2], x.shape[3]))


def test_a_layer_with_more_rows_than_images_is_refused():
    x = keras.Input((16, 16, 3))
    layers = [keras.layers.Conv2D(4, 3, padding="same"), Windows(name="windows"), Joined()]
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(chain(x, layers))))
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    with pytest.raises(ValueError, match="`layer` must return one map for each image.*'windows'"):
        GradCAM(model, "windows")(images)


def test_the_backward_pass_ends_at_the_layer(functional, images):
    """No filter gradient is computed: the CPU build of TensorFlow 2.21 can end the process in one."""
    cam = GradCAM(functional, "conv1")
    cam(images)
    (concrete,) = cam._explainer._traces.values()
    definition = tf.compat.v1.graph_util.extract_sub_graph(
        concrete.graph.as_graph_def(), [output.op.name for output in concrete.outputs]
    )
    called = {node.attr["f"].func.name for node in definition.node if "PartitionedCall" in node.op}
    inner = [f for f in definition.library.function if f.signature.name in called]
    assert inner
    for function in inner:
        inputs_of = {node.name: [each.split(":")[0] for each in node.input] for node in function.node_def}
        wanted, waiting = set(), [value.split(":")[0] for value in function.ret.values()]
        while waiting:
            name = waiting.pop()
            if name in inputs_of and name not in wanted:
                wanted.add(name)
                waiting += inputs_of[name]
        types = {node.op for node in function.node_def if node.name in wanted}
        assert "Conv2DBackpropInput" in types  # back to conv1, through conv2
        assert "Conv2DBackpropFilter" not in types


def test_outputs_are_explained_where_the_target_picks_one(images):
    x = keras.Input((SIDE, SIDE, 3))
    features = chain(x, parts()[:3])
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    scores = keras.layers.Dense(CLASSES, activation="softmax", name="scores")(pooled)
    size = keras.layers.Dense(1, name="size")(pooled)
    model = keras.Model(x, [scores, size])
    for target, output in [(targets.Output("scores", 2), scores), (targets.Output(1), size)]:
        alone = GradCAM(keras.Model(x, output), "relu2")(images, 2 if output is scores else None)
        np.testing.assert_allclose(GradCAM(model, "relu2")(images, target).map, alone.map, atol=1e-6)
    with pytest.raises(ValueError, match="which of the model's 2 outputs to explain"):
        GradCAM(model)(images)


def test_layers_that_look_at_different_images_or_grids_are_not_fused():
    one, two, signal = keras.Input((12, 10, 3)), keras.Input((20, 24, 3)), keras.Input((30, 2))
    features = [
        keras.layers.Conv2D(2, 3, name="on_one")(one),
        keras.layers.Conv2D(2, 3, name="on_two")(two),
        keras.layers.Conv1D(2, 3, name="on_signal")(signal),
    ]
    pooled = [keras.layers.GlobalAveragePooling2D()(each) for each in features[:2]]
    pooled.append(keras.layers.GlobalAveragePooling1D()(features[2]))
    model = keras.Model([one, two, signal], keras.layers.Dense(2)(keras.layers.Concatenate()(pooled)))
    random = np.random.default_rng(0)
    images = [random.normal(size=(2, *x.shape[1:])) for x in (one, two, signal)]
    for names in (["on_one", "on_two"], ["on_one", "on_signal"]):
        with pytest.raises(
            ValueError, match="`layer` must name layers that depend on one image.*Explain them one by"
        ):
            GradCAM(model, names)(images)
        for size in (None, (5, 5)):
            with pytest.raises(ValueError, match="`layer` must name layers that depend on one image"):
                GradCAM(model, names)(images, size=size)


@pytest.mark.parametrize("kind", ["float64", "siamese, second run", "network for each frame"])
@pytest.mark.parametrize("method", ["gradient", "guided_gradcam"])
@pytest.mark.product(kept=lambda kind, method: (method == "gradient") == (kind == "float64"))
def test_maps_on_the_image_have_its_axes_for_one_class_and_for_several(kind, method):
    kind = zoo.KINDS[kind]()
    layer = {} if method == "gradient" else {"layer": kind.layer}
    cam = GradCAM(kind.model, **layer, call=kind.call, method=method)
    one, both = cam(kind.inputs, 1), cam(kind.inputs, targets.Classes([0, 1]))
    assert one.heatmap.shape == one.map.shape
    assert both.map.shape == (2, 2, *one.map.shape[1:])
    np.testing.assert_allclose(both.map[:, 1], one.map, atol=1e-5 * np.max(one.map))


def test_gradients_by_the_image_do_not_vanish_on_their_way_through_float16():
    images = keras.Input((64, 64, 3))
    conv, dense = (
        keras.layers.Conv2D(4, 3, activation="relu", dtype="mixed_float16"),
        keras.layers.Dense(2, dtype="mixed_float16"),
    )
    model = keras.Model(images, dense(keras.layers.GlobalAveragePooling2D()(conv(images))))
    wide = keras.models.clone_model(model, clone_function=_in_float32)
    random = np.random.default_rng(0)
    weights = [random.normal(size=each.shape) for each in model.get_weights()]
    weights[-2] *= 1e-3
    for each in (model, wide):
        each.set_weights(weights)
    batch = random.normal(size=(1, 64, 64, 3)).astype("float32")
    found, expected = (GradCAM(each, method="gradient")(batch, 1).map.numpy() for each in (model, wide))
    # Here and there a ReLU is on in one precision and off in the other.
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def _in_float32(layer):
    return type(layer).from_config({**layer.get_config(), "dtype": "float32"})


AVERAGES = [getattr(keras.layers, f"GlobalAveragePooling{axes}D") for axes in (1, 2, 3)]
MAXIMA = [getattr(keras.layers, f"GlobalMaxPooling{axes}D") for axes in (1, 2, 3)]
POOLINGS = {"global average": AVERAGES, "global max": MAXIMA, "flatten": [keras.layers.Flatten] * 3}
CONVOLUTIONS = [keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_several_classes_have_the_maps_that_each_has_alone(pooling, axes):
    keras.utils.set_random_seed(0)
    x = keras.Input((*[9, 8, 7][:axes], 2))
    conv = CONVOLUTIONS[axes - 1](4, 3, activation="relu", name="conv")
    model = keras.Model(x, chain(x, [conv, POOLINGS[pooling][axes - 1](), keras.layers.Dense(5)]))
    images = np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype("float32")
    cam = GradCAM(model, "conv")
    together = cam(images, targets.Classes([4, 1])).map
    alone = [cam(images, index).map for index in (4, 1)]
    np.testing.assert_allclose(together, np.stack(alone, axis=1), rtol=1e-4, atol=1e-6)
    best = cam(images, targets.TopClasses(1))
    np.testing.assert_allclose(best.map[:, 0], cam(images).map, rtol=1e-4, atol=1e-6)
    several = cam(images, lambda outputs: outputs[:, 1:3]).map
    np.testing.assert_allclose(several[:, 0], alone[1], rtol=1e-4, atol=1e-6)
