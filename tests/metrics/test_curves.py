"""Deletion, insertion and ROAD: numbers by hand, loops over pixels, identities, order of equal pixels."""

import numpy as np
import pytest

from tf_gradcam import metrics
from tf_gradcam.metrics import _imputation

IMAGE = np.array([[[1.0], [2.0], [3.0], [4.0]]])  # the toy: f(v) = v . (4, 3, 2, 1) / 20
MAP = np.array([[0.1, 0.4, 0.3, 0.2]])


def toy(images):
    return images[..., 0] @ [4, 3, 2, 1] / 20


def smooth_score(images):
    """A score that is neither linear nor the same at all pixels, of any images."""
    flat = images.reshape(len(images), -1).astype(float)
    return np.tanh(flat @ np.sin(np.arange(flat.shape[1])) / 3) + (flat**2).mean(axis=1)


def looped_curve(score, image, values, baseline, steps, inserts):
    """Replace pixels one by one, in the order of the map, and score one image at a time."""
    pixels = values.size
    order = sorted(range(pixels), key=lambda place: -values.ravel()[place])
    scores, fractions = [], []
    for step in range(steps + 1):
        count = step * pixels // steps
        source, target = (baseline, image) if inserts else (image, baseline)
        altered = source.reshape(pixels, -1).copy()
        for place in order[:count]:
            altered[place] = target.reshape(pixels, -1)[place]
        scores.append(score(altered.reshape(image.shape)[None])[0])
        fractions.append(count / pixels)
    area = sum(
        (fractions[i + 1] - fractions[i]) * (scores[i] + scores[i + 1]) / 2 for i in range(len(scores) - 1)
    )
    return scores, area


def test_the_toy_has_the_curves_worked_out_by_hand():
    curve = metrics.deletion_curve(toy, IMAGE, MAP, baseline="zero", steps=4)
    np.testing.assert_allclose(curve.fractions, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.scores, [[1, 0.7, 0.4, 0.2, 0]])
    np.testing.assert_allclose(metrics.deletion(toy, IMAGE, MAP, baseline="zero", steps=4), [0.45])
    curve = metrics.insertion_curve(toy, IMAGE, MAP, baseline="zero", steps=4)
    np.testing.assert_allclose(curve.scores, [[0, 0.3, 0.6, 0.8, 1]], atol=1e-15)
    np.testing.assert_allclose(metrics.insertion(toy, IMAGE, MAP, baseline="zero", steps=4), [0.55])


def test_uneven_steps_are_weighted_by_their_width():
    curve = metrics.deletion_curve(toy, IMAGE, MAP, baseline="zero", steps=3)
    np.testing.assert_allclose(curve.fractions, [0, 0.25, 0.5, 1])
    np.testing.assert_allclose(curve.area(), [0.25 * 0.85 + 0.25 * 0.55 + 0.5 * 0.2])


def test_there_are_no_more_steps_than_pixels():
    assert metrics.deletion_curve(toy, IMAGE, MAP, baseline="zero", steps=50).scores.shape == (1, 5)


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", "noise"])
@pytest.mark.parametrize("axes", [(11,), (5, 6), (3, 4, 2)], ids=str)
def test_curves_equal_those_of_a_loop_over_pixels(axes, baseline):
    random = np.random.default_rng(1)
    images, maps = random.normal(size=(3, *axes, 2)), random.normal(size=(3, *axes))
    fixed = _imputation.Fill(images, baseline, 3).fixed
    for function, inserts in ((metrics.deletion_curve, False), (metrics.insertion_curve, True)):
        curve = function(smooth_score, images, maps, baseline=baseline, steps=7, seed=3, batch_size=4)
        for row in range(3):
            expected, area = looped_curve(smooth_score, images[row], maps[row], fixed[row], 7, inserts)
            np.testing.assert_allclose(curve.scores[row], expected, atol=1e-12)
            np.testing.assert_allclose(curve.area()[row], area, atol=1e-12)


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", "noise"])
def test_deletion_and_insertion_of_an_additive_score_add_up(baseline):
    random = np.random.default_rng(2)
    images, maps = random.normal(size=(2, 6, 7, 3)), random.normal(size=(2, 6, 7))
    weights = random.normal(size=(6, 7, 3))

    def additive(images):
        return np.einsum("nhwc,hwc->n", images, weights)

    total = sum(
        function(additive, images, maps, baseline=baseline, steps=9)
        for function in (metrics.deletion, metrics.insertion)
    )
    ends = additive(images) + additive(_imputation.Fill(images, baseline, 0).fixed)
    np.testing.assert_allclose(total, ends, atol=1e-12)


def test_only_the_order_of_the_map_counts():
    random = np.random.default_rng(3)
    images, maps = random.normal(size=(2, 5, 5, 1)), random.normal(size=(2, 5, 5))
    first, second = (
        metrics.deletion(smooth_score, images, values, baseline="mean") for values in (maps, np.exp(3 * maps))
    )
    np.testing.assert_array_equal(first, second)
    assert (metrics.deletion(smooth_score, images, -maps, baseline="mean") != first).all()


def test_equal_pixels_go_in_drawn_order_not_row_by_row():
    images = np.ones((2, 40, 1))
    maps = np.zeros((2, 40))
    maps[:, 7] = 1
    seen = []

    def record(images):
        seen.append(images.copy())
        return images.sum(axis=(1, 2))

    metrics.deletion(record, images, maps, baseline="zero", steps=40, batch_size=1000)
    (altered,) = seen
    altered = altered.reshape(41, 2, 40)
    np.testing.assert_array_equal(altered[:, 0], altered[:, 1])  # the same order for every image
    order = [int(np.flatnonzero(altered[i, 0] > altered[i + 1, 0])[0]) for i in range(40)]
    assert order[0] == 7
    assert sorted(order) == list(range(40))
    assert np.abs(np.corrcoef(order[1:], range(39))[0, 1]) < 0.5
    first, other = (
        metrics.deletion_curve(lambda x: x[:, 0, 0], images, maps, baseline="zero", steps=40, seed=seed)
        for seed in (0, 1)
    )
    assert (first.scores != other.scores).any()


def test_a_negative_pixel_goes_after_a_zero():
    order = []

    def record(images):
        order.extend(images[:, :, 0])
        return images.sum(axis=(1, 2))

    metrics.deletion(record, np.ones((1, 4, 1)), [[0.0, -1, 2, -3]], baseline="zero", steps=4)
    np.testing.assert_array_equal(order, [[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0] * 4])


@pytest.mark.parametrize(
    ("count", "batch_size", "calls"), [(2, 5, [4, 4, 4, 4]), (2, 6, [6, 6, 4]), (3, 2, [3] * 8)]
)
def test_score_gets_whole_copies_of_the_batch(count, batch_size, calls):
    images = np.arange(1.0, count + 1)[:, None, None] * np.ones((count, 7, 1))
    lengths = []

    def score(images):
        lengths.append(len(images))
        classes = np.resize(np.arange(count), len(images))
        shown = images.max(axis=(1, 2))
        np.testing.assert_array_equal(shown[shown > 0], (classes + 1)[shown > 0])
        return shown

    maps = np.tile(np.arange(7.0), (count, 1))
    metrics.deletion(score, images, maps, baseline="zero", steps=7, batch_size=batch_size)
    assert lengths == calls


def test_road_equals_a_loop_over_percentages():
    random = np.random.default_rng(4)
    images, maps = random.normal(size=(2, 6, 5, 3)), random.normal(size=(2, 6, 5))
    means = {}
    for order in ("morf", "lerf"):
        scores = []
        for share in (20, 50, 80):
            count = round(share / 100 * 30)
            removed = np.zeros((2, 30), bool)
            for row in range(2):
                ranked = np.argsort(maps[row].ravel() * (-1 if order == "morf" else 1))
                removed[row, ranked[:count]] = True
            filled = metrics.noisy_linear_imputation(images, removed.reshape(2, 6, 5), noise=0.02, seed=5)
            scores.append(smooth_score(filled))
        curve = metrics.road_curve(
            smooth_score, images, maps, order=order, percentages=(20, 50, 80), noise=0.02, seed=5
        )
        np.testing.assert_allclose(curve.scores, np.transpose(scores), atol=1e-9)
        np.testing.assert_allclose(curve.fractions, [0.2, 0.5, 0.8])
        means[order] = np.mean(scores, axis=0)
    value = metrics.road(smooth_score, images, maps, percentages=(20, 50, 80), noise=0.02, seed=5)
    np.testing.assert_allclose(value, (means["lerf"] - means["morf"]) / 2, atol=1e-9)


def test_road_of_a_heatmap_of_zeros_still_removes_the_share_that_is_asked_for():
    seen = []

    def record(images):
        seen.append((images == 1).mean(axis=(1, 2, 3)))
        return images.mean(axis=(1, 2, 3))

    images, maps = np.ones((1, 10, 10, 1)), np.zeros((1, 10, 10))
    images[0, 0, 0] = 2
    maps[0, 5, 5] = 1
    metrics.road_curve(record, images, maps, order="morf", percentages=(10, 50), seed=1)
    kept = np.concatenate(seen)
    np.testing.assert_allclose(kept, [0.89, 0.49], atol=0.0101)


def test_road_is_positive_for_the_right_map_and_negative_for_its_reverse():
    images = np.zeros((1, 8, 8, 1))
    images[0, 2:5, 2:5] = 1
    maps = images[..., 0] + np.random.default_rng(6).random((1, 8, 8)) / 10

    def score(images):
        return images[:, 2:5, 2:5].mean(axis=(1, 2, 3))

    right, wrong = (float(metrics.road(score, images, values)[0]) for values in (maps, -maps))
    assert right > 0.3
    assert right == pytest.approx(-wrong)


def test_a_baseline_of_road_keeps_deletion_and_insertion_complements():
    random = np.random.default_rng(7)
    images, maps = random.normal(size=(2, 5, 6, 1)), random.normal(size=(2, 5, 6))
    down = metrics.deletion_curve(smooth_score, images, maps, baseline="road", steps=5)
    up = metrics.insertion_curve(smooth_score, images, -maps, baseline="road", steps=5)
    np.testing.assert_allclose(down.scores, up.scores[:, ::-1], atol=1e-9)
    np.testing.assert_allclose(down.scores[:, 0], smooth_score(images))


@pytest.mark.parametrize("baseline", [None, 0, "Zero ", "blurr"])
def test_a_baseline_must_have_a_known_name(baseline):
    with pytest.raises(ValueError, match='`baseline` must be one of "zero", "mean", "blur", "noise", "road"'):
        metrics.deletion(toy, IMAGE, MAP, baseline=baseline)


def test_other_arguments_are_checked_too():
    with pytest.raises(ValueError, match="Did you mean 'blur'?"):
        metrics.insertion(toy, IMAGE, MAP, baseline="blurr")
    with pytest.raises(TypeError, match="baseline"):
        metrics.deletion(toy, IMAGE, MAP)
    for name in ("steps", "batch_size"):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number from 1"):
            metrics.deletion(toy, IMAGE, MAP, baseline="zero", **{name: 0})
    with pytest.raises(ValueError, match="`seed` must be a whole number of 32 bits"):
        metrics.deletion(toy, IMAGE, MAP, baseline="zero", seed=0.5)
    with pytest.raises(ValueError, match='`order` must be one of "morf", "lerf". Received: order=\'most\''):
        metrics.road_curve(toy, IMAGE, MAP, order="most")
    for percentages in ((0,), (50, 100), ("10",)):
        with pytest.raises(ValueError, match="`percentages` must be a number above 0 and below 100"):
            metrics.road(toy, IMAGE, MAP, percentages=percentages)
    with pytest.raises(ValueError, match="`percentages` must be one or more numbers"):
        metrics.road(toy, IMAGE, MAP, percentages=())
    with pytest.raises(ValueError, match="`noise` must be a number of 0 or more"):
        metrics.road(toy, IMAGE, MAP, noise=-0.1)
