"""The short table of `GradCAM.trust`: its checks, its sentences, and what has no value."""

import functools
import json

import keras
import numpy as np
import pytest
import shapes

from tf_gradcam import GradCAM, methods, metrics, targets


@pytest.fixture(scope="module")
def images():
    return shapes.draw(10, 5)[0]


@pytest.fixture(scope="module")
def trust(images):
    return GradCAM(shapes.trained()).trust(images)


def test_it_has_two_faithfulness_metrics_with_two_baselines_and_three_controls(trust):
    assert [(check.check, check.baseline) for check in trust] == [
        ("mu-fidelity", "zero"),
        ("mu-fidelity", "blur"),
        ("insertion minus deletion", "zero"),
        ("insertion minus deletion", "blur"),
        ("other class", None),
        ("random weights: scores", None),
        ("random weights: conv3", None),
        ("random weights: everything", None),
    ]
    assert len(trust) == 8
    for check in trust:
        assert check.values.shape == (10,)
        assert check.mean == pytest.approx(np.nanmean(check.values))
        assert check.counted + check.missing == 10
        assert check.means.endswith(".")


def test_its_numbers_are_those_of_the_metrics(trust, images):
    cam = GradCAM(shapes.trained())
    shown = metrics.sanity(cam, images, stages=3)
    np.testing.assert_allclose([check.mean for check in trust][5:], shown.similarity[1:], atol=1e-4)
    few = {"insertion_minus_deletion": {"steps": 8}, "mu_fidelity": {"samples": 24}}
    table = metrics.evaluate(cam, images, metrics=list(few), options=few, references=False)
    expected = [table["mu_fidelity", name].mean for name in ("zero", "blur")]
    expected += [table["insertion_minus_deletion", name].mean for name in ("zero", "blur")]
    np.testing.assert_allclose([check.mean for check in trust][:4], expected, atol=1e-3)


def turned_round(activations, gradients):
    """Grad-CAM with the wrong sign."""
    return -methods.gradcam(activations, gradients)


def test_its_sentences_say_what_the_numbers_say(trust, images):
    assert "the score depends more on what the heatmap shows" in repr(trust)
    assert "maps change when weights are randomized" in repr(trust)
    assert "maps depend on the class" in repr(trust)
    failed = GradCAM(shapes.trained(), method="eigencam").trust(images[:4])
    assert "maps stay alike when weights are randomized" in repr(failed)
    assert "maps hardly depend on the class" in repr(failed)
    turned = GradCAM(shapes.trained(), method=turned_round)
    assert "worse than a map of noise" in repr(turned.trust(images))


def test_it_can_be_written_as_json_and_html(trust):
    written = json.loads(json.dumps(trust.to_dict(), allow_nan=False))
    assert len(written["checks"]) == 8
    assert trust._repr_html_().count("<tr>") == 9


def test_a_model_without_classes_has_no_other_class():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((12, 12, 3)), keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D()]
    cam = GradCAM(keras.Sequential([*layers, keras.layers.Dense(1)]))
    trust = cam.trust(np.random.default_rng(0).random((3, 12, 12, 3)).astype("float32"))
    (check,) = (check for check in trust if check.check == "other class")
    assert [np.isnan(check.mean), check.counted, check.missing] == [True, 0, 3]
    assert "there is no other class to compare with" in repr(trust)
    assert trust.to_dict()["checks"][4]["mean"] is None


def test_it_says_where_the_map_of_another_class_is_blank(images):
    cam = GradCAM(shapes.trained(), method="locate")
    predicted = shapes.trained()(images).numpy().argmax(axis=1)
    own, *others = (
        (cam(images, (predicted + step) % 3).heatmap.numpy() > 0).any((1, 2)) for step in range(3)
    )
    alone = own & ~others[0] & ~others[1]
    assert 0 < alone.sum() < len(images)
    (check,) = (check for check in cam.trust(images[alone]) if check.check == "other class")
    assert (check.counted, check.missing) == (0, alone.sum())
    blank = f"in {alone.sum()} of {alone.sum()} images the map of a class drawn at random is blank"
    assert (
        check.means
        == f"{blank}: nothing in the image speaks for that class, so there is no similarity to measure."
    )
    (check,) = (check for check in cam.trust(images) if check.check == "other class")
    assert check.counted
    assert f"in {check.missing} of 10 images the map of a class drawn at random is blank" in check.means


@pytest.fixture(scope="module")
def trunk():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Conv2D(4, 3, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((12, 12, 3)), *layers, keras.layers.GlobalAveragePooling2D()])


def headed(trunk, *args):
    return keras.Sequential([*trunk.layers, keras.layers.Dense(*args)])


def test_the_other_side_of_a_single_unit_has_no_number(trunk):
    given = np.random.default_rng(0).random((3, 12, 12, 3)).astype("float32")
    unit, softmax = headed(trunk, 1, "sigmoid"), headed(trunk, 2, "softmax")
    (check,) = (check for check in GradCAM(unit).trust(given) if check.check == "other class")
    assert [np.isnan(check.mean), check.counted, check.missing] == [True, 0, 3]
    assert check.means.startswith(
        "there is nothing to compare: the map of the other side or class is minus this one"
    )
    several = GradCAM(headed(trunk, 1, "sigmoid"), unit.layers[:2])  # whose layers no call has found yet
    probability = targets.Probability(0)
    for cam, target in ((several, None), (GradCAM(unit), probability), (GradCAM(softmax), probability)):
        assert np.isnan(metrics.other_class_similarity(cam, given, target)).all()
    # Neither the logits of a softmax of two nor a map that knows no class are minus each other.
    for cam in (GradCAM(softmax), GradCAM(unit, method="eigencam")):
        assert np.isfinite(metrics.other_class_similarity(cam, given)).all()


def test_it_takes_images_and_says_so(images):
    cam = GradCAM(shapes.trained())
    for measure in (cam.trust, functools.partial(metrics.evaluate, cam)):
        with pytest.raises(TypeError, match="`images` must be an array of images.*Read them first"):
            measure(["a.png", "b.png"])
        with pytest.raises(TypeError, match="Take the images: for images, labels in dataset"):
            measure((images, np.zeros(len(images))))
        with pytest.raises(ValueError, match=r"`images` must be a batch.*Add a batch axis.*: image\[None\]"):
            measure(images[0])
