#!/usr/bin/env bash
# keras.callbacks.TensorBoard(update_freq=100) silences the summaries of everyone else: for all of the training it leaves
# `tf.summary.record_if(step % 100 == 0)` open, which holds for any writer. A callback that writes a picture with
# its own writer at the end of an epoch gets False back and no warning, and its file stays empty, except where the
# number of batches happens to be right. With update_freq="epoch" it is written.
# Seen with Keras 3.15.1, TensorFlow 2.21.0 and TensorBoard 2.21.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    keras==3.15.1 tensorboard==2.21.0 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import keras
import numpy as np
import tensorflow as tf


class Writing(keras.callbacks.Callback):
    """Writes a picture after each epoch, by a writer of its own."""

    def __init__(self, folder):
        super().__init__()
        self.writer, self.written = tf.summary.create_file_writer(folder), []

    def on_epoch_end(self, epoch, logs=None):
        with self.writer.as_default():
            written = tf.summary.image("picture", np.zeros((1, 4, 4, 3), "uint8"), step=epoch)
        self.written.append(bool(written))


def written(update_freq):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callbacks = [keras.callbacks.TensorBoard(f"{update_freq}", update_freq=update_freq), Writing(f"{update_freq}-own")]
    model.fit(np.zeros((8, 2)), np.zeros(8), batch_size=2, epochs=3, verbose=0, callbacks=callbacks)
    return callbacks[1].written


found = {update_freq: written(update_freq) for update_freq in ("epoch", 100)}
print(found)
assert found["epoch"] == [True, True, True]
assert found[100] == [False, False, False], "Others may write now"
PYTHON
