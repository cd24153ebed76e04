"""Scores of classes: both sides of a single unit, by what the unit is and what was explained."""

import numpy as np
import pytest

from tf_gradcam import targets
from tf_gradcam._run import class_probability, class_scores, target_text

P = 1 / (1 + np.exp(-0.4))  # the sigmoid of a logit of 0.4


@pytest.mark.parametrize(
    ("output", "index", "score", "target", "expected", "probability"),
    [
        ([P], 1, 0.4, None, [1 - P, P], P),
        ([P], 0, -0.4, None, [1 - P, P], 1 - P),
        ([P], 1, P, targets.Probability(), [1 - P, P], P),
        ([1 - P], 1, 1 - P, targets.Probability(1), [P, 1 - P], 1 - P),
        ([np.log(P)], 1, 0.4, None, [np.log(1 - P), np.log(P)], None),
        ([P], 1, 0.4, targets.Binary(), [1 - P, P], P),
        ([P], 1, -0.4, targets.Against(targets.Binary()), [1 - P, P], None),
        # Logits, of which the first three lie in [0, 1] by chance.
        ([0.4], 1, 0.4, targets.Binary(), [-0.4, 0.4], None),
        ([0.4], 0, -0.4, targets.Output("b", targets.Binary(0)), [-0.4, 0.4], None),
        ([0.4], 1, -0.4, targets.Against(targets.Binary(1)), [-0.4, 0.4], None),
        ([-3.0], 0, 3.0, targets.Binary(), [3, -3], None),
        # Neither a regression nor several units have two sides.
        ([0.4], None, 0.4, None, [0.4], None),
        ([0.2, 0.8], 1, 3.0, None, [0.2, 0.8], 0.8),
        # Segmentations: the mean over the pixels.
        ([[[0.1], [0.3]], [[0.2], [0.6]]], 1, -4.0, None, [0.7, 0.3], 0.3),
        ([[[-4.0], [1.0]]], 0, 3.0, targets.Binary(), [1.5, -1.5], None),
    ],
)
def test_a_unit_with_classes_has_a_score_for_both(output, index, score, target, expected, probability):
    asked = np.array(output, np.float32), index, score, target_text(None, target)
    np.testing.assert_allclose(class_scores(*asked), expected, rtol=1e-6)
    found = class_probability(*asked)
    assert found == (None if probability is None else pytest.approx(probability, rel=1e-6))
