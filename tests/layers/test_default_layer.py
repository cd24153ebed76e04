"""Which layer is explained: the one that is asked for, or the last that still has a map."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIDE, chain, parts, reused

from tf_gradcam import GradCAM, targets
from tf_gradcam._layers.default_layer import default_layer, resolve_layers


def default(model, images=None):
    return default_layer(model, images).layer.name


def test_the_default_layer_is_the_last_with_a_map(model):
    assert default(model) == "relu2"


@pytest.mark.parametrize(
    "after",
    [
        [keras.layers.GlobalAveragePooling2D(keepdims=True), keras.layers.Flatten()],
        [keras.layers.AveragePooling2D(8), keras.layers.Conv2D(4, 1), keras.layers.Flatten()],
        [keras.layers.MaxPooling2D(), keras.layers.Flatten()],
        [keras.layers.MaxPooling2D(), keras.layers.Dropout(0.1), keras.layers.Flatten()],
        [keras.layers.SpatialDropout2D(0.1), keras.layers.Flatten()],
        [keras.layers.AveragePooling2D(2), keras.layers.Flatten()],
        [keras.layers.GaussianNoise(0.1), keras.layers.ZeroPadding2D(), keras.layers.Flatten()],
        [keras.layers.Cropping2D(), keras.layers.ActivityRegularization(), keras.layers.Flatten()],
    ],
)
def test_the_default_layer_is_never_a_pooling_nor_a_dropout_nor_a_single_place(after):
    images = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(images, chain(images, [*parts()[:3], *after, keras.layers.Dense(2)]))
    assert default(model) == "relu2"


def test_a_model_without_a_map_has_no_default_layer():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must have a layer with a map"):
        default_layer(model)


@pytest.mark.parametrize("layer", [3, b"conv2", ["conv2", 3], ["conv2", None]])
def test_what_names_no_layer_is_refused(model, layer):
    with pytest.raises(TypeError, match="`layer` must be a name, a keras.Layer, a list of them, or None"):
        resolve_layers(model, layer)


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_of_a_layer_that_runs_in_a_chain_the_last_run_is_the_default(images, kind):
    assert default_layer(reused(kind, images))[1] == 1
    assert default(reused(kind, images)) == "relu2"


def test_of_a_layer_that_runs_side_by_side_no_run_is_the_default():
    one, two = keras.Input((SIDE, SIDE, 3)), keras.Input((SIDE, SIDE, 3))
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *parts()[:4]])
    model = keras.Model([one, two], keras.layers.Dense(2)(inner(one) - inner(two)))
    assert default_layer(model).call is None
    images = np.random.default_rng(0).normal(size=(2, 2, SIDE, SIDE, 3))
    with pytest.raises(
        ValueError, match="`call` must say which run.*'relu2', which ran 2 times. Give call=0"
    ):
        GradCAM(model)(list(images))


def test_the_default_of_several_outputs_is_the_last_that_all_of_them_depend_on(images):
    x = keras.Input((SIDE, SIDE, 3))
    trunk = chain(x, parts()[:3])
    pool = keras.layers.GlobalAveragePooling2D()
    heads = [keras.layers.Dense(2)(pool(keras.layers.Conv2D(4, 3, name=name)(trunk))) for name in ("a", "b")]
    model = keras.Model(x, heads)
    assert default(model) == "relu2"
    assert GradCAM(model)(images, targets.Output(1, 0)).map.shape == (3, 8, 8)


def test_a_branch_that_leads_to_no_output_is_not_the_default(images):
    class WithAside(keras.Model):
        def __init__(self):
            super().__init__()
            self.features, self.aside = keras.Sequential(parts()[:4]), keras.layers.Conv2D(4, 3, name="aside")
            self.scores = keras.layers.Dense(2)

        def call(self, images):
            scores = self.scores(self.features(images))
            self.aside(images)
            return scores

    model = WithAside()
    model(images)
    assert default(model) == "relu2"


def segmenter(side):
    """A network that goes down and up again, with a path across."""
    x = keras.Input((side, side, 3))
    top = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="down")(x)
    steps = [
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(6, 3, padding="same"),
        keras.layers.ReLU(name="bottleneck"),
        keras.layers.UpSampling2D(),
    ]
    joined = keras.layers.Concatenate(name="joined")([chain(top, steps), top])
    ends = [
        keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="up"),
        keras.layers.Conv2D(3, 1),
        keras.layers.Softmax(),
    ]
    return keras.Model(x, chain(joined, ends))


@pytest.mark.parametrize("side", [16, None])
def test_the_default_of_a_segmentation_is_the_end_of_the_bottleneck(side):
    assert default(segmenter(side)) == "bottleneck"


def test_the_default_of_a_detector_is_before_the_layers_that_make_its_output(images):
    x = keras.Input((SIDE, SIDE, 3))
    features = chain(x, parts()[:3])
    boxes = keras.layers.Reshape((64, 4))(keras.layers.Conv2D(4, 1, name="boxes")(features))
    scores = keras.layers.Reshape((64, 2))(keras.layers.Conv2D(2, 1, activation="sigmoid")(features))
    joined = keras.Model(x, keras.layers.Concatenate()([boxes, scores]))
    assert default(joined) == default(keras.Model(x, {"boxes": boxes, "scores": scores})) == "relu2"
    explanation = GradCAM(joined)(images, targets.Detection(9))
    assert explanation.map.shape == (3, 8, 8)


def test_the_default_of_a_detector_with_levels_is_what_all_levels_depend_on(images):
    x = keras.Input((SIDE, SIDE, 3))
    features = chain(x, parts()[:3])
    coarse = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="coarse")(features)
    heads = [
        keras.layers.Reshape((count, 6))(
            keras.layers.Conv2D(6, 1)(keras.layers.Conv2D(4, 3, padding="same")(level))
        )
        for level, count in ((features, 64), (coarse, 16))
    ]
    model = keras.Model(x, keras.layers.Concatenate(axis=1)(heads))
    assert default(model) == "relu2"
    for anchor in (3, 70):  # of the fine level and of the coarse one
        assert np.any(GradCAM(model)(images, targets.Detection(anchor)).map)


def test_maps_that_were_turned_round_are_not_the_default():
    x = keras.Input((SIDE, SIDE, 3))
    turned = chain(x, [*parts()[:3], keras.layers.Permute((2, 1, 3)), keras.layers.Reshape((4, 16, 6))])
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(turned)))
    assert default(model) == "relu2"


class Attention(keras.layers.Layer):
    """Attention of one's own, whose queries look like a map: (tokens, heads)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.queries = keras.layers.Dense(8, name="queries")
        self.heads = keras.layers.Reshape((15, 2, 4), name="heads")
        self.drop = keras.layers.Activation("linear", name="linear")

    def call(self, x):
        queries = self.drop(self.heads(self.queries(x)))
        return x + keras.ops.reshape(queries, (-1, 15, 8))


def test_queries_of_attention_are_not_the_default():
    x = keras.Input((24, 40, 3))
    steps = [keras.layers.Conv2D(8, 8, strides=8), keras.layers.Reshape((15, 8)), Attention(name="attention")]
    ends = [keras.layers.Flatten(), keras.layers.Dense(2)]
    assert default(keras.Model(x, chain(x, [*steps, *ends]))) == "attention"


def test_what_a_model_without_a_graph_takes_may_be_told(images):
    class Lazy(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.scores = keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Dense(2)

        def call(self, image, table):
            return self.scores(tf.reduce_mean(self.conv(image), (1, 2)) + table)

    model, table = Lazy(), np.zeros((3, 4), "float32")
    model(images, table)
    assert default(model, (images, table)) == "conv"


class Flattened(keras.layers.Layer):
    """Tokens whose number is lost with the batch's, as many vision transformers make them."""

    def call(self, x):
        return tf.reshape(x, (tf.shape(x)[0], -1, x.shape[-1]))


def test_tokens_whose_number_only_a_batch_tells_are_explained(images):
    x = keras.Input((24, 40, 3))
    steps = [
        keras.layers.Conv2D(8, 8, strides=8),
        Flattened(name="tokens"),
        keras.layers.LayerNormalization(name="norm"),
    ]
    ends = [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)]
    model = keras.Model(x, chain(x, [*steps, *ends]))
    assert default(model) == "norm"
    explanation = GradCAM(model)(np.random.default_rng(0).normal(size=(2, 24, 40, 3)))
    assert explanation.map.shape == (2, 3, 5)


@pytest.mark.parametrize("deeper", ["left", "right"])
def test_runs_are_numbered_by_the_input_they_look_at(deeper):
    left, right = keras.Input((12, 10, 3)), keras.Input((12, 10, 3))
    shared = keras.layers.Conv2D(4, 3, activation="relu", name="shared")
    pool = keras.layers.GlobalAveragePooling2D()
    sides = {"left": shared(left), "right": shared(right)}
    pooled = {side: pool(x) for side, x in sides.items()}
    pooled[deeper] = keras.layers.ReLU()(keras.layers.ReLU()(pooled[deeper]))
    model = keras.Model(
        [left, right], keras.layers.Dense(3, name="scores")(keras.layers.Subtract()(list(pooled.values())))
    )
    images = list(np.random.default_rng(0).normal(size=(2, 2, 12, 10, 3)).astype("float32"))
    kernel = model.get_layer("scores").kernel.numpy()[:, 1] / 80
    for call, sign in ((0, 1), (1, -1)):
        expected = sign * (shared(images[call]).numpy() @ kernel)
        np.testing.assert_allclose(GradCAM(model, "shared", call=call)(images, 1).map, expected, atol=1e-6)


class ClassToken(keras.layers.Layer):
    def __init__(self, at_end, **kwargs):
        super().__init__(**kwargs)
        self.at_end = at_end

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]))

    def call(self, x):
        token = keras.ops.repeat(self.token, keras.ops.shape(x)[0], axis=0)
        return keras.ops.concatenate([x, token] if self.at_end else [token, x], axis=1)


@pytest.mark.parametrize("at_end", [False, True])
def test_a_class_token_may_stand_before_or_behind_the_patches(at_end):
    x = keras.Input((24, 40, 3))
    steps = [
        keras.layers.Conv2D(8, 8, strides=8),
        keras.layers.Reshape((15, 8)),
        ClassToken(at_end),
        keras.layers.LayerNormalization(name="norm"),
    ]
    tokens = chain(x, steps)
    scores = keras.layers.Dense(3, name="scores")
    model = keras.Model(x, scores(keras.layers.GlobalAveragePooling1D()(tokens)))
    images = np.random.default_rng(0).normal(size=(2, 24, 40, 3)).astype("float32")
    values = keras.Model(x, tokens)(images).numpy()
    patches = (values[:, :15] if at_end else values[:, 1:]).reshape(2, 3, 5, 8)
    expected = patches @ scores.kernel.numpy()[:, 2] / 16
    np.testing.assert_allclose(GradCAM(model, "norm")(images, 2).map, expected, atol=1e-6)


# Layers in parallel branches


def conv(name, strides=1):
    return keras.layers.Conv2D(6, 3, strides, padding="same", activation="relu", name=name)


def features(name, x):
    return keras.layers.GlobalAveragePooling2D()(chain(x, [conv(f"{name}_first", 2), conv(f"{name}_last")]))


def side_by_side(vectors):
    return keras.ops.stack([keras.ops.squeeze(vector, -1) for vector in vectors], axis=-1)


JOINS = {
    "concatenated": keras.layers.Concatenate(),
    "stacked": side_by_side,
    "scaled": lambda vectors: 2.0 * keras.layers.Concatenate()(vectors) + 1.0,
    "padded and added": lambda vectors: keras.layers.Add()(
        [keras.ops.pad(vector, ((0, 0), (k, 2 - k))) for k, vector in enumerate(vectors)]
    ),
}


def a_branch_for_each_label(join, joined=None):
    """A backbone with three branches that end in one unit each; or `joined`, which takes their features."""
    keras.utils.set_random_seed(2)
    x = keras.Input((SIDE, SIDE, 3))
    backbone = conv("backbone", 2)(x)
    pooled = [keras.layers.GlobalAveragePooling2D()(conv(f"branch{k}")(backbone)) for k in range(3)]
    logits = joined(pooled) if joined else join([keras.layers.Dense(1)(one) for one in pooled])
    return keras.Model(x, keras.layers.Activation("sigmoid")(logits), name="inner")


class Around(keras.Model):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, images):
        return self.model(images)


def costume(kind, model):
    x = keras.Input((SIDE, SIDE, 3))
    if kind == "subclassed":
        around = Around(model)
        around(np.zeros((1, SIDE, SIDE, 3), "float32"))
        return around
    return {
        "functional": lambda: model,
        "nested": lambda: keras.Model(x, model(x)),
        "sequential": lambda: keras.Sequential([x, model]),
    }[kind]()


@pytest.mark.parametrize("kind", ["functional", "nested", "sequential", "subclassed"])
def test_the_default_of_a_branch_for_each_label_is_their_backbone(kind):
    model = costume(kind, a_branch_for_each_label(JOINS["concatenated"]))
    assert default(model) == "backbone"


@pytest.mark.parametrize("join", list(JOINS)[1:])
def test_it_does_not_matter_how_the_labels_are_joined(join):
    assert default(a_branch_for_each_label(JOINS[join])) == "backbone"


@pytest.mark.parametrize(
    "joined",
    [
        lambda pooled: keras.layers.Flatten()(
            keras.layers.TimeDistributed(keras.layers.Dense(1))(keras.ops.stack(pooled, axis=1))
        ),
        lambda pooled: keras.layers.Flatten()(keras.layers.Dense(1)(keras.ops.stack(pooled, axis=1))),
        lambda pooled: keras.ops.sum(keras.ops.stack(pooled, axis=1), axis=-1),
    ],
    ids=["TimeDistributed", "Dense", "sum"],
)
def test_nor_that_all_labels_share_a_dense_layer(joined):
    assert default(a_branch_for_each_label(None, joined)) == "backbone"


def test_every_label_of_a_branch_each_has_its_own_map(images):
    model = a_branch_for_each_label(JOINS["concatenated"])
    activations = model.get_layer("backbone")(images)
    a = tf.cast(activations, tf.float64)
    denses = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    maps = GradCAM(model)(images, targets.Classes([0, 1, 2])).map
    for label, dense in enumerate(denses):
        kernel, bias = (each.astype("float64") for each in model.get_layer(f"branch{label}").get_weights())
        with tf.GradientTape() as tape:
            tape.watch(a)
            x = tf.nn.relu(tf.nn.conv2d(a, kernel, 1, "SAME") + bias)
            logit = tf.reduce_mean(x, (1, 2)) @ dense.kernel.numpy().astype("float64")
        alpha = tf.reduce_mean(tape.gradient(logit, a), (1, 2), keepdims=True)
        expected = tf.reduce_sum(alpha * a, -1).numpy()
        np.testing.assert_allclose(maps[:, label], expected, atol=1e-6 * np.abs(expected).max())
        assert np.abs(expected).max() > 1e-4


def test_a_label_without_a_branch_counts_too():
    x = keras.Input((SIDE, SIDE, 3))
    stem = conv("stem", 2)(x)
    pool = keras.layers.GlobalAveragePooling2D()
    vectors = [keras.layers.Dense(1)(pool(each)) for each in (conv("branch")(stem), stem)]
    assert default(keras.Model(x, keras.layers.Concatenate()(vectors))) == "stem"


def test_networks_without_a_common_layer_need_a_layer(images):
    x = keras.Input((SIDE, SIDE, 3))
    vectors = [keras.layers.Dense(1)(features(name, x)) for name in ("one", "two")]
    model = keras.Model(x, keras.layers.Concatenate()(vectors))
    with pytest.raises(
        ValueError, match="`layer` must be given for a model with no layer that all.*'one_last'"
    ):
        GradCAM(model)
    assert np.any(GradCAM(model, "one_last")(images, 0).map)
    several = keras.Model(x, dict(zip("ab", vectors, strict=True)))
    with pytest.warns(UserWarning, match="There is no layer that all outputs of the model depend on"):
        GradCAM(several)


def ensemble(join):
    x = keras.Input((SIDE, SIDE, 3))
    inner = keras.Input((SIDE, SIDE, 3))
    ends = [keras.layers.Dense(3, activation="softmax")(features(name, inner)) for name in ("one", "two")]
    members = [keras.Model(inner, end) for end in ends]
    return keras.Model(x, join([member(x) for member in members]))


@pytest.mark.parametrize(
    "join",
    [
        keras.layers.Average(),
        lambda ends: keras.ops.mean(keras.ops.stack(ends), axis=0),
        lambda ends: 0.25 * ends[0] + 0.75 * ends[1],
        lambda ends: keras.layers.Dense(3)(keras.layers.Concatenate()(ends)),
    ],
    ids=["Average", "mean", "weighted", "Dense"],
)
@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_the_default_of_an_ensemble_names_the_other_members(join, kind):
    model = costume(kind, ensemble(join))
    with pytest.warns(UserWarning, match="is in one of several parallel branches.*_last.*layer=") as caught:
        cam = GradCAM(model)
    (warning,) = caught
    other = {"one_last": "two_last", "two_last": "one_last"}[cam.layer.name]
    assert other in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.filterwarnings("ignore:A probability is explained")  # The mean of several has no logit.
def test_layers_that_the_warning_names_are_explained_without_one(images):
    model = ensemble(keras.layers.Average())
    cam = GradCAM(model, ["one_last", "two_last"])
    expected = np.mean(cam(images, 1, size=None).heatmaps, axis=0)
    expected /= expected.max((1, 2), keepdims=True)
    np.testing.assert_allclose(cam(images, 1, size=None).heatmap, expected, atol=1e-6)


def test_the_default_of_two_streams_names_the_other():
    rgb, flow = keras.Input((SIDE, SIDE, 3)), keras.Input((SIDE, SIDE, 2))
    joined = keras.layers.Concatenate()([features("rgb", rgb), features("flow", flow)])
    model = keras.Model([rgb, flow], keras.layers.Dense(3)(joined))
    with pytest.warns(UserWarning, match="because they depend on different images") as caught:
        cam = GradCAM(model)
    other = {"rgb_last": "flow_last", "flow_last": "rgb_last"}[cam.layer.name]
    assert f"through '{other}'" in str(caught[0].message)


def beside(shape, layers):
    """A network of images beside another input."""
    image, other = keras.Input((SIDE, SIDE, 3)), keras.Input(shape)
    joined = keras.layers.Concatenate()([features("image", image), chain(other, layers)])
    return keras.Model([image, other], keras.layers.Dense(3)(joined))


def two_levels():
    x = keras.Input((SIDE, SIDE, 3))
    levels = [conv("level1", 2)(x)]
    levels.append(conv("level2", 2)(levels[0]))
    pooled = [keras.layers.GlobalAveragePooling2D()(level) for level in levels]
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.Concatenate()(pooled)))


def excited():
    """A squeeze-and-excitation block, and a residual around it."""
    x = keras.Input((SIDE, SIDE, 3))
    start = conv("start", 2)(x)
    inside = conv("inside")(start)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(inside)
    gate = keras.layers.Conv2D(6, 1, activation="sigmoid", name="gate")(gate)
    end = keras.layers.Add(name="end")([start, keras.layers.Multiply()([inside, gate])])
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(end)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: beside((4,), [keras.layers.Dense(5)]), "image_last"),
        (
            lambda: beside((30, 2), [keras.layers.Conv1D(4, 3), keras.layers.GlobalAveragePooling1D()]),
            "image_last",
        ),
        (two_levels, "level2"),
        (excited, "end"),
        (lambda: segmenter(16), "bottleneck"),
    ],
    ids=["table", "signal", "two levels", "excited", "segmenter"],
)
@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_no_warning_comes_where_nothing_is_left_out(make, expected, kind):
    model = make()
    if kind == "subclassed":
        model, inner = Around(model), model
        zeros = [np.zeros((1, *x.shape[1:]), "float32") for x in inner.inputs]
        model(zeros if len(zeros) > 1 else zeros[0])
    assert GradCAM(model).layer.name == expected  # A warning is an error here.
