#!/usr/bin/env bash
# TensorFlow's converter to LiteRT, asked for weights of float16, stores every constant so, also the largest float32
# number that `abs(x) <= max` compares with to tell infinity from numbers. It becomes 65504: larger numbers count as
# infinite. Seen for 70000: TensorFlow 2.21.0 answers true, the file of ai-edge-litert 2.3.0 false, without a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    ai-edge-litert==2.3.0 numpy==2.4.6 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter


class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1], tf.float32)])
    def is_finite(self, values):
        return {"finite": tf.abs(values) <= tf.constant([np.finfo(np.float32).max])}


model = Model()
tf.saved_model.save(model, "model", signatures={"serving_default": model.is_finite})


def answer(options):
    converter = tf.lite.TFLiteConverter.from_saved_model("model")
    converter.optimizations = options
    converter.target_spec.supported_types = [tf.float16] if options else []
    runner = Interpreter(model_content=converter.convert()).get_signature_runner()
    return bool(runner(values=np.array([70000], np.float32))["finite"][0])


plain, half = answer([]), answer([tf.lite.Optimize.DEFAULT])
print("70000 is finite. float32:", plain, " float16:", half)
assert plain
assert not half, "The converter now keeps constants that float16 doesn't have"
PYTHON
