"""The measurement itself, inside one environment: ../peers.py runs it there and reads its lines of JSON.

.venv-peers/keras3/bin/python benchmarks/peers/measure.py keras3 --runs 50
"""

import argparse
import contextlib
import gc
import importlib.metadata
import itertools
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

try:
    import tf_gradcam
except ModuleNotFoundError:
    tf_gradcam = None  # The environment is too old for it: the peers are measured alone.

LAYER, WARM_UPS = "conv5_block3_out", 3
LAST_CONVOLUTION = "conv5_block3_3_conv"
keras = tf.keras  # Keras 2 and 3 alike


class Peer(NamedTuple):
    """A way to make a heatmap.

    Attributes:
        name: in the table.
        package: whose version stands there, if it is one.
        environments: where it is measured.
        make: of a model, all that its users do once; returns a function of an image `(1, H, W, 3)` and its
            predicted class, all that they do for each image. It answers NumPy.
    """

    name: str
    package: str | None
    environments: tuple[str, ...]
    make: Callable


def keras_io(model):
    """The function that keras.io's example defines, which makes its model of two outputs in every call."""
    return lambda image, _: recipe(two_outputs(model), image)


def keras_io_once(model):
    both = two_outputs(model)
    return lambda image, _: recipe(both, image)


def two_outputs(model):
    return keras.Model(model.inputs, [model.get_layer(LAYER).output, model.output])


def recipe(both, image):
    with tf.GradientTape() as tape:
        activations, predictions = both(image)
        score = predictions[:, tf.argmax(predictions[0])]
    weights = tf.reduce_mean(tape.gradient(score, activations), axis=(0, 1, 2))
    heatmap = tf.reduce_sum(weights * activations[0], axis=-1)
    return (tf.maximum(heatmap, 0) / tf.reduce_max(heatmap)).numpy()


def tf_keras_vis(model):
    """As its documentation has it, but of LAYER itself, not of the last convolution before it."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    gradcam = Gradcam(model, model_modifier=ReplaceToLinear(), clone=True)
    return lambda image, index: gradcam(
        CategoricalScore(index), image, penultimate_layer=LAYER, seek_penultimate_conv_layer=False
    )


def tf_explain(model):
    """Its answer is a picture; with nothing of the photograph in it, the colours tell how high the map is."""
    from tf_explain.core.grad_cam import GradCAM

    def explain(image, index):
        picture = GradCAM().explain((image, None), model, class_index=index, layer_name=LAYER, image_weight=0)
        return picture[..., 1]  # The green of viridis rises from one end to the other.

    return explain


def medicai(model):
    from medicai.utils import GradCAM

    cam = GradCAM(model, LAYER)
    return lambda image, _: cam.compute_heatmap(image)


def eli5(model):
    import eli5

    return lambda image, _: eli5.explain_prediction(model, image, layer=LAYER).targets[0].heatmap


def xplique(model):
    from xplique.attributions import GradCAM

    classes = np.eye(model.output_shape[-1], dtype="float32")
    return lambda image, index: GradCAM(model, conv_layer=LAYER).explain(image, classes[[index]]).numpy()


def xplique_reused(model):
    from xplique.attributions import GradCAM

    classes = np.eye(model.output_shape[-1], dtype="float32")
    explainer = GradCAM(model, conv_layer=LAYER)
    return lambda image, index: explainer.explain(image, classes[[index]]).numpy()


def signal_grad_cam(model):
    """Its one function also draws a figure of each heatmap into a file. It explains convolutions only."""
    import matplotlib
    from signal_grad_cam import TfCamBuilder

    matplotlib.use("Agg")
    builder = TfCamBuilder(model, class_names=[str(index) for index in range(model.output_shape[-1])])
    folder = tempfile.mkdtemp()

    def explain(image, index):
        options = {"softmax_final": True, "results_dir_path": folder}
        maps, _, _ = builder.get_cam([image[0]], [index], [index], "Grad-CAM", LAST_CONVOLUTION, **options)
        return next(iter(maps.values()))[0]

    return explain


def openvino_xai(model):
    """Its ReciproCAM is in an OpenVINO model that answers scores and maps, of a layer that it chooses."""
    import openvino
    from openvino_xai import Explainer, Task
    from openvino_xai.explainer.explainer import ExplainMode

    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        converted = openvino.convert_model(folder)
    converted.reshape([1, *model.input_shape[1:]])
    explainer = Explainer(converted, Task.CLASSIFICATION, np.asarray, ExplainMode.WHITEBOX)
    as_it_is = {"resize": False, "colormap": False, "overlay": False}
    return lambda image, index: explainer(image, targets=[index], **as_it_is).saliency_map[index]


PEERS = (
    Peer("keras.io's recipe", None, ("keras3", "keras2"), keras_io),
    Peer("keras.io's recipe, its model made once", None, ("keras3", "keras2"), keras_io_once),
    Peer("tf-keras-vis", "tf-keras-vis", ("keras3", "keras2"), tf_keras_vis),
    Peer("tf-explain", "tf-explain", ("keras3", "keras2"), tf_explain),
    Peer("medicai", "medicai", ("keras3",), medicai),
    Peer("eli5", "eli5", ("keras3",), eli5),
    Peer("signal-grad-cam", "signal-grad-cam", ("signal",), signal_grad_cam),
    Peer("openvino-xai, ReciproCAM", "openvino-xai", ("openvino",), openvino_xai),
    Peer("xplique, its explainer reused", "xplique", ("xplique",), xplique_reused),
    Peer("xplique, a new explainer for each image", "xplique", ("xplique",), xplique),
)


def seconds(function, *args):
    start = time.perf_counter()
    answer = function(*args)
    return time.perf_counter() - start, answer


def interleave(forward, explainers, images, classes):
    """Yield for each image and each explainer the seconds of a forward pass, of a heatmap, and the latter."""
    warm_ups = list(zip(images, classes, strict=True))[:1] * WARM_UPS
    for i, (image, index) in enumerate(itertools.chain(warm_ups, zip(images, classes, strict=True))):
        found = [(seconds(forward)[0], *seconds(explain, image, index)) for explain in explainers]
        if i >= WARM_UPS:
            yield found


def measure(peer, runs):
    """Return a row: medians in seconds, quartiles of ratios, and what is wrong with the heatmaps."""
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None)
    images = np.random.default_rng(0).uniform(size=(runs, 1, 224, 224, 3)).astype("float32")
    image = tf.constant(images[0])
    forward = tf.function(lambda x: model(x, training=False)).get_concrete_function(image)
    classes = [int(np.argmax(forward(tf.constant(each)))) for each in images]
    explainers = [peer.make(model)]
    if tf_gradcam:
        explainers.append(lambda image, _: tf_gradcam.make_gradcam_heatmap(model, image, LAYER))
    rounds = list(interleave(lambda: forward(image).numpy(), explainers, images, classes))
    theirs, *ours = zip(*rounds, strict=True)
    return {
        "forward": statistics.median(forward for forward, _, _ in theirs),
        "heatmap": statistics.median(heatmap for _, heatmap, _ in theirs),
        "ratio": ratios(theirs),
        "ours": ratios(ours[0]) if ours else None,
        "complaint": next(filter(None, (complaint(heatmap) for _, _, heatmap in theirs)), None),
    }


def ratios(found):
    return statistics.quantiles((heatmap / forward for forward, heatmap, _ in found), n=4)


def complaint(heatmap):
    heatmap = np.squeeze(heatmap)
    if heatmap.ndim != 2:
        return f"has the shape {heatmap.shape}"
    if not np.isfinite(heatmap).all():
        return "is not finite"
    return None if np.ptp(heatmap) > 0 else "is the same everywhere"


def about(peer):
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    return {
        "peer": peer.name,
        "version": peer.package and importlib.metadata.version(peer.package),
        **versions,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("environment")
    parser.add_argument("--runs", type=int, default=50, help="images, one by one (default 50)")
    args = parser.parse_args()
    for peer in PEERS:
        if args.environment in peer.environments:
            row = about(peer)
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    row |= measure(peer, args.runs)
            except Exception as error:  # A peer that fails is a row, too.
                traceback.print_exc()
                row["failure"] = f"{type(error).__name__}: {error}"
            print(json.dumps(row), flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
