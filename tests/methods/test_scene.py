"""What a scene answers on every kind of model: other activations, other images, and gradients by both."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import SIDE, chain, parts
from oracle import Oracle
from zoo import ALIKE, FEW, with_other_places

from tf_gradcam import GradCAM, methods, targets
from tf_gradcam._graph.graph import ancestors
from tf_gradcam._methods.protocol import is_classless, takes_gradients

SLOW = pytest.mark.slow


NAMES = [name for name in zoo.KINDS if name != "text"]


def marks(name):
    return [] if name in FEW else pytest.mark.full if name in ALIKE else SLOW


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(name)) for name in NAMES])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def kind(name):
    return zoo.make(name)


def in_turn(choices):
    """Of a product of kinds and methods: each of the few kinds with one of `choices`, which take turns.

    What a method asks of a scene is asked of every kind by `everything`.
    """
    return lambda name, method: name in FEW and choices[FEW.index(name) % len(choices)] == method


class Asked:
    """A method that notes what the scene answers to a question, a dict of tensors."""

    def __init__(self, question):
        self.question, self.answers = question, None

    def explain(self, scene):
        answers = self.question(scene)

        def note(*values):
            self.answers = {key: each.numpy() for key, each in zip(answers, values, strict=True)}

        tf.py_function(note, list(answers.values()), [])
        return tf.reduce_sum(scene.activations, axis=-1)


def ask(model, images, question, layer=None, target=None, call=None):
    """Return what the scene answers, as arrays."""
    method = Asked(question)
    GradCAM(model, layer, call=call, method=method)(images, target)
    return method.answers


def target(kind, index=None):
    return index if kind.output is None else targets.Output(kind.output, index)


def predicted(kind):
    return zoo.logits(kind).argmax(-1)


def picked(logits, classes):
    return logits[np.arange(len(logits)), classes]


# How copies of the batch differ from it.
CHANGES = [lambda values: values, lambda values: values[::-1], lambda values: 0.5 * values]


def copies(values):
    return tf.concat([change(values) for change in CHANGES], axis=0)


def everything(scene):
    answers = {"image": scene.image, "activations": scene.activations, "score": scene.score}
    answers |= {"index": scene.index, "logits": scene.logits}
    answers["gradients"] = scene.gradients(scene.score)
    answers["tail"] = scene.tail(copies(scene.activations))
    there = scene.at(copies(scene.image))
    answers |= {"there": there.score, "index_there": there.index}
    # Twice the rows of a scene that has three times those of the first.
    answers["tail_there"] = there.tail(tf.concat([there.activations] * 2, axis=0))
    answers["back"] = there.at(tf.concat([scene.image] * 6, axis=0)).score
    return answers | slope(scene)


def slope(scene):
    """How steep the score is along its gradient by the image: as its length says, and as a step tells."""
    gradient = scene.image_gradients(scene.score)
    length = tf.sqrt(tf.reduce_sum(gradient**2, axis=list(range(1, gradient.shape.rank)), keepdims=True))
    ahead, behind = (scene.at(scene.image + step * gradient / length).score for step in (0.01, -0.01))
    return {"length": tf.reshape(length, [-1]), "step": (ahead - behind) / 0.02, "shape": tf.shape(gradient)}


@pytest.fixture(scope="module")
def answers(kind):
    return ask(kind.model, kind.inputs, everything, kind.layer, target(kind), kind.call)


def test_a_scene_shows_activations_score_class_and_logits(kind, answers):
    zoo.assert_near(answers["activations"], zoo.on_grid(kind, kind.activations), kind.tolerance)
    zoo.assert_near(answers["score"], zoo.logits(kind).max(-1), kind.tolerance)
    np.testing.assert_array_equal(answers["index"], predicted(kind))
    zoo.assert_near(answers["logits"], zoo.logits(kind), kind.tolerance)


def test_the_gradients_are_those_worked_out_by_hand(kind, answers):
    expected = zoo.on_grid(kind, zoo.gradients(kind, predicted(kind)))
    zoo.assert_near(answers["gradients"], expected, 2 * kind.tolerance)


# Other activations


def test_the_tail_is_the_network_run_on_from_other_activations(kind, answers):
    found = answers["tail"].reshape(3, 2)
    expected = [zoo.logits(with_other_places(kind, change)) for change in CHANGES]
    zoo.assert_near(found, [picked(each, predicted(kind)) for each in expected], kind.tolerance)
    np.testing.assert_allclose(found[0], answers["score"], rtol=1e-6)


# Other images


def is_of(leaf, image):
    """Whether `image`, in whatever order of axes, is that input of the model."""
    return np.array_equal(np.sort(leaf, axis=None), np.sort(image, axis=None))


def with_another_image(kind, image, change):
    """Return the inputs of the kind, with the one changed that is `image`."""
    assert sum(is_of(leaf, image) for leaf in keras.tree.flatten(kind.inputs)) == 1
    return keras.tree.map_structure(lambda leaf: change(leaf) if is_of(leaf, image) else leaf, kind.inputs)


@pytest.mark.product(kept=lambda name: name in FEW)
def test_other_images_are_scored_for_the_class_of_the_first(kind, answers):
    image, cam = answers["image"], GradCAM(kind.model, kind.layer, call=kind.call)
    assert image.shape[-1 - len(kind.size) : -1] == kind.size
    others = [with_another_image(kind, image, change) for change in CHANGES]
    expected = [cam(each, target(kind, predicted(kind))).score for each in others]
    zoo.assert_near(answers["there"].reshape(3, 2), expected, kind.tolerance)
    np.testing.assert_array_equal(answers["index_there"], np.tile(predicted(kind), 3))


def test_a_scene_of_a_scene_is_a_scene(kind, answers):
    np.testing.assert_allclose(answers["tail_there"], np.tile(answers["there"], 2), rtol=1e-5)
    np.testing.assert_allclose(answers["back"], np.tile(answers["score"], 6), rtol=1e-5)


def test_what_goes_around_the_layer_goes_around_its_tail(images):
    """And is that of the scene's own images."""
    keras.utils.set_random_seed(0)
    x = keras.Input((SIDE, SIDE, 3))
    first, second = (keras.layers.Conv2D(4, 3, padding="same", activation="tanh", name=name) for name in "ab")
    before = first(x)
    ends = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Model(x, chain(before * second(before), ends))

    def question(scene):
        there = scene.at(0.5 * scene.image)
        tails = {"tail": scene.tail(0.7 * scene.activations), "there": there.tail(0.7 * there.activations)}
        return {"score": scene.score, "score there": there.score, **tails}

    found = ask(model, images, question, "b", 1)
    bias = model.layers[-1].bias[1]
    scores = {"tail": found["score"], "there": found["score there"]}
    for name, score in scores.items():  # linear in what the layer returns, but for the bias
        np.testing.assert_allclose(found[name], 0.7 * (score - bias) + bias, rtol=1e-4, atol=1e-6)
    assert np.abs(found["there"] - found["tail"]).min() > 1e-3


# Gradients


def test_the_gradient_by_the_image_tells_how_the_score_changes_with_it(name, kind, answers):
    np.testing.assert_array_equal(answers["shape"][-1 - len(kind.size) : -1], kind.size)
    if name not in ["mixed_float16", "mixed_bfloat16", "several dtypes"]:  # where a small step is rounded off
        zoo.assert_near(answers["step"], answers["length"], 0.03)


def test_anything_in_the_scene_can_be_differentiated_also_twice(functional, images):
    def question(scene):
        squares = tf.reduce_sum(scene.activations**2, axis=(1, 2, 3))
        once = scene.gradients(squares * scene.score)
        return {
            "activations": scene.activations,
            "score": scene.score,
            "by score": scene.gradients(scene.score),
            "squares": squares,
            "once": once,
            "twice": scene.gradients(scene.gradients(tf.reduce_sum(scene.activations**3))),
            "by image": scene.image_gradients(scene.image**2),
            "image": scene.image,
        }

    found = ask(functional, images, question, "relu2", 1)
    score, squares = (found[name][:, None, None, None] for name in ("score", "squares"))
    expected = 2 * found["activations"] * score + squares * found["by score"]
    np.testing.assert_allclose(found["once"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["twice"], 6 * found["activations"], rtol=1e-5)
    np.testing.assert_allclose(found["by image"], 2 * found["image"], rtol=1e-6)


def test_the_gradient_is_zero_of_what_does_not_depend_on_the_layer(functional, images):
    found = ask(functional, images, lambda scene: {"": scene.gradients(tf.reduce_sum(scene.image))}, "conv2")
    np.testing.assert_array_equal(found[""], np.zeros((3, 8, 8, 6)))


def test_the_score_must_depend_on_the_layer(images):
    x = keras.Input((SIDE, SIDE, 3))
    beside = keras.layers.Conv2D(2, 3, name="beside")(x)
    scores = chain(x, [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model = keras.Model(x, [scores, beside])
    with pytest.raises(
        ValueError, match="`layer` must be on the path to the score. Received: layer='beside'"
    ):
        GradCAM(model, "beside", method="shapleycam")(images, targets.Output(0))


class ByScene:
    """Grad-CAM by the functions of the scene."""

    def explain(self, scene):
        return methods.gradcam(scene.activations, scene.gradients(scene.score))


def test_small_gradients_do_not_vanish_in_float16():
    keras.utils.set_random_seed(1)
    x = keras.Input((64, 64, 3))
    model = keras.Model(x, chain(x, [*parts(), keras.layers.Activation("linear", dtype="float32")]))
    half = keras.models.clone_model(model, clone_function=in_half_precision)
    model.get_layer("scores").set_weights([each * 1e-3 for each in model.get_layer("scores").get_weights()])
    half.set_weights(model.get_weights())
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3))
    expected = GradCAM(model, "conv2")(image, 1).map.numpy()
    zoo.assert_near(GradCAM(half, "conv2", method=ByScene())(image, 1).map, expected, 2e-2)


def in_half_precision(layer):
    return type(layer).from_config({**layer.get_config(), "dtype": "mixed_float16"})


# Whole numbers


@pytest.fixture(scope="module")
def text():
    return zoo.KINDS["text"]()


def test_other_images_are_rounded_and_kept_in_the_range_that_the_model_takes():
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 1), dtype="uint8")
    scale, conv = keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 3, name="conv")
    model = keras.Model(x, chain(x, [scale, conv, keras.layers.GlobalAveragePooling2D()]))
    images = np.random.default_rng(0).integers(50, 200, (2, 6, 6, 1), dtype="uint8")

    def question(scene):
        assert scene.model_input.dtype == tf.uint8
        others = [scene.image + 0.4, scene.image + 1000, scene.image - 1000, scene.image - 0.6]
        return {"image": scene.image, "scores": scene.at(tf.concat(others, axis=0)).score}

    found = ask(model, images, question, "conv", 1)
    np.testing.assert_array_equal(found["image"], images)
    alike = [images, np.full_like(images, 255), np.zeros_like(images), images - 1]
    cam = GradCAM(model, "conv")
    expected = [cam(each, 1).score for each in alike]
    np.testing.assert_allclose(found["scores"].reshape(4, 2), expected, rtol=1e-5)


def test_words_have_a_scene_and_a_tail(text):
    def question(scene):
        activations = scene.activations
        return {"image": scene.image, "score": scene.score, "tail": scene.tail(copies(activations))}

    found = ask(text.model, text.inputs, question, text.layer)
    np.testing.assert_array_equal(found["image"][..., 0], text.inputs)
    expected = [zoo.logits(text._replace(activations=change(text.activations))) for change in CHANGES]
    zoo.assert_near(found["tail"].reshape(3, 2), [picked(each, predicted(text)) for each in expected], 1e-5)
    np.testing.assert_allclose(found["tail"][:2], found["score"], rtol=1e-6)


@pytest.mark.parametrize("name", ["scorecam", "sscam", "iscam", "smooth_gradcam_plus_plus"])
def test_a_method_does_not_compute_with_words(text, name):
    message = (
        "`method` must not change an input of indices, such as the token numbers of an embedding. "
        "Received: .*int32"
    )
    with pytest.raises(ValueError, match=message):
        GradCAM(text.model, text.layer, method=name)(text.inputs)


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "smoothgrad", "fullgrad"])
def test_words_have_no_gradient(text, name):
    with pytest.raises(ValueError, match="`method` "):
        GradCAM(text.model, method=name)(text.inputs)


# Several scores, several layers


def test_several_classes_at_once_are_what_each_is_alone(functional, images):
    cam = GradCAM(functional, "relu2", method=ByScene())
    together = cam(images, targets.Classes([[4, 1], [0, 3], [2, 2]]))
    for place, classes in enumerate([[4, 0, 2], [1, 3, 2]]):
        alone = cam(images, classes)
        zoo.assert_near(together.map[:, place], alone.map.numpy(), 1e-5)
        zoo.assert_near(together.heatmap[:, place], alone.heatmap.numpy(), 1e-4)


def test_several_layers_have_a_scene_each(model, images):
    together = GradCAM(model, ["conv1", "relu2"], method=ByScene())(images)
    oracle = Oracle(model.get_weights(), images)
    for layer, found in zip(["conv1", "relu2"], together.map, strict=True):
        zoo.assert_near(found, oracle.map(layer), 1e-5)


def test_nothing_that_only_the_layer_needed_is_computed_in_its_tail(functional, images):
    def question(scene):
        types = {}
        for name, end in {"score": scene.score, "tail": scene.tail(scene.activations)}.items():
            way = ancestors([end], lambda each: each is scene.layer_output.op)
            types[name] = tf.constant([operation.type == "Conv2D" for operation in way])
        whole = ancestors([scene.score])
        types["whole"] = tf.constant([operation.type == "Conv2D" for operation in whole])
        return types

    found = ask(functional, images, question, "relu2")
    assert {name: sum(each) for name, each in found.items()} == {"score": 0, "tail": 0, "whole": 2}


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        (methods.gradcam, True),
        (methods.gradcam_plus_plus, True),
        (functools.partial(methods.gradcam_plus_plus, normalize_alpha=True), True),
        (methods.eigencam, False),
        (methods.kpca_cam, False),
        (functools.partial(methods.fem, k=1.0), False),
        (lambda activations: activations[..., 0], False),
        (lambda activations, scale=2.0: scale * activations[..., 0], False),
        (lambda activations, *others: activations[..., 0], True),
        (lambda *both: both[0][..., 0], True),
        (tf.multiply, True),
    ],
)
def test_a_formula_that_needs_one_argument_needs_no_gradients(method, needs):
    assert takes_gradients(method) == needs


def test_methods_whose_map_is_the_same_for_every_class_are_known_also_inside_others():
    for method in (methods.eigencam, methods.smooth(methods.fem), methods.augment(methods.kpca_cam)):
        assert is_classless(method)
    for method in (methods.gradcam, methods.smooth(methods.gradcam), methods.scorecam(), ByScene()):
        assert not is_classless(method)


# Methods, on every kind of model


def weighted(kind, weights):
    return np.einsum("n...k,nk->n...", zoo.on_grid(kind, kind.activations.astype("float64")), weights)


def ablated(kind):
    """Ablation-CAM by hand: the share of the score that is lost without each channel."""
    score, lost = zoo.logits(kind).max(-1), []
    for channel in range(kind.activations.shape[-1]):
        left = np.arange(kind.activations.shape[-1]) != channel
        without = with_other_places(kind, lambda values, left=left: values * left)
        lost.append(score - picked(zoo.logits(without), predicted(kind)))
    return weighted(kind, (np.array(lost) / score).T)


def finer(kind):
    """Finer-CAM by hand: there are three classes, so that the others are all the nearest."""
    maps = [zoo.expected_maps(kind, np.full(2, index))["gradcam"] for index in range(zoo.CLASSES)]
    own = predicted(kind)
    others = [(np.sum(maps, axis=0) - maps[own[i]])[i] / (zoo.CLASSES - 1) for i in range(2)]
    return zoo.expected_maps(kind, own)["gradcam"] - others


STILL = methods.smooth("gradcam", samples=2, noise=0.0)
BY_HAND = {
    "ablationcam": ablated,
    "finercam": finer,
    STILL: lambda kind: zoo.expected_maps(kind, predicted(kind))["gradcam"],
    "shapleycam": lambda kind: zoo.expected_maps(kind, predicted(kind))["gradcam"],
}


@SLOW
@pytest.mark.parametrize("method", BY_HAND, ids=str)
@pytest.mark.product(kept=in_turn(list(BY_HAND)))
def test_methods_that_look_at_scenes_are_right(kind, method):
    if method == "shapleycam" and kind.tail is not None:
        return
    found = GradCAM(kind.model, kind.layer, call=kind.call, method=method)(kind.inputs, target(kind)).map
    zoo.assert_near(found, BY_HAND[method](kind), 2 * kind.tolerance)


OTHER_IMAGES = [
    methods.scorecam(channels=4),
    methods.smooth("eigencam", samples=3),
    methods.augment("gradcam"),
    methods.augment(methods.smooth("hirescam", samples=2)),
]


@SLOW
@pytest.mark.parametrize("method", OTHER_IMAGES, ids=repr)
@pytest.mark.product(kept=in_turn(OTHER_IMAGES))
def test_methods_that_look_at_other_images_have_a_map_on_the_layers_grid(kind, method):
    explanation = GradCAM(kind.model, kind.layer, call=kind.call, method=method)(kind.inputs, target(kind))
    assert explanation.map.shape == (2, *kind.grid)
    assert explanation.heatmap.shape == (2, *kind.size)
    assert np.isfinite(explanation.map).all()
    assert np.any(explanation.map, axis=tuple(range(1, explanation.map.ndim))).all()


AT_THE_IMAGE = ["gradient", "gradient_x_input", methods.integrated_gradients(steps=2)]


@SLOW
@pytest.mark.parametrize("method", AT_THE_IMAGE, ids=repr)
@pytest.mark.product(kept=in_turn(AT_THE_IMAGE))
def test_methods_at_the_image_have_a_map_as_large_as_the_image(kind, method):
    explanation = GradCAM(kind.model, method=method)(kind.inputs, target(kind))
    assert explanation.map.shape[-len(kind.size) :] == kind.size
    assert explanation.heatmap.shape == explanation.map.shape
    assert np.isfinite(explanation.map).all()
    assert np.any(explanation.map, axis=tuple(range(1, explanation.map.ndim))).all()
