"""Formulas against numbers worked out by hand, NumPy, their invariances, and the identities between them."""

import functools
import inspect
import math

import numpy as np
import oracle
import pytest
import tensorflow as tf
from sklearn.decomposition import KernelPCA

from tf_gradcam._methods import formulas

WITH_GRADIENTS = [
    "gradcam",
    "hirescam",
    "gradcam_elementwise",
    "layercam",
    "xgradcam",
    "gradcam_plus_plus",
    "eigengradcam",
]
WITHOUT_GRADIENTS = ["eigencam", "fem", "kpca_cam"]
EVERY = [*WITH_GRADIENTS, *WITHOUT_GRADIENTS]
GRIDS = [(4, 5), (7,), (2, 3, 4), (12,)]

# One image, a 1x2 grid, two channels.
ACTIVATIONS = [[[[1.0, 2.0], [3.0, 4.0]]]]
GRADIENTS = [[[[1.0, -1.0], [3.0, 0.0]]]]


def compute(method, activations, gradients=None, **parameters):
    """Return the map as an array, for a method of either kind."""
    given = (activations,) if method in WITHOUT_GRADIENTS else (activations, gradients)
    return getattr(formulas, method)(*map(tf.convert_to_tensor, given), **parameters).numpy()


def pair(grid=(4, 5), channels=7, count=2, seed=3):
    """Activations, as after a ReLU, and gradients of both signs, in float64."""
    random = np.random.default_rng(seed)
    activations, gradients = random.normal(size=(2, count, *grid, channels))
    return np.maximum(activations + 0.5, 0), gradients


def channel(*values):
    """One image whose grid is a line, with one channel."""
    return np.array(values)[None, :, None]


# Numbers


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # alpha = ((1 + 3) / 2, (-1 + 0) / 2) = (2, -0.5); 2*1 - 0.5*2 = 1; 2*3 - 0.5*4 = 4
        ("gradcam", [1, 4]),
        # 1*1 - 1*2 = -1; 3*3 + 0*4 = 9
        ("hirescam", [-1, 9]),
        # ReLU(1*1) + ReLU(-1*2) = 1; ReLU(3*3) + ReLU(0*4) = 9
        ("gradcam_elementwise", [1, 9]),
        # 1*1 + 0*2 = 1; 3*3 + 0*4 = 9
        ("layercam", [1, 9]),
        # w = ((1*1 + 3*3) / (1 + 3), (-1*2 + 0*4) / (2 + 4)) = (5/2, -1/3)
        # 5/2*1 - 1/3*2 = 11/6; 5/2*3 - 1/3*4 = 37/6
        ("xgradcam", [11 / 6, 37 / 6]),
        # First channel, sum A = 4: alpha = 1 / (2*1 + 1*4) = 1/6 and 9 / (2*9 + 27*4) = 1/14,
        # w = 1/6*1 + 1/14*3 = 8/21. The second has no positive gradient, and a denominator of 0: w = 0.
        ("gradcam_plus_plus", [8 / 21, 8 / 7]),
        # Less the means (2, 3): (-1, -1) and (1, 1), on the axis (1, 1) / sqrt(2). The sum rises: 3, 7.
        ("eigencam", [-math.sqrt(2), math.sqrt(2)]),
        # g A = (1, -2) and (9, 0), less the means (-4, -1) and (4, 1), on the axis (4, 1) / sqrt(17).
        ("eigengradcam", [-math.sqrt(17), math.sqrt(17)]),
        # No place of two is further from the mean than one deviation.
        ("fem", [0, 0]),
        # Centred as for eigencam, x x' = 2 or -2, and gamma = 1/2: the kernel is tanh(2) on the diagonal
        # and tanh(0) = 0 beside it, centred tanh(2)/2 and -tanh(2)/2: tanh(2) times (-1, 1) / sqrt(2).
        ("kpca_cam", [-math.sqrt(math.tanh(2) / 2), math.sqrt(math.tanh(2) / 2)]),
    ],
)
def test_maps_are_those_worked_out_by_hand(method, expected):
    signed_map = compute(method, np.array(ACTIVATIONS), np.array(GRADIENTS))
    np.testing.assert_allclose(signed_map, [[expected]], rtol=1e-14)


def test_normalized_alphas_are_those_worked_out_by_hand():
    # As above alpha = (1/6, 1/14), of sum 5/21: alpha = (0.7, 0.3), w = 0.7*1 + 0.3*3 = 1.6
    signed_map = compute(
        "gradcam_plus_plus", np.array(ACTIVATIONS), np.array(GRADIENTS), normalize_alpha=True
    )
    np.testing.assert_allclose(signed_map, [[[1.6, 4.8]]], rtol=1e-14)


def test_alphas_are_normalized_over_the_places_of_positive_gradient():
    # sum A = 4: alpha = 1 / (2 + 4) at the first place, 1 / (2 - 4) at the second, which doesn't count.
    # Normalized the first is 1, w = 1*1 + 0.
    signed_map = compute("gradcam_plus_plus", channel(1.0, 3.0), channel(1.0, -1.0), normalize_alpha=True)
    np.testing.assert_allclose(signed_map, [[1, 3]], rtol=1e-14)


@pytest.mark.parametrize("normalize_alpha", [False, True])
def test_alpha_is_zero_where_its_denominator_is(normalize_alpha):
    # sum A = -2: 2*1 + 1*(-2) = 0
    signed_map = compute(
        "gradcam_plus_plus", channel(-3.0, 1.0), channel(1.0, 1.0), normalize_alpha=normalize_alpha
    )
    np.testing.assert_array_equal(signed_map, [[0, 0]])


def test_negative_activations_turn_the_evidence_of_gradcam_plus_plus_round():
    # sum A = -3: alpha = 1 / (2 - 3) = -1 at both places, w = -2, and Grad-CAM has w = 1.
    activations, gradients = channel(-4.0, 1.0), channel(1.0, 1.0)
    np.testing.assert_array_equal(compute("gradcam_plus_plus", activations, gradients), [[8, -2]])
    np.testing.assert_array_equal(compute("gradcam", activations, gradients), [[-4, 1]])


def test_squares_and_cubes_take_the_place_of_the_gradients_powers():
    # alpha = 2 / (2*2 + 3*4) = 1/8 and 10 / (2*10 + 30*4) = 1/14, w = 1/8*1 + 1/14*3 = 19/56
    given = [channel(1.0, 3.0), channel(1.0, 3.0)]
    powers = {"squares": channel(2.0, 10.0), "cubes": channel(3.0, 30.0)}
    np.testing.assert_allclose(
        compute("gradcam_plus_plus", *given, **powers), [[19 / 56, 57 / 56]], rtol=1e-14
    )
    # The squares alone: 2 / (2*2 + 1*4) = 1/4 and 10 / (2*10 + 27*4) = 5/64, w = 1/4 + 15/64 = 31/64
    signed_map = compute("gradcam_plus_plus", *given, squares=powers["squares"])
    np.testing.assert_allclose(signed_map, [[31 / 64, 93 / 64]], rtol=1e-14)
    # The cubes alone: 1 / (2*1 + 3*4) = 1/14 and 9 / (2*9 + 30*4) = 3/46, w = 1/14 + 9/46
    signed_map = compute("gradcam_plus_plus", *given, cubes=powers["cubes"])
    np.testing.assert_allclose(signed_map, [np.array([1, 3]) * (1 / 14 + 9 / 46)], rtol=1e-14)


def test_eigencam_of_one_channel_is_the_channel_less_its_mean():
    # Three places and one channel, so that the Gram matrix is that of the channels; the mean is 3.
    np.testing.assert_allclose(compute("eigencam", channel(1.0, 2.0, 6.0)), [[-2, -1, 3]], rtol=1e-14)


def test_fem_marks_the_places_where_a_channel_is_unusually_strong():
    activations = np.array([[0, 0, 0, 0, 0, 6], [0, 0, 0, 6, 6, 0], [2, 2, 2, 2, 2, 2]], float).T[None]
    # Means 1, 2 and 2, deviations sqrt(5), sqrt(8) and 0: 6 is above 1 + 2*2.24 = 5.47, none above
    # 2 + 2*2.83 = 7.66, and none above 2.
    np.testing.assert_array_equal(compute("fem", activations), [[0, 0, 0, 0, 0, 1]])
    # Above 2 + 2.83 = 4.83 are two places, which get the mean 2.
    np.testing.assert_array_equal(compute("fem", activations, k=1.0), [[0, 0, 0, 2, 2, 1]])


# A second implementation


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", EVERY)
def test_maps_equal_those_of_numpy(method, grid):
    activations, gradients = pair(grid)
    for shifted in (activations, activations - 0.4):  # not only after a ReLU
        expected = oracle.formula(method, shifted, gradients)
        np.testing.assert_allclose(compute(method, shifted, gradients), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("gradcam_plus_plus", {"normalize_alpha": True}),
        ("fem", {"k": 0.5}),
        ("kpca_cam", {"gamma": 0.7}),
    ],
)
def test_parameters_matter_and_do_what_they_do_in_numpy(method, parameters):
    given = pair()
    signed_map = compute(method, *given, **parameters)
    expected = oracle.formula(method, *given, **parameters)
    np.testing.assert_allclose(signed_map, expected, rtol=0, atol=1e-10)
    assert np.abs(signed_map - compute(method, *given)).max() > 0.05


@pytest.mark.parametrize("gamma", [None, 0.02, 2.0])
def test_kpca_cam_is_the_kernel_pca_of_scikit_learn(gamma):
    activations, _ = pair((5, 6), channels=9, count=1)
    rows = activations.reshape(-1, 9)
    component = KernelPCA(1, kernel="sigmoid", gamma=gamma).fit_transform(rows - rows.mean(0))[:, 0]
    signed_map = compute("kpca_cam", activations, gamma=gamma).ravel()
    sign = np.sign(signed_map @ component)
    np.testing.assert_allclose(signed_map, sign * component, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 200, 200, 2), (1, 2, 2, 20000)])
def test_eigencam_decomposes_the_smaller_of_places_and_channels(shape):
    # The larger would take 3 or 13 gigabytes, and hours.
    activations = np.random.default_rng(0).uniform(size=shape)
    np.testing.assert_allclose(
        compute("eigencam", activations), oracle.formula("eigencam", activations, activations), atol=1e-10
    )


# Invariances


@pytest.mark.parametrize("method", EVERY)
def test_every_image_of_a_batch_has_the_map_it_has_alone(method):
    activations, gradients = pair(count=3)
    both = compute(method, activations, gradients)
    alone = [compute(method, activations[i : i + 1], gradients[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(both, alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", EVERY)
def test_the_order_of_the_channels_does_not_matter(method):
    given = pair()
    shuffled = [each[..., [3, 1, 0, 6, 5, 2, 4]] for each in given]
    np.testing.assert_allclose(compute(method, *shuffled), compute(method, *given), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", EVERY)
def test_where_the_activations_go_there_goes_the_map(method):
    given = pair()
    signed_map = compute(method, *given)
    moved = compute(method, *(np.roll(each, (1, -2), (1, 2)) for each in given))
    np.testing.assert_allclose(moved, np.roll(signed_map, (1, -2), (1, 2)), rtol=0, atol=1e-13)
    mirrored = compute(method, *(each[:, :, ::-1] for each in given))
    np.testing.assert_allclose(mirrored, signed_map[:, :, ::-1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", [each for each in WITH_GRADIENTS if each != "gradcam_plus_plus"])
def test_scaling_the_score_scales_the_map(method):
    activations, gradients = pair()
    signed_map = compute(method, activations, gradients)
    np.testing.assert_allclose(compute(method, activations, 3.0 * gradients), 3.0 * signed_map, rtol=1e-11)


def heatmap(signed_map):
    positive = np.maximum(signed_map, 0)
    return positive / positive.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("normalize_alpha", [False, True])
def test_the_heatmap_of_gradcam_plus_plus_depends_on_the_scale_of_the_score(normalize_alpha):
    activations, gradients = pair()
    explain = functools.partial(compute, "gradcam_plus_plus", normalize_alpha=normalize_alpha)
    before, after = (heatmap(explain(activations, scale * gradients)) for scale in (1.0, 3.0))
    assert np.abs(after - before).max() > 0.02


def test_normalized_gradcam_plus_plus_scales_with_the_score_where_the_gradient_is_the_same_everywhere():
    activations, gradients = pair()
    flat = np.broadcast_to(gradients[:, :1, :1], gradients.shape)
    explain = functools.partial(compute, "gradcam_plus_plus", activations)
    scaled, signed_map = (explain(scale * flat, normalize_alpha=True) for scale in (3.0, 1.0))
    np.testing.assert_allclose(scaled, 3.0 * signed_map, rtol=1e-11)
    assert np.abs(heatmap(explain(3.0 * flat)) - heatmap(explain(flat))).max() > 0.01


@pytest.mark.parametrize("method", ["eigencam", "fem"])
def test_scaling_the_activations_scales_the_map(method):
    activations, _ = pair()
    signed_map = compute(method, activations)
    np.testing.assert_allclose(compute(method, 4.0 * activations), 4.0 * signed_map, rtol=1e-11)


@pytest.mark.parametrize("method", ["eigencam", "kpca_cam"])
def test_the_map_of_principal_components_rises_and_falls_with_the_channels(method):
    for seed in range(5):
        activations, _ = pair(count=1, seed=seed)
        signed_map = compute(method, activations)
        assert np.corrcoef(signed_map.ravel(), activations.sum(-1).ravel())[0, 1] > 0
        # Of the other sign, the channels have the map of the other sign.
        np.testing.assert_allclose(compute(method, -activations), -signed_map, rtol=0, atol=1e-13)


# Identities


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "xgradcam", "eigengradcam"])
def test_what_speaks_for_minus_what_speaks_against_is_the_map(method):
    activations, gradients = pair()
    signed_map = compute(method, activations, gradients)
    against = compute(method, activations, -gradients)
    np.testing.assert_allclose(
        np.maximum(signed_map, 0) - np.maximum(against, 0), signed_map, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("method", ["hirescam", "xgradcam"])
def test_methods_agree_with_gradcam_where_the_gradient_is_the_same_everywhere(method):
    activations, gradients = pair()
    flat = np.broadcast_to(gradients[:, :1, :1], gradients.shape)
    np.testing.assert_allclose(
        compute(method, activations, flat), compute("gradcam", activations, flat), rtol=0, atol=1e-13
    )


def test_normalized_gradcam_plus_plus_is_layercam_where_the_gradient_is_the_same_everywhere():
    activations, _ = pair()
    weights = np.random.default_rng(0).normal(size=7)
    flat = np.broadcast_to(weights / 20, activations.shape)  # of a mean over 4x5 places and a dense layer
    expected = activations @ np.maximum(weights, 0) / 20
    for method, parameters in [("layercam", {}), ("gradcam_plus_plus", {"normalize_alpha": True})]:
        np.testing.assert_allclose(compute(method, activations, flat, **parameters), expected, atol=1e-14)


def test_the_map_of_xgradcam_sums_to_that_of_hirescam():
    given = pair()
    sums = [compute(method, *given).sum(axis=(1, 2)) for method in ("xgradcam", "hirescam")]
    np.testing.assert_allclose(*sums, rtol=1e-12)


def test_methods_that_ignore_what_speaks_against_are_never_below_hirescam():
    given = pair()
    positive = np.maximum(compute("hirescam", *given), 0)
    elementwise = compute("gradcam_elementwise", *given)
    assert (elementwise >= positive - 1e-14).all()
    assert (elementwise > positive + 0.1).any()
    # Of activations that are not negative, LayerCAM drops the same terms.
    np.testing.assert_array_equal(elementwise, compute("layercam", *given))


def test_hirescam_layercam_and_elementwise_agree_where_no_gradient_is_negative():
    activations, gradients = pair()
    signed_map = compute("hirescam", activations, np.abs(gradients))
    for method in ("layercam", "gradcam_elementwise"):
        np.testing.assert_array_equal(compute(method, activations, np.abs(gradients)), signed_map)


def test_eigengradcam_is_eigencam_where_every_gradient_is_one():
    activations, _ = pair()
    np.testing.assert_array_equal(
        compute("eigengradcam", activations, np.ones_like(activations)), compute("eigencam", activations)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kpca_cam_of_small_products_is_a_multiple_of_eigencam(dtype):
    activations = pair()[0].astype(dtype)
    signed_map = compute("kpca_cam", activations, gamma=1e-9)
    # tanh(1 + x) is tanh(1) + x / cosh(1)^2, and the constant falls out.
    expected = compute("eigencam", activations) * math.sqrt(1e-9) / math.cosh(1)
    np.testing.assert_allclose(signed_map, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# In the graph


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("grid", [(4, 5), (2, 3)])  # more places than the 7 channels, and fewer
def test_sizes_may_be_unknown_until_the_graph_runs(method, grid):
    given = pair(grid)
    given = given[:1] if method in WITHOUT_GRADIENTS else given
    open_shapes = [tf.TensorSpec([None, None, None, 7], tf.float64)] * len(given)
    traced = tf.function(
        lambda *args: getattr(formulas, method)(*args), autograph=False, input_signature=open_shapes
    )
    np.testing.assert_allclose(traced(*given), compute(method, *given), rtol=0, atol=1e-13)
    (result,) = tf.nest.flatten(traced.get_concrete_function().structured_outputs)
    assert result.shape.rank == 3


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_precision_is_that_of_the_activations(method, dtype):
    given = pair()
    signed_map = compute(method, *(each.astype(dtype) for each in given))
    assert signed_map.dtype == dtype
    np.testing.assert_allclose(signed_map, compute(method, *given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_nothing_is_active_the_map_is_zero(method, dtype):
    _, gradients = (each.astype(dtype) for each in pair())
    np.testing.assert_array_equal(compute(method, np.zeros_like(gradients), gradients), np.zeros((2, 4, 5)))


@pytest.mark.parametrize("method", WITH_GRADIENTS)
def test_where_nothing_changes_the_score_the_map_is_zero(method):
    activations, _ = pair()
    np.testing.assert_array_equal(
        compute(method, activations, np.zeros_like(activations)), np.zeros((2, 4, 5))
    )


@pytest.mark.parametrize("method", WITHOUT_GRADIENTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_every_place_is_alike_no_place_stands_out(method, dtype):
    # Values whose mean over the places is not exactly the value.
    values = np.random.default_rng(0).uniform(size=64).astype(dtype)
    for grid in [(4, 5), (7, 7), (9, 9)]:
        activations = np.broadcast_to(values, (2, *grid, 64))
        np.testing.assert_array_equal(compute(method, activations), np.zeros((2, *grid)))


@pytest.mark.parametrize("method", EVERY)
def test_a_channel_that_is_never_active_changes_nothing(method):
    activations, gradients = pair()
    wider = [np.pad(activations, [(0, 0)] * 3 + [(0, 2)]), np.pad(gradients, [(0, 0)] * 3 + [(0, 2)], "edge")]
    parameters = {"gamma": 1 / 7} if method == "kpca_cam" else {}
    np.testing.assert_allclose(
        compute(method, *wider, **parameters), compute(method, activations, gradients), rtol=0, atol=1e-13
    )


def test_what_a_formula_needs_is_told_by_its_required_arguments():
    functions = {
        name: each for name, each in inspect.getmembers(formulas, inspect.isfunction) if name[0] != "_"
    }
    assert sorted(functions) == sorted(EVERY)
    for name, each in functions.items():
        required = [p for p in inspect.signature(each).parameters.values() if p.default is p.empty]
        assert len(required) == (1 if name in WITHOUT_GRADIENTS else 2)
