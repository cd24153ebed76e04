"""Scenes with exact masks: what is in them, where, and that they are the same every time."""

import importlib.util

import numpy as np
import pytest

from tf_gradcam.metrics import _cutouts, truth

DRAW = {"shapes": truth.shapes, "photographs": truth.photographs}


@pytest.fixture(scope="module", params=DRAW)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def scenes(kind):
    return DRAW[kind](12, seed=3)


def test_scenes_hold_images_labels_masks_and_names(kind, scenes):
    size = {"shapes": 96, "photographs": 224}[kind]
    assert scenes.images.shape == (12, size, size, 3)
    assert scenes.masks.shape == (12, 2, size, size)
    assert (scenes.images.dtype, scenes.labels.dtype, scenes.masks.dtype) == (np.uint8, np.int64, bool)
    assert len(scenes.names) == len(scenes.outputs) == len(set(scenes.names)) > scenes.labels.max()
    flat = [output for outputs in scenes.outputs for output in outputs]
    assert len(set(flat)) == len(flat)  # No output stands for two classes.


def test_a_pixel_differs_from_the_ground_exactly_where_a_mask_is(kind, scenes):
    grounds = DRAW[kind](12, seed=3, objects=0)
    assert grounds.labels.shape == (12, 0)
    assert grounds.masks.shape[1] == 0
    np.testing.assert_array_equal((scenes.images != grounds.images).any(-1), scenes.masks.any(1))


def test_objects_do_not_overlap_and_are_of_different_classes(scenes):
    assert scenes.masks.sum(axis=1).max() == 1
    assert scenes.masks.any(axis=(2, 3)).all()
    assert (scenes.labels[:, 0] != scenes.labels[:, 1]).all()


@pytest.mark.parametrize(("name", "lengths"), [("shapes", (0.2, 0.42)), ("photographs", (0.38, 0.6))])
def test_objects_are_as_long_as_was_asked(name, lengths):
    scenes = DRAW[name](24, objects=1)
    size = scenes.images.shape[1]
    for mask in scenes.masks[:, 0]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        longest = max(np.ptp(rows), np.ptp(columns)) + 1
        # What is turned may be shorter than the square that it is turned in.
        assert 0.6 * lengths[0] * size <= longest <= lengths[1] * size


def test_scenes_depend_on_the_seed_and_on_their_number_alone(kind, scenes):
    few = DRAW[kind](3, seed=3)
    np.testing.assert_array_equal(few.images, scenes.images[:3])
    np.testing.assert_array_equal(few.masks, scenes.masks[:3])
    other = DRAW[kind](3, seed=4)
    assert (other.images != few.images).any(axis=(1, 2, 3)).all()


def test_every_class_is_drawn(kind):
    scenes = DRAW[kind](60, size=64, objects=2)
    assert set(scenes.labels.ravel()) == set(range(len(scenes.names)))


def test_colour_says_nothing_of_a_shape():
    scenes = truth.shapes(300, objects=1, size=48, lengths=(0.4, 0.8))
    pairs = zip(scenes.images, scenes.masks[:, 0], strict=True)
    colours = np.array([image[mask].mean(axis=0) for image, mask in pairs])
    spread = colours.std(axis=0)
    for label in range(len(scenes.names)):
        own = colours[scenes.labels[:, 0] == label]
        standard_error = spread / np.sqrt(len(own))
        assert (abs(own.mean(axis=0) - colours.mean(axis=0)) < 4 * standard_error).all()


def test_shapes_are_told_apart_by_their_area_in_the_square_around_them():
    scenes = truth.shapes(200, seed=8, objects=1, size=96, lengths=(0.4, 0.42))
    areas = scenes.masks.sum(axis=(1, 2, 3)) / (0.41 * 96 / 2) ** 2  # half a side as the unit
    labels = np.array(scenes.names)[scenes.labels[:, 0]]
    expected = {
        "disc": np.pi * 0.85**2,
        "ring": np.pi * (0.95**2 - 0.5**2),
        "square": (2 * 0.68) ** 2,
        "triangle": 3 * np.sqrt(3) * 0.48**2,
        "cross": 4 * 0.27 * 0.9 * 2 - 4 * 0.27**2,
    }
    for name, area in expected.items():
        np.testing.assert_allclose(areas[labels == name].mean(), area, rtol=0.06, err_msg=name)


def test_the_target_is_the_output_of_highest_score_that_stands_for_the_object():
    scenes = truth.Scenes(
        images=np.zeros((2, 4, 4, 3), np.uint8),
        labels=np.array([[0, 1], [1, 0]]),
        masks=np.zeros((2, 2, 4, 4), bool),
        names=("cat", "cup"),
        outputs=((0, 2, 3), (4,)),
    )
    scores = np.array([[0.1, 0.9, 0.3, 0.2, 0.0], [0.5, 0.1, 0.2, 0.2, 0.1]])
    np.testing.assert_array_equal(scenes.targets(scores), [[2, 4], [4, 0]])
    np.testing.assert_array_equal(scenes.recognized(scores, 1), [[False, False], [False, True]])
    np.testing.assert_array_equal(scenes.recognized(scores, 2), [[True, False], [False, True]])
    # Two scores of 0.1 share the fourth place; four are higher than the last one.
    np.testing.assert_array_equal(scenes.recognized(scores, 4), [[True, False], [True, True]])
    assert scenes.recognized(scores, 5).all()
    for wrong in (scores[:1], scores[:, :4], scores[0]):
        with pytest.raises(ValueError, match=r"`scores` must be .* \(2, at least 5\)"):
            scenes.targets(wrong)
    with pytest.raises(ValueError, match="`rank` must be a whole number from 1. Received: rank=0"):
        scenes.recognized(scores, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "`count` must be a whole number from 1. Received: count=0"),
        ({"count": 2.0}, "`count` must be a whole number from 1. Received: count=2.0"),
        ({"count": 1, "seed": -1}, "`seed` must be a whole number from 0. Received: seed=-1"),
        ({"count": 1, "size": 31}, "`size` must be a whole number from 32. Received: size=31"),
        ({"count": 1, "objects": 4}, "`objects` must be a whole number from 0 to 3. Received: objects=4"),
        ({"count": 1, "objects": True}, "`objects` must be a whole number from 0 to 3"),
        (
            {"count": 1, "lengths": (0.4, 0.3)},
            "`lengths` must be two shares of the image, the first from 0.1",
        ),
        ({"count": 1, "lengths": (0.5, 0.7)}, "the first from 0.1 to 0.45 for 2 objects"),
        ({"count": 1, "lengths": (0.3, 1.1)}, "the second from the first to 1"),
        ({"count": 1, "lengths": 0.3}, "`lengths` must be two shares of the image"),
        ({"count": 1, "lengths": (0.3, float("nan"))}, "`lengths` must be two shares of the image"),
    ],
)
def test_arguments_out_of_range_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        DRAW[kind](**arguments)


def test_the_largest_objects_fit():
    for objects, shortest in ((1, 1.0), (2, 0.45), (3, 0.3)):
        for draw in DRAW.values():
            scenes = draw(4, objects=objects, size=64, lengths=(shortest, 1.0))
            assert scenes.masks.any(axis=(2, 3)).all()
            assert scenes.masks.sum(axis=1).max() == 1


def test_the_smallest_objects_are_there(kind):
    scenes = DRAW[kind](30, size=32, lengths=(0.1, 0.1))
    assert scenes.masks.any(axis=(2, 3)).all()


@pytest.mark.parametrize(
    ("package", "name", "file"),
    [
        ("skimage", "shapes", "skimage's data/"),
        ("skimage", "photographs", "skimage's data/"),
        ("sklearn", "photographs", "sklearn's datasets/images/"),
    ],
)
def test_it_says_which_package_to_install(monkeypatch, package, name, file):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda each: None if each == package else find(each))
    for cached in (_cutouts._ground, _cutouts._cut_out):
        cached.cache_clear()
    message = f"tf_gradcam.metrics.truth needs {file}.*Install it: pip install"
    with pytest.raises(ImportError, match=message):
        DRAW[name](30)


def test_shapes_need_no_scikit_learn(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda each: None if each == "sklearn" else find(each))
    _cutouts._ground.cache_clear()
    assert len(truth.shapes(30).images) == 30
