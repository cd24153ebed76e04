"""All methods by name: what may be called one, and what is true of every one of them."""

import contextlib
import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, KINDS, SIDE, build, chain, count_runs, parts

from tf_gradcam import GradCAM, make_gradcam_heatmap, methods
from tf_gradcam._methods.protocol import is_classless

# The costly ones, with parameters that make them cheap.
CHEAP = {
    "scorecam": methods.scorecam(channels=4),
    "sscam": methods.sscam(samples=2, channels=3),
    "iscam": methods.iscam(samples=2, channels=3),
    "opticam": methods.opticam(steps=5),
    "rise": methods.rise(masks=32),
    "integrated_gradients": methods.integrated_gradients(steps=4),
    "smoothgrad": methods.smooth("gradient", samples=3),
    "smooth_gradcam_plus_plus": methods.smooth("gradcam_plus_plus", samples=3),
}
FOR_ANY_MODEL = [name for name in methods.METHODS if name != "legrad"]  # It needs a vision transformer.
ONE_OF_EACH_SORT = ["gradcam", "scorecam", "gradient"]
UNSIGNED = {name for name, about in methods.METHODS.items() if not about.signed}


def close(found, expected, tolerance=1e-4):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def classes_for(name, count, classes=(4, 0, 2)):
    """The target of a batch of `count` images: one class each, or `None` where the map has no class."""
    return None if is_classless(methods.get(CHEAP.get(name, name))) else list(classes)[:count]


def explain(model, name, images):
    return GradCAM(model, method=CHEAP.get(name, name))(images, classes_for(name, len(images)))


class Explainer:
    """A `GradCAM` of the small network that many tests share, as a trace takes a second and a call nothing.

    A trace reads the weights at each call, so a test can set others with `weights`.
    """

    def __init__(self, name):
        self.name, self.model = name, build("functional")
        self.runs = count_runs(self.model)
        self.cam = GradCAM(self.model, method=CHEAP.get(name, name))

    def __call__(self, images):
        return self.cam(images, classes_for(self.name, len(images)))

    @contextlib.contextmanager
    def weights(self, weights):
        before = self.model.get_weights()
        self.model.set_weights(weights)
        try:
            yield
        finally:
            self.model.set_weights(before)


@functools.cache
def shared(name):
    return Explainer(name)


# What a method is


def test_what_is_listed_is_there_under_the_same_name():
    for name, about in methods.METHODS.items():
        if name not in ("smoothgrad", "smooth_gradcam_plus_plus"):
            known = getattr(methods, name)
            assert about.method is known or about.method == known()
    public = {name for name, value in vars(methods).items() if _is_method(value)}
    assert public == methods.METHODS.keys() - {"smoothgrad", "smooth_gradcam_plus_plus"} | {
        "smooth",
        "augment",
    }


def _is_method(value):
    is_formula = getattr(value, "__module__", "") == "tf_gradcam._methods.formulas"
    return is_formula or (isinstance(value, type) and hasattr(value, "explain"))


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_says_what_it_is(name):
    about = methods.METHODS[name]
    documented = about.method if callable(about.method) else type(about.method)
    assert "Source: " in documented.__doc__
    assert about.cost
    assert about.paper


def test_equal_methods_are_equal_and_others_are_not():
    assert methods.scorecam(channels=8) == methods.scorecam(channels=8)
    assert methods.scorecam() != methods.ablationcam()
    assert methods.get(methods.scorecam) == methods.get("scorecam") == methods.scorecam()
    assert methods.get(methods.smooth("gradcam")) == methods.smooth(methods.gradcam)
    assert methods.get(tf.multiply) is tf.multiply


@pytest.mark.slow
def test_equal_methods_share_what_was_compiled(images):
    model = build("functional")
    runs = count_runs(model)
    for make in (
        lambda: methods.finercam(classes=2),
        lambda: functools.partial(methods.gradcam_plus_plus, normalize_alpha=True),
        lambda: methods.smooth(functools.partial(methods.gradcam_plus_plus, normalize_alpha=True), samples=2),
        lambda: methods.augment("layercam"),
    ):
        for _ in range(2):  # the first may run without being compiled
            make_gradcam_heatmap(model, images, method=make())
        before = len(runs)
        for target in (None, 3, [1, 2, 3]):
            make_gradcam_heatmap(model, images, target=target, method=make())
        assert len(runs) == before


def test_parameters_of_a_formula_change_its_map(functional, images):
    paper, authors = (
        GradCAM(functional, "conv1", method=each)(images).map.numpy()
        for each in (
            "gradcam_plus_plus",
            functools.partial(methods.gradcam_plus_plus, normalize_alpha=True),
        )
    )
    assert np.abs(paper - authors).max() > 1e-2 * np.abs(paper).max()


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`method` must be one of \['ablationcam', .*'grad-cam'"):
        methods.get("grad-cam")


@pytest.mark.parametrize(("typed", "meant"), [("GradCAM", "gradcam"), ("layrcam", "layercam")])
def test_a_name_that_is_nearly_right_is_suggested(typed, meant):
    with pytest.raises(ValueError, match=f"Received: method='{typed}'. Did you mean '{meant}'"):
        methods.get(typed)


def test_a_partial_of_a_class_is_a_method_and_what_can_not_be_hashed_is_left_alone():
    assert methods.get(functools.partial(methods.scorecam, channels=2)) == methods.scorecam(channels=2)
    own = functools.partial(methods.fem, k=np.array(1.0))
    assert methods.get(own) is own


@pytest.mark.parametrize("around", [methods.smooth, methods.augment])
def test_what_goes_around_a_method_needs_one(around):
    with pytest.raises(TypeError, match="`method` must wrap another method: methods."):
        methods.get(around)


def test_a_method_that_is_no_name_is_refused():
    with pytest.raises(TypeError, match=r"`method` must be a name, a callable.*int"):
        methods.get(3)


@dataclasses.dataclass(frozen=True)
class Dimmed:
    """One of a user's own."""

    share: float

    def explain(self, scene):
        dimmed = scene.at(self.share * scene.image)
        return (scene.score - dimmed.score)[:, None, None] * tf.ones_like(scene.activations[..., 0])


def test_a_method_of_ones_own_looks_at_scenes(model, images):
    explanation = GradCAM(model, method=Dimmed(0.5))(images, 1)
    lost = GradCAM(model)(images, 1).score - GradCAM(model)(0.5 * images, 1).score
    close(explanation.map[:, 0, 0], lost.numpy())


def test_a_map_of_the_wrong_shape_is_refused(functional, images):
    class Wrong:
        def explain(self, scene):
            return scene.activations

    with pytest.raises(ValueError, match="`method` must return a map, a tensor [(]N, h, w[)]"):
        GradCAM(functional, method=Wrong())(images)


def test_a_target_is_refused_where_the_map_is_the_same_for_every_class(functional, images):
    for method in (
        "eigencam",
        "fem",
        "kpca_cam",
        methods.smooth("fem"),
        lambda activations: activations[..., 0],
    ):
        with pytest.raises(ValueError, match="`target` must be None for a method whose map is the same"):
            GradCAM(functional, method=method)(images, 3)


def test_a_layer_is_refused_by_what_explains_at_the_image(functional):
    for method in ("gradient", "fullgrad", "rise", "smoothgrad", methods.augment("gradient")):
        with pytest.raises(ValueError, match="`layer` must be None for a method whose map lies on the image"):
            GradCAM(functional, "conv1", method=method)
        assert GradCAM(functional, method=method).layer is None


# What is true of every method


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_ANY_MODEL)
@pytest.mark.parametrize("index", [None, 1])
@pytest.mark.product(kept=lambda name, index: name in [*ONE_OF_EACH_SORT, "cam", "finercam"])
def test_every_method_explains_a_segmentation(name, index, images):
    inputs = keras.Input((SIDE, SIDE, 3))
    conv = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax")(conv(inputs)))
    method = CHEAP.get(name, name)
    if is_classless(methods.get(name)) and index is not None:
        return
    if name in ("cam", "finercam"):
        with pytest.raises(ValueError, match="needs a class as its target"):
            GradCAM(model, method=method)(images, index)
        return
    assert np.isfinite(GradCAM(model, method=method)(images, index).map).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradient", "fullgrad", "guided_gradcam", "scorecam"])
def test_a_model_that_takes_whole_numbers_is_explained_as_by_their_casts(name):
    whole, real = keras.Input((SIDE, SIDE, 3), dtype="uint8"), keras.Input((SIDE, SIDE, 3))
    layers = [keras.layers.Rescaling(1 / 255), *parts()]
    models = [keras.Model(each, chain(each, layers)) for each in (whole, real)]
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), "uint8")
    found, expected = (explain(model, name, pixels).map.numpy() for model in models)
    close(found, expected, 0.1 if name == "scorecam" else 1e-4)  # Masked pixels are rounded.


# `make test` tries the kind that is read otherwise than the functional one, and of the formulas only one: the
# others take the same activations and gradients.
READ_THE_MODEL = [*ONE_OF_EACH_SORT, "cam", "ablationcam", "reciprocam", "guided_gradcam", "fullgrad"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_ANY_MODEL)
@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.product(kept=lambda name, kind: kind == "subclassed" and name in READ_THE_MODEL)
def test_every_method_explains_every_kind_of_model_alike(name, kind, images):
    expected = shared(name)(images).map.numpy()
    assert np.isfinite(expected).all()
    assert np.abs(expected).max() > 0
    close(explain(build(kind), name, images).map.numpy(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_ANY_MODEL)
def test_heatmaps_are_scaled_and_as_large_as_the_image(name, images):
    explanation = shared(name)(images)
    assert explanation.heatmap.shape == (3, SIDE, SIDE)
    assert np.min(explanation.heatmap) >= 0
    np.testing.assert_allclose(np.max(explanation.heatmap, axis=(1, 2)), 1, atol=1e-6)


# The class that the model itself predicts is another trace.
@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_ANY_MODEL)
@pytest.mark.parametrize("predicted", [False, True])
@pytest.mark.product(kept=lambda name, predicted: not predicted or name in ONE_OF_EACH_SORT)
def test_every_image_has_the_map_that_it_has_alone(name, predicted, images):
    cam = shared(name).cam
    classes = [None] * 3 if predicted else classes_for(name, 3) or [None] * 3
    together = cam(images, None if None in classes else classes).map.numpy()
    alone = [cam(images[i : i + 1], classes[i]).map for i in range(3)]
    close(np.concatenate(alone), together)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_ANY_MODEL)
def test_another_class_batch_or_image_never_runs_the_models_python_again(name, images):
    explainer = shared(name)
    explainer(images)
    before = len(explainer.runs)
    classless = is_classless(methods.get(name))
    for count, index in ((1, 4), (2, 0), (3, 2)):
        explainer.cam(images[:count] * 2, None if classless else index)
    assert 0 < len(explainer.runs) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_ANY_MODEL)
def test_the_order_of_the_channels_does_not_matter(name, images):
    explainer, order = shared(name), np.random.default_rng(2).permutation(6)
    kernel1, bias1, kernel2, bias2, dense, bias = explainer.model.get_weights()
    expected = explainer(images).map.numpy()
    with explainer.weights([kernel1, bias1, kernel2[..., order], bias2[order], dense[order], bias]):
        close(explainer(images).map, expected)


# Not proportional to the score: Grad-CAM++ by its formula, the others by their softmax over channels.
SCALE_MATTERS = {"gradcam_plus_plus", "smooth_gradcam_plus_plus", "scorecam", "sscam", "iscam"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FOR_ANY_MODEL) - SCALE_MATTERS))
def test_a_score_three_times_as_large_has_the_same_heatmap(name, images):
    explainer = shared(name)
    *features, dense, bias = explainer.model.get_weights()
    expected = explainer(images)
    with explainer.weights([*features, 3 * dense, 3 * bias]):
        found = explainer(images)
    if not is_classless(methods.get(name)):
        np.testing.assert_allclose(found.score, 3 * expected.score, rtol=1e-5)
    np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=2e-4)


# Random noise and masks are not flipped with the image.
FLIPPED = set(FOR_ANY_MODEL) - {"rise", "sscam", "smoothgrad", "smooth_gradcam_plus_plus"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FLIPPED))
def test_a_network_that_knows_no_left_flips_the_map_with_the_image(name, images):
    explainer = shared(name)
    weights = explainer.model.get_weights()
    for place in (0, 2):
        weights[place] = weights[place] + weights[place][:, ::-1]
    with explainer.weights(weights):
        plain, flipped = (explainer(each).map.numpy() for each in (images, images[:, :, ::-1]))
    close(flipped[:, :, ::-1], plain)


# Resized from a grid of 16 places to 33 pixels, which doesn't move by whole pixels.
RESIZED = {"scorecam", "iscam", "opticam", "guided_gradcam", "fullgrad"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FLIPPED - RESIZED))
def test_what_moves_in_the_image_moves_in_the_map(name):
    """By two pixels, one place of a network of stride 2, far from the edges; the background is 0."""
    inputs = keras.Input((33, 33, 3))
    steps = [
        keras.layers.Conv2D(8, 3, strides=2, activation="relu", use_bias=False, name="conv1"),
        keras.layers.Conv2D(6, 3, padding="same", activation="relu", use_bias=False, name="conv2"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(CLASSES),
    ]
    model = keras.Model(inputs, chain(inputs, steps))
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=each.shape).astype("float32") for each in model.get_weights()])
    image = np.zeros((1, 33, 33, 3), "float32")
    image[0, 12:16, 10:15] = random.normal(size=(4, 5, 3))
    moved = np.roll(image, (2, 4), axis=(1, 2))
    cam = GradCAM(model, method=CHEAP.get(name, name))
    before, after = (cam(each, classes_for(name, 1)).map[0].numpy() for each in (image, moved))
    places = (1, 2) if len(before) == 16 else (2, 4)
    close(after, np.roll(before, places, axis=(0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(UNSIGNED.intersection(FOR_ANY_MODEL) - {"eigencam", "kpca_cam", "eigengradcam"})
)
def test_unsigned_methods_are_never_negative_after_a_relu(name, images):
    assert np.min(shared(name)(images).map) >= 0
