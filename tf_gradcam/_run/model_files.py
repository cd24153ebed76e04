"""Load a model from a file that nobody has to trust. The command line and workers of a cluster call it."""

import os
from typing import TYPE_CHECKING

from tf_gradcam._checks import one_line

if TYPE_CHECKING:
    import keras

SAFE_KERAS = (3, 12)  # the first version whose safe mode is one


def load_model_file(path: str) -> "keras.Model":
    """Return the model in a `.keras` or `.h5` file, in Keras's safe mode: the file can't run code of its own.

    Args:
        path: the file.

    Raises:
        ImportError: if Keras is older.
        FileNotFoundError: if there is no such file.
        ValueError: if Keras refuses the file.
    """
    import keras

    version = tuple(map(int, keras.version().split(".")[:2]))
    if version < SAFE_KERAS:
        raise ImportError(
            f"`model` needs Keras 3.12 or newer where it is a file, {path}, as older ones let a file run any "
            f"code (CVE-2025-1550, CVE-2025-9905). Received: Keras {keras.version()}. Upgrade it, or name a "
            "model."
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`model` must be a name or a file. Received: {path}, which doesn't exist.")
    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # Keras raises errors of many types for a file that it did not write.
        reason = ". ".join(one_line(error).split(". ")[:2])
        raise ValueError(
            "`model` must be a Keras model with no code of its own. "
            f"Received: {path}, which Keras refuses: {reason}. "
            "If you trust it, load it in Python, and explain it with tf_gradcam.GradCAM."
        ) from error
