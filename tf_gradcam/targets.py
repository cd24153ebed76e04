"""What to explain: named tuples whose `score` turns a model's answer into one number per image.

For a pixel, a masked region or a box take `method="hirescam"` or `"layercam"`: Grad-CAM averages gradients
over all places, and so shows whatever else looks alike.

The numbers in a target are arrays with one row per image, so that other numbers never trace anew. Its method
`score(outputs, logits)` returns the score and the class index it belongs to, int32 of the same shape, or
`None` where it belongs to none. Where it leaves a choice to the model, `fixed(outputs, logits)` returns it
with that choice made, so that altered copies of the images are scored for the same thing.
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
