"""Metrics: how far can a heatmap be trusted? Each is a function, from images and maps to one number an image.

| question | metrics |
|---|---|
| Does the score depend on what it shows? | `deletion`, `insertion`, `road`, `mu_fidelity`, `infidelity` |
| ... on the image times the heatmap? | `average_drop`, `increase`, `average_gain`, `adcc`, `arcc` |
| Does it show the object? | `pointing_game`, `energy`, `rank_accuracy`, `roc_auc`, `auprc`, `iou` |
| ... or its cell of a mosaic? | `grid_pointing` |
| Does it stay the same under noise? | `max_sensitivity`, `coherency` |
| How concentrated is it? | `sparseness`, `entropy`, `complexity` |
| How similar are two maps? | `spearman`, `pearson`, `ssim` |

Others take an explainer, a `GradCAM`: `evaluate` and `Evaluator` make a table of these metrics, `sanity` and
`complexity_rise` randomize weights, `other_class_similarity` and `repeatability` compare the maps of two
classes or of several models, and `trust` is a short table of all this.

Images are `(N, *axes, C)` and maps `(N, *axes)` with 1 to 3 axes: signals, images, volumes. All of them
answer float64 `(N,)`, and no number depends on the other images of the batch. What can't be measured is NaN;
`confidence_interval` leaves it out and counts it.

`score` is any callable from images to one number each, of the class that the maps explain: with a class for
each image, `probabilities[np.arange(len(images)), np.resize(classes, len(images))]`, because it gets whole
copies of the batch.

No metric is the truth: report several, two baselines where there is one, and the same metrics for a noise
map.
"""

from tf_gradcam.metrics import truth
from tf_gradcam.metrics._bootstrap import Interval, confidence_interval
from tf_gradcam.metrics._comparison import other_class_similarity, repeatability
from tf_gradcam.metrics._curves import (
    Curve,
    deletion,
    deletion_curve,
    insertion,
    insertion_curve,
    road,
    road_curve,
)
from tf_gradcam.metrics._evaluate import Evaluator, Row, Table, evaluate
from tf_gradcam.metrics._imputation import noisy_linear_imputation
from tf_gradcam.metrics._inputs import box_masks
from tf_gradcam.metrics._localization import (
    auprc,
    energy,
    grid_pointing,
    iou,
    pointing_game,
    rank_accuracy,
    roc_auc,
)
from tf_gradcam.metrics._masked import (
    adcc,
    adcc_of_means,
    arcc,
    average_drop,
    average_gain,
    coherency,
    complexity,
    increase,
)
from tf_gradcam.metrics._sanity import Sanity, Stage, complexity_rise, sanity
from tf_gradcam.metrics._shape import entropy, sparseness
from tf_gradcam.metrics._similarity import pearson, spearman, ssim
from tf_gradcam.metrics._stability import infidelity, max_sensitivity, mu_fidelity
from tf_gradcam.metrics._trust import Check, Trust, trust

__all__ = [
    "Check",
    "Curve",
    "Evaluator",
    "Interval",
    "Row",
    "Sanity",
    "Stage",
    "Table",
    "Trust",
    "adcc",
    "adcc_of_means",
    "arcc",
    "auprc",
    "average_drop",
    "average_gain",
    "box_masks",
    "coherency",
    "complexity",
    "complexity_rise",
    "confidence_interval",
    "deletion",
    "deletion_curve",
    "energy",
    "entropy",
    "evaluate",
    "grid_pointing",
    "increase",
    "infidelity",
    "insertion",
    "insertion_curve",
    "iou",
    "max_sensitivity",
    "mu_fidelity",
    "noisy_linear_imputation",
    "other_class_similarity",
    "pearson",
    "pointing_game",
    "rank_accuracy",
    "repeatability",
    "road",
    "road_curve",
    "roc_auc",
    "sanity",
    "sparseness",
    "spearman",
    "ssim",
    "trust",
    "truth",
]
