#!/usr/bin/env bash
# A function compiled by XLA compiles anew for every image of one shape, if a function that it calls returns the lengths of the
# image (`tf.shape`) beside its result, and the caller shapes something by them: XLA then takes the image for a constant of
# the program. The same lengths taken by the caller itself compile once. Nothing is said but what XLA_FLAGS dumps.
# Seen with TensorFlow 2.21.0: 5 compilations in 5 calls instead of 1, and a call takes 30 times as long.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 XLA_FLAGS="--xla_dump_to=$folder/dump --xla_dump_hlo_as_text" venv/bin/python - <<'PYTHON'
import pathlib

import tensorflow as tf


def count(lengths_leave):
    """Return how many programs XLA compiles for 5 images of one shape."""

    @tf.function(autograph=False)
    def average(image):
        mean = tf.reduce_mean(image, axis=-1)
        return (mean, tf.shape(image)[1:3]) if lengths_leave else (mean, None)

    @tf.function(autograph=False, jit_compile=True)
    def explain(image):
        mean, lengths = average(image)
        lengths = tf.shape(image)[1:3] if lengths is None else lengths
        return tf.reshape(tf.sin(mean), tf.concat([[-1], lengths], axis=0))

    before = programs()
    for seed in range(5):
        explain(tf.random.stateless_normal((2, 32, 32, 3), (seed, 0)))
    return len(programs() - before)


def programs():
    return {path.name for path in pathlib.Path("dump").glob("*explain*.before_optimizations.txt")}


once, always = count(lengths_leave=False), count(lengths_leave=True)
print("compilations of 5 calls, lengths taken by the caller:", once, " returned by a function:", always)
assert once == 1
assert always == 5, "XLA now compiles it once"
PYTHON
