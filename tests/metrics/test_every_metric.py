"""What holds for every metric: one number an image, no matter which batch; 1 to 3 axes; NaN; refusals."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam import metrics

COUNT = 8
AXES = [(23,), (12, 13), (4, 5, 6)]


def score(images):
    """A probability."""
    flat = np.asarray(images, float).reshape(len(images), -1)
    return 1 / (1 + np.exp(-flat @ np.sin(np.arange(flat.shape[1]) / 3) / 30))


def explain(images):
    return np.tanh(images[..., 0]) * images[..., 1] - np.roll(images[..., 0], 1, axis=1)


OF_SCORES = {
    **{
        f"{function.__name__} {baseline}": functools.partial(function, score, baseline=baseline, **few)
        for function, few in (
            (metrics.deletion, {"steps": 3}),
            (metrics.insertion, {"steps": 3}),
            (metrics.mu_fidelity, {"samples": 5}),
        )
        for baseline in ("zero", "mean", "blur", "noise", "road")
    },
    "deletion_curve": lambda images, maps: metrics.deletion_curve(
        score, images, maps, baseline="zero", steps=4
    ).scores[:, 2],
    "insertion_curve": lambda images, maps: metrics.insertion_curve(
        score, images, maps, baseline="zero", steps=4
    ).scores[:, 2],
    "road": functools.partial(metrics.road, score, percentages=(20, 60)),
    "road_curve": lambda images, maps: metrics.road_curve(
        score, images, maps, order="lerf", percentages=(30,)
    ).scores[:, 0],
    "average_drop": functools.partial(metrics.average_drop, score),
    "increase": functools.partial(metrics.increase, score),
    "average_gain": functools.partial(metrics.average_gain, score),
    "infidelity": functools.partial(metrics.infidelity, score, samples=5),
    "coherency": functools.partial(metrics.coherency, explain),
    "max_sensitivity": functools.partial(metrics.max_sensitivity, explain, samples=3),
}
OF_MAPS = {
    **{
        name: lambda images, maps, name=name: getattr(metrics, name)(maps)
        for name in ("complexity", "sparseness", "entropy")
    },
    **{
        name: lambda images, maps, name=name: getattr(metrics, name)(maps, images[..., 0] > 0.5)
        for name in ("energy", "rank_accuracy", "roc_auc", "auprc", "iou")
    },
    "pointing_game": lambda images, maps: metrics.pointing_game(
        maps, images[..., 0] > images[..., 1], tolerance=0
    ),
    "iou otsu": lambda images, maps: metrics.iou(maps, images[..., 0] > 0.5, threshold="otsu"),
    "grid_pointing": lambda images, maps: metrics.grid_pointing(maps, np.ones(len(maps), int)),
    **{
        name: lambda images, maps, name=name: getattr(metrics, name)(maps, images[..., 0])
        for name in ("pearson", "spearman", "ssim")
    },
}
ALL = {**OF_SCORES, **OF_MAPS}
NOT_OF_IMAGES = {"Curve", "Interval", "adcc", "adcc_of_means", "arcc", "box_masks", "confidence_interval"}
OF_EXPLAINERS = {
    *("Check", "Evaluator", "Row", "Sanity", "Stage", "Table", "Trust", "complexity_rise", "evaluate"),
    *("other_class_similarity", "repeatability", "sanity", "trust"),
}


def batch(axes, dtype="float64"):
    random = np.random.default_rng(len(axes))
    images = random.normal(size=(COUNT, *axes, 2)) * np.arange(1, COUNT + 1).reshape(-1, *[1] * len(axes), 1)
    maps = random.normal(size=(COUNT, *axes))
    maps[1] = np.maximum(maps[1], 0)  # with many zeros
    return images.astype(dtype), maps.astype(dtype)


def test_every_metric_is_here():
    named = {name.partition(" ")[0] for name in ALL}
    others = {"noisy_linear_imputation", "truth"}
    assert named | NOT_OF_IMAGES | OF_EXPLAINERS | others == set(metrics.__all__)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_8_is_8_batches_of_1(name, axes):
    images, maps = batch(axes)
    together = ALL[name](images, maps)
    assert together.shape == (COUNT,)
    assert together.dtype == np.float64
    apart = [ALL[name](images[[row]], maps[[row]])[0] for row in range(COUNT)]
    np.testing.assert_allclose(together, apart, rtol=1e-9, atol=1e-12)
    assert np.isfinite(together).all()
    assert len(np.unique(together)) > 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_map_that_is_not_finite_is_nan_and_changes_no_other(name, value):
    images, maps = batch((12, 13))
    expected = ALL[name](images, maps)
    maps[3, 5, 6] = value
    result = ALL[name](images, maps)
    assert np.isnan(result[3])
    others = np.arange(COUNT) != 3
    np.testing.assert_array_equal(result[others], expected[others])


@pytest.mark.parametrize("name", OF_SCORES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # in the score and the explainer below
def test_an_image_that_is_not_finite_is_nan_and_changes_no_other(name, value):
    images, maps = batch((12, 13))
    expected = ALL[name](images, maps)
    images[3, 5, 6, 1] = value
    result = ALL[name](images, maps)
    assert np.isnan(result[3])
    others = np.arange(COUNT) != 3
    np.testing.assert_allclose(result[others], expected[others], rtol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_float32_tensors_and_lists_are_taken(name):
    images, maps = batch((12, 13), "float32")
    expected = ALL[name](images.astype("float64"), maps.astype("float64"))
    np.testing.assert_allclose(ALL[name](images, tf.constant(maps)), expected, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(ALL[name](images, maps.tolist()), expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", OF_SCORES)
def test_the_arguments_are_not_changed(name):
    images, maps = batch((12, 13))
    before = images.copy(), maps.copy()
    OF_SCORES[name](images, maps)
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(maps, before[1])


@pytest.mark.parametrize("name", OF_SCORES)
def test_maps_of_another_size_are_refused(name):
    images, maps = batch((12, 13))
    for wrong in (maps[:, :6, :6], maps[:4]):
        with pytest.raises(ValueError, match=r"`maps` must have one value for each pixel of `images`"):
            OF_SCORES[name](images, wrong)
