#!/usr/bin/env bash
# TensorFlow forgets the slope of a LeakyReLU that follows the sum of a residual block: in a tf.function, and so in Keras's
# `predict`, a convolution, its bias, the sum and the LeakyReLU become one operation, which takes 0.2 whatever the slope is.
# Keras's default is 0.3. Run eagerly, or with TF_ENABLE_ONEDNN_OPTS=0, the slope counts; without the sum it does, too.
# Seen with TensorFlow 2.21.0 and Keras 3.15.1: results off by 0.1 times what is negative, and nothing warns.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    keras==3.15.1 numpy==2.4.6 tensorflow==2.21.0
cd "$folder"
cat > slope.py <<'PYTHON'
import os

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(0)
inputs = keras.Input((8, 8, 4))
convolution = layers.Conv2D(4, 3, padding="same")(inputs)
images = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32)


def errors(before):
    """Return how far `predict` is from the model run eagerly, for slopes of 0.2 and 0.3."""
    found = []
    for slope in (0.2, 0.3):
        model = keras.Model(inputs, layers.LeakyReLU(slope)(before))
        eagerly, compiled = np.asarray(model(images)), model.predict(images, verbose=0)
        found.append(np.abs(eagerly - compiled).max() / -eagerly.min())
    return np.round(found, 4)


after_a_sum, alone = errors(convolution + inputs), errors(convolution)
onednn = os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
print(f"oneDNN {onednn}: slopes of 0.2 and 0.3 after a sum are off by {after_a_sum}, alone by {alone}")
assert max(alone) < 1e-5
assert after_a_sum[0] < 1e-5
assert (abs(after_a_sum[1] - 1 / 3) < 1e-3) == onednn, "The slope counts now, or is lost without oneDNN, too"
PYTHON
export TF_CPP_MIN_LOG_LEVEL=3
TF_ENABLE_ONEDNN_OPTS=1 venv/bin/python slope.py
TF_ENABLE_ONEDNN_OPTS=0 venv/bin/python slope.py
