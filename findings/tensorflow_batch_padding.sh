#!/usr/bin/env bash
# TensorFlow with oneDNN, as its packages for x86 have it, drops images that a tf.pad adds to a batch before a convolution, as
# soon as both are in a tf.function: the padding becomes the convolution's own, which has none along the batch. Run eagerly, or
# with TF_ENABLE_ONEDNN_OPTS=0, all of them are there.
# Seen with TensorFlow 2.21.0: 2 images padded to 5 are 2 again, and nothing warns.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 tensorflow==2.21.0
cd "$folder"
cat > padded.py <<'PYTHON'
import os

import tensorflow as tf

images = tf.random.stateless_normal((2, 8, 8, 3), (0, 0))
filters = tf.random.stateless_normal((3, 3, 3, 4), (1, 0))


def convolve(images):
    padded = tf.pad(images, [[1, 2], [1, 1], [1, 1], [0, 0]])
    return tf.nn.conv2d(padded, filters, 1, "VALID")


onednn = os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
eagerly, compiled = len(convolve(images)), len(tf.function(convolve, autograph=False)(images))
print(f"oneDNN {onednn}: {eagerly} images eagerly, {compiled} in a tf.function")
assert eagerly == 5
assert compiled == (2 if onednn else 5), "TensorFlow now keeps the images, or loses them without oneDNN, too"
PYTHON
export TF_CPP_MIN_LOG_LEVEL=3
TF_ENABLE_ONEDNN_OPTS=1 venv/bin/python padded.py
TF_ENABLE_ONEDNN_OPTS=0 venv/bin/python padded.py
