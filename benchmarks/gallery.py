"""Draw methods x photographs and methods x layers, for the site's first page and docs/methods.md.

The photographs and the network are those of the demo. Look at what it draws: a method whose picture is
nonsense on the cat is wrong, or docs/methods.md must say when to use it.

    python benchmarks/gallery.py [docs]
"""

import pathlib
import sys

import cv2
import matplotlib.pyplot
import numpy as np
import skimage.data
import sklearn.datasets

import tf_gradcam
from tf_gradcam import methods, pretrained, targets

SIDE = 224
PHOTOGRAPHS = {
    "Egyptian cat": skimage.data.chelsea,
    "espresso": lambda: skimage.data.coffee()[:, 100:500],
    "tripod": lambda: cv2.cvtColor(skimage.data.camera(), cv2.COLOR_GRAY2RGB),
    "flower": lambda: sklearn.datasets.load_sample_image("flower.jpg")[:, 106:533],
}
LAYERS = ["block3b_add", "block5c_add", "block6d_add", "top_activation"]
LAST_LAYER = ["cam"]
OF_PIXELS = ["gradient", "gradient_x_input", "integrated_gradients", "smoothgrad"]
OF_PIXELS += ["guided_backprop", "guided_gradcam"]
SHORT = ["gradcam", "finercam", "eigencam", "fem", "scorecam", "rise", "smoothgrad", "fullgrad"]
BUDGETS = {  # what would take minutes for every photograph
    "scorecam": methods.scorecam(channels=256),
    "sscam": methods.sscam(channels=32, samples=8),
    "iscam": methods.iscam(channels=32),
}


PAPERS_TARGETS = {"rise": targets.Probability()}


def pictures(model, photographs, method, layer=None):
    """Return a picture of each photograph's heatmap."""
    known = BUDGETS.get(method, method)
    cam = tf_gradcam.GradCAM(model, layer, method=known, preprocess=pretrained.preprocess)
    draw_one = pixels if method in OF_PIXELS else tf_gradcam.overlay
    return [draw_one(each, cam(each, PAPERS_TARGETS.get(method)).heatmap[0]) for each in photographs]


def pixels(photograph, heatmap):
    """Draw single pixels, which an overlay would hide: without the photograph, the brightest 1 % as one."""
    return tf_gradcam.colorize(np.clip(heatmap / np.quantile(heatmap, 0.99), 0, 1), "inferno")


def draw(columns, rows, pictures, file):
    figure, axes = matplotlib.pyplot.subplots(
        len(rows), len(columns), figsize=(1.5 * len(columns) + 1.5, 1.5 * len(rows)), layout="constrained"
    )
    for row, line in zip(axes, pictures, strict=True):
        for axis, drawn in zip(row, line, strict=True):
            axis.imshow(drawn)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=10)
    for axis, name in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
    figure.savefig(file, dpi=100, pil_kwargs={"quality": 82})
    matplotlib.pyplot.close(figure)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    model = pretrained.efficientnet_lite0()
    photographs = [tf_gradcam.load_image(load(), size=(SIDE, SIDE)) for load in PHOTOGRAPHS.values()]
    names = [name for name in methods.METHODS if name != "legrad"]  # It needs a vision transformer.
    rows = [pictures(model, photographs, name) for name in names]
    half = -(-len(names) // 2)
    for number, part in enumerate((slice(half), slice(half, None)), start=1):
        draw(list(PHOTOGRAPHS), names[part], rows[part], folder / f"methods-{number}.jpg")
    short = [rows[names.index(name)] for name in SHORT]
    draw(SHORT, list(PHOTOGRAPHS), list(zip(*short, strict=True)), folder / "methods.jpg")
    names = [name for name in names if name not in LAST_LAYER and not _at_image(name)]
    columns = [[pictures(model, photographs[:1], name, layer)[0] for layer in LAYERS] for name in names]
    draw(LAYERS, names, columns, folder / "layers.jpg")


def _at_image(name):
    return getattr(methods.get(name), "at_image", False)


if __name__ == "__main__":
    main()
