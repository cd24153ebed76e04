#!/usr/bin/env bash
# OpenVINO's product of two int8 matrices is int8: sums above 127 become 127. Its converter takes it for TensorFlow's
# BatchMatMulV3, whose attribute Tout asks for int32, as a Dense layer that Keras has quantized does.
# Seen for 100 products of up to 127 * 127: TensorFlow 2.21.0 returns -31869, 23112, ...; OpenVINO 2026.4.1 returns
# -128, 127, ... and warns of nothing. A small classifier's logit was 4.99 off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 openvino==2026.4.1 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import numpy as np
import openvino
import tensorflow as tf

random = np.random.default_rng(0)
left, right = (random.integers(-127, 128, shape).astype("int8") for shape in ((2, 100), (100, 8)))
with tf.Graph().as_default() as graph:
    product = tf.raw_ops.BatchMatMulV3(x=tf.compat.v1.placeholder(tf.int8, [2, 100]), y=right, Tout=tf.int32)
    tf.identity(product)
model = openvino.Core().compile_model(openvino.convert_model(graph), "CPU")
found, expected = model(left)[0], left.astype("int32") @ right.astype("int32")
print("NumPy:", expected[0, :4], " OpenVINO:", found[0, :4], found.dtype)
assert found.dtype == np.int32
assert np.array_equal(found, np.clip(expected, -128, 127)), "OpenVINO now heeds Tout"
PYTHON
