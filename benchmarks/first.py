"""What the first heatmap costs: in a fresh process, once the model is built, with the layer left unnamed.

Each is measured in processes of its own, one after the other by turns: the textbook's recipe (one model with
two outputs, a default GradientTape, eagerly) and make_gradcam_heatmap, whose second call then compiles.

    python benchmarks/first.py [--runs 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings

MODELS = {"ResNet50": "conv5_block3_out", "MobileNetV2": "out_relu", "EfficientNetB0": "top_activation"}


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def textbook(model, images, layer):
    """The recipe of the textbooks, which has to be told the layer."""
    import keras
    import tensorflow as tf

    two_outputs = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
    with tf.GradientTape() as tape:
        activations, probabilities = two_outputs(images)
        score = probabilities[:, tf.argmax(probabilities[0])]
    weights = tf.reduce_mean(tape.gradient(score, activations), axis=(0, 1, 2))
    heatmap = tf.maximum(tf.squeeze(activations[0] @ weights[:, None]), 0)
    return (heatmap / tf.reduce_max(heatmap)).numpy()


def measure(what, name) -> dict:
    """Measure in this process, which must be a fresh one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")  # Keras complains of the textbook's bare tensor.
    import keras
    import numpy as np
    import tensorflow  # noqa: F401  so that the import that follows is that of tf_gradcam alone

    keras.applications  # noqa: B018  loaded when first used
    found = {}
    if what == "tf_gradcam":
        start = time.perf_counter()
        import tf_gradcam
        from tf_gradcam._layers import default_layer

        tf_gradcam.make_gradcam_heatmap  # noqa: B018  loaded when first used
        found["import"] = time.perf_counter() - start
    model = getattr(keras.applications, name)(weights=None)
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")
    if what == "textbook":
        return {"first": seconds(lambda: textbook(model, images, MODELS[name]))}
    found["first"] = seconds(lambda: tf_gradcam.make_gradcam_heatmap(model, images))
    found["second"] = seconds(lambda: tf_gradcam.make_gradcam_heatmap(model, images))
    found["third"] = seconds(lambda: tf_gradcam.make_gradcam_heatmap(model, images))
    found["layer"] = seconds(lambda: default_layer(model))
    return found


def by_turns(name, runs):
    """Return what `measure` finds in fresh processes, by turns."""
    found = {"textbook": [], "tf_gradcam": []}
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(runs + 1):
        for what, each in found.items():
            command = [sys.executable, __file__, "--inside", what, name]
            done = subprocess.run(command, check=True, capture_output=True, env=own)
            each.append(json.loads(done.stdout))
    return {what: each[1:] for what, each in found.items()}  # The first compiled Python.


def table(runs) -> str:
    lines = [
        "| model | textbook | first heatmap | ratio | second, compiles | third | default layer | import |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in MODELS:
        found = by_turns(name, runs)
        pairs = zip(found["tf_gradcam"], found["textbook"], strict=True)
        ratio = statistics.median(ours["first"] / theirs["first"] for ours, theirs in pairs)
        theirs = statistics.median(each["first"] for each in found["textbook"])
        ours = {key: statistics.median(each[key] for each in found["tf_gradcam"]) for key in COLUMNS}
        lines.append(
            f"| {name} | {theirs:.2f} s | {ours['first']:.2f} s | {ratio:.2f} | {ours['second']:.2f} s | "
            f"{ours['third']:.2f} s | {1e3 * ours['layer']:.0f} ms | {1e3 * ours['import']:.0f} ms |"
        )
    return "\n".join(lines)


COLUMNS = ("first", "second", "third", "layer", "import")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes of each (default 5)")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    print(json.dumps(measure(*arguments.inside)) if arguments.inside else table(arguments.runs))


if __name__ == "__main__":
    main()
