"""Formulas against numbers worked out by hand, and against the identities between them."""

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import methods

# One image, a 1x2 grid, two channels.
ACTIVATIONS = tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]], tf.float64)
GRADIENTS = tf.constant([[[[1.0, -1.0], [3.0, 0.0]]]], tf.float64)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # alpha = ((1 + 3) / 2, (-1 + 0) / 2) = (2, -0.5); 2*1 - 0.5*2 = 1; 2*3 - 0.5*4 = 4
        ("gradcam", [[1.0, 4.0]]),
        # 1*1 - 1*2 = -1; 3*3 + 0*4 = 9
        ("hirescam", [[-1.0, 9.0]]),
        # 1*1 + 0*2 = 1; 3*3 + 0*4 = 9
        ("layercam", [[1.0, 9.0]]),
    ],
)
def test_maps_are_those_worked_out_by_hand(method, expected):
    np.testing.assert_array_equal(methods.get(method)(ACTIVATIONS, GRADIENTS)[0], expected)


@pytest.fixture
def random_maps():
    random = np.random.default_rng(3)
    return tf.constant(random.normal(size=(2, 4, 5, 7))), tf.constant(random.normal(size=(2, 4, 5, 7)))


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_image_of_a_batch_has_the_map_it_has_alone(method, random_maps):
    activations, gradients = random_maps
    both = methods.get(method)(activations, gradients)
    alone = [methods.get(method)(activations[i : i + 1], gradients[i : i + 1])[0] for i in range(2)]
    np.testing.assert_allclose(both, alone, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_order_of_the_channels_does_not_matter(method, random_maps):
    shuffled = [tf.gather(each, [3, 1, 0, 6, 5, 2, 4], axis=-1) for each in random_maps]
    formula = methods.get(method)
    np.testing.assert_allclose(formula(*shuffled), formula(*random_maps), rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", methods.METHODS)
def test_scaling_the_score_scales_the_map(method, random_maps):
    activations, gradients = random_maps
    formula = methods.get(method)
    np.testing.assert_allclose(
        formula(activations, 3.0 * gradients), 3.0 * formula(activations, gradients), rtol=1e-12
    )


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_what_speaks_for_minus_what_speaks_against_is_the_map(method, random_maps):
    activations, gradients = random_maps
    formula = methods.get(method)
    signed = formula(activations, gradients)
    against = formula(activations, -gradients)
    np.testing.assert_array_equal(tf.nn.relu(signed) - tf.nn.relu(against), signed)


def test_gradcam_is_hirescam_where_the_gradient_is_the_same_everywhere(random_maps):
    activations, gradients = random_maps
    flat = tf.ones_like(gradients) * gradients[:, :1, :1]
    np.testing.assert_allclose(
        methods.gradcam(activations, flat), methods.hirescam(activations, flat), rtol=0, atol=1e-14
    )


def test_hirescam_and_layercam_agree_where_no_gradient_is_negative(random_maps):
    activations, gradients = random_maps
    positive = tf.abs(gradients)
    np.testing.assert_array_equal(
        methods.layercam(activations, positive), methods.hirescam(activations, positive)
    )


def test_a_formula_of_ones_own_is_taken_as_it_is():
    assert methods.get(tf.multiply) is tf.multiply


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`method` must be one of \['gradcam', .*'grad-cam'"):
        methods.get("grad-cam")


def test_a_method_that_is_no_name_is_refused():
    with pytest.raises(TypeError, match=r"`method` must be a name or a callable.*int"):
        methods.get(3)
