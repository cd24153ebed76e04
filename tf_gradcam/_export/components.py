"""The box of a heatmap in TensorFlow operations; `signatures` adds it to what is served.

It repeats `tf_gradcam.boxes` with `most=1`, since a server has no Python and no OpenCV.
"""

import tensorflow as tf

_JUMPS = 8  # In one step a label moves along a chain of up to 2**8 others.


def strongest_box(heatmap: tf.Tensor, threshold: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the box of the component with the highest share of each heatmap, and its mean.

    Args:
        heatmap: `(..., h, w)`.
        threshold: a pixel counts above this fraction of the heatmap's maximum.

    Returns:
        The corners `(x1, y1, x2, y2)`, `(..., 4)` int32, and the mean of the component, `(...)`; zeros where
        nothing counts, as in a heatmap of zeros or NaN.
    """
    shape = tf.shape(heatmap)
    count = tf.reduce_prod(shape[:-2])
    maps = tf.reshape(heatmap, [count, shape[-2], shape[-1]])
    maximum = tf.reduce_max(maps, axis=(1, 2), keepdims=True)
    above = maps > tf.cast(threshold, maps.dtype) * maximum
    labels, maps_of_labels = label_components(above)
    # In float64, so that the sums say which component is the strongest as NumPy's do.
    values, label_count = tf.cast(maps, tf.float64), tf.size(maps_of_labels)
    sums = tf.math.unsorted_segment_sum(values, tf.where(above, labels, -1), label_count)
    highest = tf.math.unsorted_segment_max(sums, maps_of_labels, count)
    is_highest = tf.equal(sums, tf.gather(highest, maps_of_labels))
    numbers = tf.where(is_highest, tf.range(label_count), label_count)
    best = tf.math.unsorted_segment_min(numbers, maps_of_labels, count)
    mask = above & tf.equal(labels, best[:, None, None])
    x1, x2 = _ends(tf.reduce_any(mask, axis=1))
    y1, y2 = _ends(tf.reduce_any(mask, axis=2))
    pixels = tf.reduce_sum(tf.cast(mask, tf.int32), axis=(1, 2))
    score = tf.math.divide_no_nan(tf.nn.relu(highest), tf.cast(pixels, tf.float64))
    corners = tf.reshape(tf.stack([x1, y1, x2, y2], axis=-1), tf.concat([shape[:-2], [4]], axis=0))
    return corners, tf.reshape(tf.cast(score, heatmap.dtype), shape[:-2])


def label_components(above: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Number the components of masks; pixels that touch at a side or at a corner are connected.

    A run is what of a row lies together. The runs of all masks are numbered in the order of reading, and a
    component has the number of its first run.

    Args:
        above: bool `(N, h, w)`.

    Returns:
        The numbers, `(N, h, w)` int32, and where no component is, the number of runs; and which of the masks
        each of the R runs is in, `(R,)` int32.
    """
    begins = above & ~tf.pad(above[..., :-1], [[0, 0], [0, 0], [1, 0]])
    run_masks = tf.cast(tf.where(begins)[:, 0], tf.int32)
    count = tf.size(run_masks)
    runs = tf.reshape(tf.cumsum(tf.reshape(tf.cast(begins, tf.int32), [-1])) - 1, tf.shape(above))

    def merge(labels, _):
        # All runs of one label together take the lowest label that touches one of them, and then the label
        # that its own runs take, and so on. So long and winding components need few steps.
        touching = tf.where(above, _lowest_around(labels, count), count)
        lowest = tf.math.unsorted_segment_min(touching, tf.where(above, labels, -1), count)
        lowest = tf.minimum(lowest, tf.range(count))  # A label without runs stays as it is.
        for _ in range(_JUMPS):
            lowest = tf.gather(lowest, lowest)
        merged = tf.gather(tf.concat([lowest, [count]], axis=0), labels)
        return merged, tf.reduce_any(merged != labels)

    return tf.while_loop(lambda _, is_new: is_new, merge, (tf.where(above, runs, count), count > 0))[
        0
    ], run_masks


def place_box(corners: tf.Tensor, size: tf.Tensor, new_size: tf.Tensor) -> tf.Tensor:
    """Return corners `(..., 4)` in a picture of another size, as `tf_gradcam.boxes` places them.

    Args:
        corners: int32, in pixels of a picture of `size`.
        size: its height and width, `(..., 2)`.
        new_size: those of the other picture, `(..., 2)`.
    """
    # In the order of the corners, and in 64 bits for the products.
    old, new = (tf.cast(tf.concat([each[..., ::-1]] * 2, axis=-1), tf.int64) for each in (size, new_size))
    return tf.cast(-((old - 2 * tf.cast(corners, tf.int64) * new) // (2 * old)), tf.int32)


def _lowest_around(labels, beyond) -> tf.Tensor:
    """Return the lowest of each pixel of `(N, h, w)` and the eight around it."""
    rows = tf.pad(labels, [[0, 0], [1, 1], [0, 0]], constant_values=beyond)
    lowest = tf.minimum(tf.minimum(rows[:, :-2], rows[:, 2:]), labels)
    columns = tf.pad(lowest, [[0, 0], [0, 0], [1, 1]], constant_values=beyond)
    return tf.minimum(tf.minimum(columns[..., :-2], columns[..., 2:]), lowest)


def _ends(is_inside) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first position inside, and the first beyond the last one inside, of rows `(N, length)`."""
    inside = tf.cast(is_inside, tf.int32)
    length = tf.reduce_max(inside, axis=1) * tf.shape(inside)[1]  # 0 where nothing is inside
    last = tf.argmax(inside[:, ::-1], axis=1, output_type=tf.int32)
    return tf.argmax(inside, axis=1, output_type=tf.int32), tf.maximum(length - last, 0)
