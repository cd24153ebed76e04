"""Whether the processor or GPU computes in half precision. `GradCAM.freeze` asks before it freezes.

A processor without such instructions imitates them in more time than float32 takes, without an error.
"""

import functools
import time

import tensorflow as tf

PRECISIONS = {"bfloat16": tf.bfloat16, "float16": tf.float16}
_GPU_CAPABILITY = {"bfloat16": (8, 0), "float16": (7, 0)}  # Of NVIDIA: Ampere, and Volta with tensor cores.
_FASTER = 0.75  # With instructions a convolution takes 0.2 to 0.6 of the time in float32; imitated, 1 to 2.6.
_RUNS = 40


def check_precision(precision: str | None) -> None:
    """Raise an error unless `precision` is `None` or known, and this machine has instructions for it."""
    if precision is None:
        return
    if not isinstance(precision, str):
        raise TypeError(f"`precision` must be a name or None. Received: precision={precision!r}")
    if precision not in PRECISIONS:
        names = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"`precision` must be None or one of {names}. Received: precision={precision!r}")
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and tf.config.list_logical_devices("GPU"):
        _check_gpu(precision, tf.config.experimental.get_device_details(gpus[0]))
    elif not is_faster_on_cpu(precision):
        raise ValueError(
            f"`precision` must be one that this processor has instructions for. Received: {precision!r}, in "
            "which a convolution takes as long as in float32, or longer. Use freeze() without it."
        )


def _check_gpu(precision, details) -> None:
    """Raise a `ValueError` unless the GPU has units for this precision."""
    least = _GPU_CAPABILITY[precision]
    capability = details.get("compute_capability")
    if capability is None or capability < least:
        found = "an unknown one" if capability is None else ".".join(map(str, capability))
        raise ValueError(
            f"`precision` must be one that the GPU has units for: {precision!r} needs the compute capability "
            f"{least[0]}.{least[1]}. Received: {found}. Use freeze() without it."
        )


@functools.cache
def is_faster_on_cpu(precision: str) -> bool:
    """Return whether a convolution takes less time in this precision than in float32, measured once.

    TensorFlow does not say which instructions it uses: that depends on the processor, on the build and on the
    variables of oneDNN. The shortest of several runs hardly depends on what else the machine does.
    """
    with tf.init_scope(), tf.device("CPU"):
        images, kernel = tf.ones([1, 28, 28, 64]), tf.ones([3, 3, 64, 128])
        half = [tf.cast(each, PRECISIONS[precision]) for each in (images, kernel)]
        try:
            times = [(_seconds(images, kernel), _seconds(*half)) for _ in range(_RUNS)]
        except tf.errors.OpError:  # TensorFlow has no such operation here.
            return False
    return min(each[1] for each in times) < _FASTER * min(each[0] for each in times)


def _seconds(images, kernel) -> float:
    """Return the time of a convolution, of the processor if its clock is fine enough."""
    is_fine = time.get_clock_info("process_time").resolution < 1e-5
    clock = time.process_time if is_fine else time.perf_counter
    start = clock()
    tf.nn.conv2d(images, kernel, 1, "SAME").numpy()
    return clock() - start
