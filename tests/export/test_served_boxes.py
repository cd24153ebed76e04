"""The box that a served model answers: the first of `tf_gradcam.boxes`, in TensorFlow operations."""

import json

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, build, chain

import tf_gradcam
from tf_gradcam import export_gradcam, serving
from tf_gradcam._export.components import label_components, place_box, strongest_box

strongest = tf.function(strongest_box, reduce_retracing=True, autograph=False)


def assert_boxes_of_the_library(heatmaps, threshold, corners, scores, size=None):
    """Compare boxes `(N, 4)` and scores `(N,)` with those of `tf_gradcam.boxes`."""
    for heatmap, box, score in zip(heatmaps, np.asarray(corners), np.asarray(scores), strict=True):
        found = tf_gradcam.boxes(heatmap, threshold, size=size, most=1)
        expected = found[0].box if found else (0, 0, 0, 0)
        assert tuple(box) == expected
        assert score == pytest.approx(found[0].score if found else 0, abs=1e-6)


def spiral(side):
    """A path of one pixel's width that winds inwards, with one pixel between its turns."""
    mask = np.zeros((side, side), bool)
    low, high = 0, side - 1
    while high - low > 2:
        mask[low, max(low - 2, 0) : high + 1] = mask[low : high + 1, high] = True
        mask[high, low : high + 1] = mask[low + 2 : high + 1, low] = True
        low, high = low + 2, high - 2
    return mask


@pytest.mark.parametrize("threshold", [0, 0.15, 0.5, 0.9])
def test_the_box_is_the_first_of_the_library(threshold):
    random = np.random.default_rng(0)
    for shape in [(1, 1), (1, 9), (7, 7), (30, 41)]:
        heatmaps = random.random((20, *shape), np.float32)
        heatmaps[0] = 0
        corners, scores = strongest(tf.constant(heatmaps), tf.constant(threshold, tf.float32))
        assert (corners.dtype, scores.dtype) == (tf.int32, tf.float32)
        assert_boxes_of_the_library(heatmaps, threshold, corners, scores)
    smooth = np.stack([cv2.resize(each, (224, 224)) for each in random.random((4, 9, 9), np.float32)])
    corners, scores = strongest(tf.constant(smooth), tf.constant(threshold, tf.float32))
    assert_boxes_of_the_library(smooth, threshold, corners, scores)


def test_equal_components_give_the_first_and_nothing_gives_zeros():
    checks = np.zeros((3, 4, 5), np.float32)
    checks[0, 1::2, 1::2] = 1
    checks[2] = np.nan
    corners, scores = strongest_box(tf.constant(checks), 0.15)
    assert corners.numpy().tolist() == [[1, 1, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert scores.numpy().tolist() == [1, 0, 0]


@pytest.mark.parametrize("turns", range(4))
def test_components_are_those_of_opencv_however_they_wind(turns):
    masks = [np.rot90(spiral(61), turns), np.rot90(np.tril(np.ones((61, 61), bool)), turns)]
    masks += [np.random.default_rng(seed).random((61, 61)) < 0.4 for seed in range(4)]
    masks += [np.zeros((61, 61), bool), np.ones((61, 61), bool)]
    labels, mask_of_label = (each.numpy() for each in label_components(tf.constant(np.stack(masks))))
    for number, (ours, mask) in enumerate(zip(labels, masks, strict=True)):
        count, theirs = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        assert (ours[~mask] == len(mask_of_label)).all()
        assert (mask_of_label[ours[mask]] == number).all()
        pairs = {(int(one), int(other)) for one, other in zip(ours[mask], theirs[mask], strict=True)}
        assert len(pairs) == count - 1 == len(np.unique(ours[mask]))
        # They are numbered in the order of their first pixels.
        _, first = np.unique(np.where(mask, ours, -1), return_index=True)
        assert (np.diff(first[-count + 1 :]) > 0).all()


def test_a_long_winding_component_needs_few_steps(monkeypatch):
    from tf_gradcam._export import components

    steps, lowest_around = [], components._lowest_around
    monkeypatch.setattr(components, "_lowest_around", lambda *args: steps.append(1) or lowest_around(*args))
    mask = spiral(224)
    assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2
    assert len(np.unique(label_components(tf.constant(mask[None]))[0].numpy()[0][mask])) == 1
    assert len(steps) <= 8  # a label would need 25,000 to pass from pixel to pixel


def test_a_box_is_placed_in_a_photograph_as_the_library_places_it():
    heatmap = np.zeros((7, 9), np.float32)
    heatmap[2:4, 3:8] = 1
    corners, _ = strongest_box(tf.constant(heatmap[None]), 0.15)
    sizes = [(7, 9), (8, 10), (300, 451), (33, 20000)]
    placed = place_box(tf.repeat(corners, len(sizes), axis=0), tf.constant([7, 9]), tf.constant(sizes))
    for size, box in zip(sizes, placed.numpy(), strict=True):
        assert tuple(box) == tf_gradcam.boxes(heatmap, size=size)[0].box


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model, and the version that it was exported to with boxes."""
    model = build("functional")
    return model, export_gradcam(model, tmp_path_factory.mktemp("boxes"), top_k=2, boxes=0.5)


def test_every_signature_with_heatmaps_answers_their_boxes(served, images):
    _, version = served
    signatures = tf.saved_model.load(str(version)).signatures
    answers = {"gradcam": signatures["gradcam"](images=tf.constant(images))}
    index = tf.constant([CLASSES - 1] * len(images))
    answers["gradcam_class"] = signatures["gradcam_class"](images=tf.constant(images), class_index=index)
    for answer in answers.values():
        assert sorted(answer) == ["box", "box_score", "class", "heatmap", "map", "score", "scores"]
        assert_boxes_of_the_library(answer["heatmap"].numpy(), 0.5, answer["box"], answer["box_score"])
        assert_boxes_of_the_library(
            answer["heatmap"].numpy(),
            0.5,
            [serving.boxes(answer, 0.5, index=n)[0].box for n in range(len(images))],
            answer["box_score"],
        )
    best = signatures["gradcam_top_k"](images=tf.constant(images))
    assert best["box"].shape == (len(images), 2, 4)
    flat = best["heatmap"].numpy().reshape(-1, SIDE, SIDE)
    assert_boxes_of_the_library(flat, 0.5, np.reshape(best["box"], (-1, 4)), np.ravel(best["box_score"]))
    assert "box" not in signatures["serving_default"].structured_outputs
    assert signatures["gradcam"](images=tf.zeros((0, SIDE, SIDE, 3)))["box"].shape == (0, 4)
    manifest = json.loads((version / "assets.extra" / "gradcam.json").read_text("utf-8"))
    assert manifest["boxes"] == 0.5


def test_the_box_of_a_file_is_in_the_pixels_of_its_photograph(served):
    model, version = served
    answer_bytes = tf.saved_model.load(str(version)).signatures["gradcam_bytes"]
    # Each pixel several times, so that the model gets exactly the small image again.
    small = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    photographs = [small[0].repeat(2, 0).repeat(3, 1), small[1].repeat(5, 0)]
    files = [cv2.imencode(".png", each[..., ::-1])[1].tobytes() for each in photographs]
    answer = answer_bytes(image_bytes=tf.constant(files))
    heatmaps = tf_gradcam.GradCAM(model)(small.astype("float32")).heatmap.numpy()
    for heatmap, photograph, box, score in zip(
        heatmaps, photographs, answer["box"], answer["box_score"], strict=True
    ):
        assert_boxes_of_the_library([heatmap], 0.5, [box], [score], size=photograph.shape[:2])
    assert answer_bytes(image_bytes=tf.constant([], tf.string))["box"].shape == (0, 4)


@pytest.mark.parametrize("boxes", [1, -0.1, True, "otsu", np.nan])
def test_an_odd_threshold_is_refused(boxes, functional, tmp_path):
    with pytest.raises(ValueError, match="`boxes` must be None or a threshold.*serving.boxes"):
        export_gradcam(functional, tmp_path / "odd", boxes=boxes)
    assert not (tmp_path / "odd").exists()


def test_boxes_are_for_savedmodels_and_heatmaps_of_images(functional, tmp_path):
    for threshold in (0.15, 0):
        with pytest.raises(ValueError, match="`boxes` is for format='tensorflow' alone"):
            export_gradcam(functional, tmp_path / "a.onnx", format="onnx", boxes=threshold)
    signal = keras.Input((16, 3))
    layers = [keras.layers.Conv1D(2, 3), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)]
    with pytest.raises(ValueError, match=r"`boxes` needs heatmaps \(H, W\)"):
        export_gradcam(keras.Model(signal, chain(signal, layers)), tmp_path / "signal", boxes=0.15)
