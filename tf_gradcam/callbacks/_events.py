"""TensorBoard's event file, written while a model trains: `EventFile`. The callback calls it."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_gradcam._optional import require


class EventFile:
    """Pictures and scalars for TensorBoard, in a folder.

    Args:
        folder: the folder, also of a remote file system that TensorFlow knows.

    Raises:
        ImportError: if TensorBoard is not installed, of which `tf.summary` needs a module.
        TypeError, ValueError: if `folder` is no path.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        require("tensorboard.summary.v2", "tensorboard", extra="tensorboard")
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"`log_dir` must be the path of a folder. Received: log_dir={folder!r:.80}")
        if not os.fspath(folder):
            raise ValueError("`log_dir` must be the path of a folder. Received: log_dir=''")
        self.folder = os.fspath(folder)
        self._writer: Any = None

    def __reduce__(self) -> Any:
        """Return how to make a copy: without what is open."""
        return EventFile, (self.folder,)

    def open(self) -> None:
        """Begin a new file in the folder.

        Raises:
            ValueError: if that is impossible.
        """
        self.close()
        try:
            self._writer = tf.summary.create_file_writer(self.folder)
        except tf.errors.OpError as error:
            reason = (error.message.partition("}} ")[2] or error.message).partition(" [Op:")[0]
            raise ValueError(
                "`log_dir` must be a folder that can be written to, or made. "
                f"Received: log_dir={self.folder!r}, of which TensorFlow says: {reason:.200}"
            ) from error

    def write(self, step: int, pictures: Mapping[str, np.ndarray], scalars: Mapping[str, float]) -> None:
        """Write pictures and scalars by their tags, and flush, so that they can be looked at now.

        Args:
            step: the epoch or batch.
            pictures: arrays `(H, W, 3)`, uint8 RGB.
            scalars: numbers.
        """
        if self._writer is None:
            self.open()
        # `record_if`, because that of Keras's own TensorBoard callback is open for all of the training: with
        # its `update_freq=100` it drops what is written at any other step.
        with self._writer.as_default(), tf.summary.record_if(True):
            for tag, picture in pictures.items():
                tf.summary.image(tag, picture[None], step=step, max_outputs=1)
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value, step=step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file. The next `write` begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
