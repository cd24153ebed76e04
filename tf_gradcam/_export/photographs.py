"""In the graph: encoded photographs to pixels, and heatmaps to PNG files. `signatures` calls it.

It repeats `load_image` and `overlay` in TensorFlow operations, since a server has no Python.
"""

import numpy as np
import tensorflow as tf

from tf_gradcam._files import MAX_PIXELS
from tf_gradcam._images import ALPHA, colorize

LONGEST_SIDE = 1024  # pixels of an overlay: about what a screen shows; more would only cost time
_HEADER_BYTES = 30  # hold the size in every format but JPEG
# The EXIF is the first or second segment of a JPEG, with the orientation near its start.
_EXIF_SEARCH_BYTES = 2**16
_MAX_EXIF_TAGS = 64
_ORIENTATION_TAG = 0x112


@tf.function(autograph=False)  # Its graph is large: it is traced once, and then called.
def decode_photograph(data: tf.Tensor, channels: int) -> tf.Tensor:
    """Return the pixels of a JPEG, PNG, GIF, BMP or WebP file, `(H, W, channels)` uint8.

    A JPEG is turned upright by its EXIF orientation, as `load_image` does; the orientation in other files is
    ignored. Of an animated GIF, the first frame is returned. A WebP must not be animated. A BMP must have 24
    or 32 bits per pixel: of one with a palette, TensorFlow would take the palette's indices for grey levels.
    A PNG of 16 bits keeps the upper eight, as in `load_image`; see `fit_to_model` for what the model gets.

    Args:
        data: the file, a scalar string.
        channels: 1 or 3.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, unless the file is one of these, complete, and of
            at most `MAX_PIXELS`. The size is checked before anything is decoded.
    """
    is_gif = _starts(data, b"GIF8")
    height, width, data = tf.cond(is_gif, lambda: _first_frame(data), lambda: (*_declared_size(data), data))
    rule = (
        "`image_bytes` must be JPEG, PNG, GIF, WebP or BMP files (of 24 or 32 bits), each of at most "
        f"{MAX_PIXELS:,} pixels. Received one of height and width:"
    )
    pixels = height * width
    check = tf.debugging.Assert((pixels > 0) & (pixels <= MAX_PIXELS), [rule, height, width])
    is_jpeg = _starts(data, b"\xff\xd8\xff")
    with tf.control_dependencies([check]):
        checked = tf.identity(data)
    # As RGB: not every decoder returns grey. OpenCV and Pillow decode a JPEG by this method; TensorFlow's own
    # default is a faster one, which is up to 18 levels off.
    decoded = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_jpeg(checked, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(checked, channels=3, expand_animations=False),
    )
    decoded.set_shape([None, None, 3])
    upright = _rotate_upright(decoded, tf.cond(is_jpeg, lambda: _exif_orientation(data), lambda: 1))
    return upright if channels == 3 else tf.image.rgb_to_grayscale(upright)


def _declared_size(data) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the height and width in the header of a file, int64; 0 if the format is unknown."""
    padded = tf.strings.join([tf.strings.substr(data, 0, _HEADER_BYTES), tf.constant(b"\0" * _HEADER_BYTES)])
    header = tf.cast(tf.io.decode_raw(padded, tf.uint8, fixed_length=_HEADER_BYTES), tf.int64)

    def number(*positions):
        return sum(header[position] * 256**power for power, position in enumerate(positions))

    def starts(magic, at=0):
        return _starts(padded, magic, at)

    zero = tf.zeros([], tf.int64)
    heights_and_widths = [
        (starts(b"\x89PNG\r\n\x1a\n"), lambda: (number(23, 22, 21, 20), number(19, 18, 17, 16))),
        (
            starts(b"BM") & tf.reduce_any(number(28, 29) == tf.constant([24, 32], tf.int64)),
            lambda: (_absolute_int32(number(22, 23, 24, 25)), number(18, 19, 20, 21)),
        ),
        (starts(b"WEBPVP8X", 8), lambda: (number(27, 28, 29) + 1, number(24, 25, 26) + 1)),
        (starts(b"WEBPVP8 ", 8), lambda: (number(28, 29) % 2**14, number(26, 27) % 2**14)),
        (
            starts(b"WEBPVP8L", 8),
            lambda: (number(21, 22, 23, 24) // 2**14 % 2**14 + 1, number(21, 22) % 2**14 + 1),
        ),
        (starts(b"\xff\xd8\xff"), lambda: tuple(tf.unstack(tf.io.extract_jpeg_shape(data, tf.int64)[:2]))),
    ]
    return tf.case(heights_and_widths, default=lambda: (zero, zero))


def _starts(data, magic, at=0):
    return tf.strings.substr(data, at, len(magic)) == magic


def _absolute_int32(number):
    """Return the absolute value of a signed number of 32 bits that was read without its sign.

    A BMP that is stored upside down has a negative height.
    """
    return tf.minimum(number, 2**32 - number)


def _first_frame(data) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return height and width of a GIF, int64, and the file without what follows its first frame.

    TensorFlow decodes every frame, however many there are, and each in the size that it declares itself.

    Source: CompuServe, "Graphics Interchange Format", version 89a, sections 18 to 24.
    """
    stored = tf.concat([tf.io.decode_raw(data, tf.uint8), tf.zeros(16, tf.uint8)], axis=0)
    last = tf.size(stored) - 1

    def byte(position):
        return tf.cast(stored[tf.minimum(position, last)], tf.int32)

    def color_table_bytes(flags):
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def skip_blocks(start):
        """Return the position after a series of blocks, each behind its length, the last of length 0."""
        (end,) = tf.while_loop(lambda at: byte(at) > 0, lambda at: [at + 1 + byte(at)], [start])
        return end + 1

    after_header = 13 + color_table_bytes(byte(10))
    # An extension begins with 0x21 and a label.
    (frame,) = tf.while_loop(lambda at: byte(at) == 0x21, lambda at: [skip_blocks(at + 2)], [after_header])
    end = skip_blocks(frame + 11 + color_table_bytes(byte(frame + 9)))
    # The larger of the frame's side and the screen's.
    sides = [
        tf.maximum(byte(own) + 256 * byte(own + 1), byte(screen) + 256 * byte(screen + 1))
        for own, screen in ((frame + 7, 8), (frame + 5, 6))
    ]
    height, width = (tf.cast(side, tf.int64) for side in sides)
    return height, width, tf.strings.join([tf.strings.substr(data, 0, end), tf.constant(b";")])


def _exif_orientation(data) -> tf.Tensor:
    """Return the orientation in the EXIF of a JPEG, 1 to 8; 1 if there is none.

    Source: JEITA CP-3451, "Exchangeable image file format", 4.6: a TIFF header and its first directory, in
    either byte order, after `"Exif\\0\\0"`.
    """
    searched = tf.io.decode_raw(tf.strings.substr(data, 0, _EXIF_SEARCH_BYTES), tf.uint8)
    marker = list(b"Exif\0\0")
    # A damaged file may refer to positions after its end: there is a 0.
    stored = tf.concat([tf.cast(searched, tf.int32), tf.zeros(16, tf.int32)], axis=0)
    last = tf.size(stored) - 1
    windows = tf.stack([stored[start : last - 8 + start] for start in range(len(marker))], axis=1)
    is_marker = tf.reduce_all(windows == marker, axis=1)
    tiff_start = tf.argmax(tf.cast(is_marker, tf.int32), output_type=tf.int32) + len(marker)
    is_little_endian = stored[tf.minimum(tiff_start, last)] == ord("I")

    def number(position, length):
        positions = tf.clip_by_value(tf.expand_dims(position, -1) + tf.range(length), 0, last)
        digits = tf.gather(stored, positions)
        digits = tf.where(is_little_endian, digits, tf.reverse(digits, [-1]))
        return tf.reduce_sum(digits * 256 ** tf.range(length), axis=-1)

    directory = tiff_start + number(tiff_start + 4, 4)
    tags = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), _MAX_EXIF_TAGS))
    orientations = tf.boolean_mask(number(tags + 8, 2), number(tags, 2) == _ORIENTATION_TAG)
    orientation = tf.concat([orientations, [1]], axis=0)[0]
    is_known = tf.reduce_any(is_marker) & (orientation >= 1) & (orientation <= 8)
    return tf.where(is_known, orientation, 1)


def _rotate_upright(pixels, orientation):
    """Return pixels upright: flipped, and from orientation 5 on also transposed."""

    def is_one_of(*several):
        return tf.reduce_any(orientation == tf.constant(several))

    pixels = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    pixels = tf.cond(is_one_of(2, 3, 6, 7), lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(is_one_of(3, 4, 7, 8), lambda: tf.reverse(pixels, [0]), lambda: pixels)


def fit_to_model(data: tf.Tensor, pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Return what a model gets of a photograph: float32 `(height, width, C)`.

    It is the pixels, in `[0, 255]`, resized. Of a PNG of 16 bits it is the values in the file, such as 0 to
    4095, resized and not rounded.

    Args:
        data: the file, a scalar string.
        pixels: what `decode_photograph` returns for it, which has also checked it.
        size: height and width.
    """

    def fit_values():
        with tf.control_dependencies([pixels]):
            checked = tf.identity(data)
        values = tf.cast(tf.io.decode_png(checked, channels=3, dtype=tf.uint16), tf.float32)
        if pixels.shape[-1] == 1:
            is_grey = tf.reduce_all(values == values[..., :1])  # Then the values stay exactly what they are.
            weighted = tf.tensordot(values, [[0.299], [0.587], [0.114]], 1)
            values = tf.where(is_grey, values[..., :1], weighted)
        return _resize(values, size)

    header = tf.strings.join([tf.strings.substr(data, 0, _HEADER_BYTES), tf.constant(b"\0" * _HEADER_BYTES)])
    is_png_of_16_bits = _starts(header, b"\x89PNG\r\n\x1a\n") & _starts(header, b"\x10", 24)
    return tf.cond(is_png_of_16_bits, fit_values, lambda: tf.cast(resize(pixels, size), tf.float32))


def resize(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resize `(H, W, C)` uint8 to `(height, width)` as `load_image` does, whatever the proportions."""
    return tf.cast(tf.round(_resize(pixels, size)), tf.uint8)


def _resize(values, size) -> tf.Tensor:
    # In two steps, since one axis may shrink while the other grows.
    shrunk = tf.image.resize(values, tf.minimum(tf.shape(values)[:2], size), "area")
    return tf.image.resize(shrunk, size)


def shrink(pixels: tf.Tensor) -> tf.Tensor:
    """Shrink `(H, W, C)` uint8 to a longer side of at most `LONGEST_SIDE`, with the same proportions."""
    size = tf.shape(pixels)[:2]
    factor = tf.minimum(1.0, LONGEST_SIDE / tf.cast(tf.reduce_max(size), tf.float32))
    return resize(pixels, tf.maximum(1, tf.cast(tf.round(factor * tf.cast(size, tf.float32)), tf.int32)))


def heatmap_png(heatmap: tf.Tensor) -> tf.Tensor:
    """Return a grey PNG file of a heatmap `(H, W)` in `[0, 1]`: 255 where it is 1."""
    return tf.io.encode_png(_grey_levels(heatmap)[..., None], compression=1)


def overlay_png(pixels: tf.Tensor, heatmap: tf.Tensor) -> tf.Tensor:
    """Return a PNG file of a photograph `(H, W, C)` uint8 with its heatmap `(h, w)`, as from `overlay`."""
    fitted = _enlarge(heatmap, tf.shape(pixels)[:2])
    palette = colorize(np.arange(256)[None] / 255)[0].astype(np.float32)
    colors = tf.gather(palette, tf.cast(_grey_levels(fitted), tf.int32))
    base = tf.cast(pixels, tf.float32)
    mixed = base + ALPHA * fitted[..., None] * (colors - base)
    return tf.io.encode_png(tf.cast(tf.round(mixed), tf.uint8), compression=1)


def _enlarge(heatmap, size):
    """Resize a heatmap `(h, w)` smoothly, as `tf_gradcam._images.enlarge` does; see there."""
    values = tf.image.resize(heatmap[..., None], tf.minimum(tf.shape(heatmap), size), "area")[..., 0]
    down, across = (_hermite(tf.shape(values)[axis], size[axis]) for axis in (0, 1))
    across_slopes = tf.transpose(_slopes(tf.transpose(values)))
    rows = down[0] @ values + down[1] @ _slopes(values)
    grown = tf.matmul(rows, across[0], transpose_b=True)
    grown += tf.matmul(down[0] @ across_slopes, across[1], transpose_b=True)
    return tf.clip_by_value(grown, tf.reduce_min(values), tf.reduce_max(values))


def _slopes(values):
    """Return the slope along the first axis at each cell: the harmonic mean of those on both sides, or 0."""
    steps = values[1:] - values[:-1]
    product, total = steps[:-1] * steps[1:], steps[:-1] + steps[1:]
    means = tf.where(product > 0, tf.math.divide_no_nan(2 * product, total), tf.zeros_like(product))
    return tf.pad(means, [[1, 1], [0, 0]])[: tf.shape(values)[0]]


def _hermite(count, length):
    """Return the weights `(length, count)` of the values, and those of the slopes, for each pixel."""
    cells = tf.cast(count, tf.float32)
    place = (tf.range(tf.cast(length, tf.float32)) + 0.5) * cells / tf.cast(length, tf.float32) - 0.5
    place = tf.clip_by_value(place, 0.0, cells - 1)
    low = tf.floor(place)
    share = (place - low)[:, None]
    first = tf.one_hot(tf.cast(low, tf.int32), count)
    second = tf.one_hot(tf.minimum(tf.cast(low, tf.int32) + 1, count - 1), count)
    rising = share**2 * (3 - 2 * share)
    of_slopes = share * (1 - share) ** 2 * first + share**2 * (share - 1) * second
    return (1 - rising) * first + rising * second, of_slopes


def _grey_levels(heatmap):
    return tf.cast(tf.round(255 * tf.clip_by_value(heatmap, 0, 1)), tf.uint8)
