"""Targets, what to explain: from a model's outputs to one score per image. Users give them to `GradCAM`.

For a pixel, a masked region or a box use `method="hirescam"` or `"layercam"`: Grad-CAM averages the gradients
over the grid, and therefore also highlights similar patterns at other positions.

The default target is the class with the largest output. Name another where that is not the answer: for CTC,
whose most frequent symbol is the blank (`Pixel` or `Region` of a letter); for an ordinal head, whose first
threshold is always the surest (`Class` of a threshold); for a detector with columns of offsets (`Detection`,
`Box`); for a regression (`Value`).

The numbers in a target become arrays with one row for each image, so that other numbers need no new trace.
`score(outputs, logits)` returns the score and the class index that it belongs to, int32 of the same shape, or
`None` if it belongs to no class. For a target that leaves a choice to the model, such as the predicted class,
`pinned(outputs, logits)` returns the target with that choice fixed, so that altered copies of the images are
scored for the same class.
"""

from tf_gradcam._targets.boxes import Box, Detection
from tf_gradcam._targets.classes import (
    Against,
    Binary,
    Class,
    Classes,
    Contrast,
    Output,
    Pixel,
    Probability,
    Similarity,
    TopClasses,
    Value,
)
from tf_gradcam._targets.regions import Region

__all__ = [
    "Against",
    "Binary",
    "Box",
    "Class",
    "Classes",
    "Contrast",
    "Detection",
    "Output",
    "Pixel",
    "Probability",
    "Region",
    "Similarity",
    "TopClasses",
    "Value",
]
