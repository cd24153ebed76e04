"""What `check` says of two explanations, by numbers worked out by hand, and of an explainer."""

import numpy as np
import pytest

from tf_gradcam import GradCAM, PrecisionCheck
from tf_gradcam._explain.precision_check import compare_explanations
from tf_gradcam._explanation import Explanation
from tf_gradcam._freezing import half_hardware, half_precision


def explanation(heatmaps, scores, classes):
    heatmaps, scores = np.array(heatmaps, "float32"), np.array(scores, "float32")
    target = None if classes is None else np.array(classes, "int32")
    return Explanation(heatmaps, None, scores, target, None, ())


FULL = explanation([[[0, 1], [0.5, 0]], [[1, 0.9], [0, 0]], [[1, 0], [0, 0]]], [2, 4, 8], [7, 7, 1])
HALF = explanation([[[0, 1], [0.25, 0]], [[0.875, 1], [0, 0]], [[0, 0], [0, 1]]], [2.5, 4, 1], [7, 7, 3])


def test_differences_are_those_of_the_images_whose_class_is_the_same():
    found = compare_explanations(HALF, FULL)
    assert found == PrecisionCheck(3, 0.25, 0.5, 0.5 / 8, 1, 1, pytest.approx(0.9))
    assert repr(found) == (
        "Half precision beside float32, on 3 images:\n"
        "  The heatmaps differ by 0.2500 of their maximum at most.\n"
        "  The scores differ by 0.5 at most, 6.25% of the largest.\n"
        "  The class is another one in 1 of 3.\n"
        "  The peak of the heatmap moved in 1 of 3, to where float32 has 0.90 of it or more."
    )
    same = compare_explanations(FULL, FULL)
    assert same == PrecisionCheck(3, 0, 0, 0, 0, 0, 1)
    assert "peak of the heatmap moved in 0 of 3." in repr(same)


def test_without_a_class_all_images_are_compared_and_several_scores_count_once():
    full, half = FULL._replace(target=None), HALF._replace(target=None)
    assert compare_explanations(half, full)[:6] == (3, 1, 7, 7 / 8, 0, 2)
    several = [
        each._replace(heatmap=each.heatmap[None], score=each.score[None], target=None)
        for each in (half, full)
    ]
    assert compare_explanations(*several)[:6] == (1, 1, 7, 7 / 8, 0, 1)
    blank = explanation(np.zeros([1, 2, 2]), [0], None)
    assert compare_explanations(blank, blank) == PrecisionCheck(1, 0, 0, 0, 0, 0, 1)


def test_one_score_for_all_images_is_compared_with_each_heatmap():
    full, half = (each._replace(score=each.score[:1], target=each.target[:1]) for each in (FULL, HALF))
    assert compare_explanations(half, full)[:6] == (3, 1, 0.5, 0.25, 0, 2)


def test_an_explainer_is_compared_with_the_one_that_it_was_frozen_from(functional, images, monkeypatch):
    monkeypatch.setattr(half_hardware, "is_faster_on_cpu", lambda precision: True)
    monkeypatch.setattr(half_precision, "_CAST", 0.0)
    monkeypatch.setattr(half_precision, "_CAST_START", 0.0)
    plain = GradCAM(functional)
    half = plain.freeze(precision="bfloat16")
    found = half.check(images)
    expected, other = plain(images), half(images)
    assert found.images == len(images)
    assert found == compare_explanations(other, expected)
    assert 0 < found.heatmap < 0.03
    for full in (plain, plain.freeze()):
        with pytest.raises(ValueError, match="`check` compares half precision with float32"):
            full.check(images)
