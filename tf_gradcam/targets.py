"""What to explain: named tuples whose `score` turns a model's answer into one number per image.

For a pixel, a masked region or a box take `method="hirescam"` or `"layercam"`: Grad-CAM averages gradients
over all places, and so also shows other places that look alike.

The numbers in a target become arrays with one row for each image, so that other numbers never trace anew. Its
method `score(outputs, logits)` returns the score and the class index that it belongs to, int32 of the same
shape, or `None` where it belongs to no class. Where a target leaves a choice to the model, its method
`pinned(outputs, logits)` returns it with that choice made: altered copies of the images are then scored for
the same thing.
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
