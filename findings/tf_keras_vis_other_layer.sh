#!/usr/bin/env bash
# tf-keras-vis explains another layer than the one that it is given by name: `penultimate_layer="relu"` is taken for where the
# search for a convolution begins, backwards, so that the map is that of the convolution before normalization and ReLU. Only
# `seek_penultimate_conv_layer=False` explains the named one. Nothing warns.
# Seen with tf-keras-vis 0.8.7, Keras 3.15.1 and TensorFlow 2.21.0: equal to the map of "conv", up to 0.53 of 1 from that of "relu".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    keras==3.15.1 numpy==2.4.6 tensorflow==2.21.0 tf-keras-vis==0.8.7
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import keras
import numpy as np
from keras import layers
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.utils.scores import CategoricalScore

keras.utils.set_random_seed(0)
scales = keras.initializers.RandomNormal(0, 2)
model = keras.Sequential(
    [
        keras.Input((16, 16, 3)),
        layers.Conv2D(4, 3, padding="same", name="conv"),
        layers.BatchNormalization(gamma_initializer=scales, beta_initializer="random_normal"),
        layers.ReLU(name="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    ]
)
image = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)


def heatmap(layer, **options):
    return Gradcam(model)(CategoricalScore(0), image, penultimate_layer=layer, **options)


relu = heatmap("relu", seek_penultimate_conv_layer=False)
conv = heatmap("conv", seek_penultimate_conv_layer=False)
found = heatmap("relu")
difference = np.abs(found - relu).max()
print(f"asked for relu: {np.abs(found - conv).max():.2f} from the map of conv, {difference:.2f} from that of relu")
assert np.array_equal(found, conv)
assert difference > 0.3, "The named layer is explained now"
PYTHON
