"""In the graph: encoded photographs to pixels, heatmaps to PNG files, for a server that has no Python."""

import numpy as np
import tensorflow as tf

from tf_gradcam._images import MAX_PIXELS, colorize

LONGEST_SIDE = 1024  # of an overlay: more than a screen shows would only keep the server busy
_ALPHA = 0.4  # the colours' weight, as `overlay` has it
_HEADER = 30  # bytes that tell the size of all but a JPEG
_EXIF_WITHIN = 2**16  # bytes: it is a JPEG's first segment or the second, and the orientation at its start
_MOST_TAGS = 64
_ORIENTATION = 0x112


def decode_photograph(data: tf.Tensor, channels: int) -> tf.Tensor:
    """Return the pixels of a JPEG, PNG, GIF, BMP or WebP file, `(H, W, channels)` uint8.

    Of a GIF that moves it is the first frame. A BMP has 24 or 32 bits: TensorFlow takes a palette's numbers
    for grey. A WebP stands still.

    As `load_image`, upright by the orientation that a JPEG tells. That of other files is not looked at.

    Args:
        data: the file, a scalar string.
        channels: 1 or 3.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, unless it is one of these, whole, and of at most
            `MAX_PIXELS`, which is known before anything is decoded.
    """
    is_gif = _starts(data, b"GIF8")
    height, width, data = tf.cond(is_gif, lambda: _first_frame(data), lambda: (*_announced_size(data), data))
    rule = (
        "`image_bytes` must be JPEG, PNG, GIF, WebP or BMP files (of 24 or 32 bits), each of at most "
        f"{MAX_PIXELS:,} pixels. Received one of height and width:"
    )
    pixels = height * width
    check = tf.debugging.Assert((pixels > 0) & (pixels <= MAX_PIXELS), [rule, height, width])
    with tf.control_dependencies([check]):
        # Some formats know no grey.
        decoded = tf.io.decode_image(tf.identity(data), channels=3, expand_animations=False)
    decoded.set_shape([None, None, 3])
    is_jpeg = _starts(data, b"\xff\xd8\xff")
    upright = _turned(decoded, tf.cond(is_jpeg, lambda: _orientation(data), lambda: 1))
    return upright if channels == 3 else tf.image.rgb_to_grayscale(upright)


def _announced_size(data) -> tuple[tf.Tensor, tf.Tensor]:
    """Return height and width as the header tells them, int64; 0 where it is none that can be read."""
    padded = tf.strings.join([tf.strings.substr(data, 0, _HEADER), tf.constant(b"\0" * _HEADER)])
    header = tf.cast(tf.io.decode_raw(padded, tf.uint8, fixed_length=_HEADER), tf.int64)

    def number(*positions):
        return sum(header[position] * 256**power for power, position in enumerate(positions))

    def starts(magic, at=0):
        return _starts(padded, magic, at)

    none = tf.zeros([], tf.int64)
    kinds = [
        (starts(b"\x89PNG\r\n\x1a\n"), lambda: (number(23, 22, 21, 20), number(19, 18, 17, 16))),
        (
            starts(b"BM") & tf.reduce_any(number(28, 29) == tf.constant([24, 32], tf.int64)),
            lambda: (_magnitude(number(22, 23, 24, 25)), number(18, 19, 20, 21)),
        ),
        (starts(b"WEBPVP8X", 8), lambda: (number(27, 28, 29) + 1, number(24, 25, 26) + 1)),
        (starts(b"WEBPVP8 ", 8), lambda: (number(28, 29) % 2**14, number(26, 27) % 2**14)),
        (
            starts(b"WEBPVP8L", 8),
            lambda: (number(21, 22, 23, 24) // 2**14 % 2**14 + 1, number(21, 22) % 2**14 + 1),
        ),
        (starts(b"\xff\xd8\xff"), lambda: tuple(tf.unstack(tf.io.extract_jpeg_shape(data, tf.int64)[:2]))),
    ]
    return tf.case(kinds, default=lambda: (none, none))


def _starts(data, magic, at=0):
    return tf.strings.substr(data, at, len(magic)) == magic


def _first_frame(data) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return height and width of a GIF, int64, and the file without what follows its first frame.

    TensorFlow decodes every frame, however many, and each in the size that it has by itself.

    Source: CompuServe, "Graphics Interchange Format", version 89a, sections 18 to 24.
    """
    stored = tf.concat([tf.io.decode_raw(data, tf.uint8), tf.zeros(16, tf.uint8)], axis=0)
    last = tf.size(stored) - 1

    def byte(place):
        return tf.cast(stored[tf.minimum(place, last)], tf.int32)

    def table(flags):
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def after_blocks(place):
        (end,) = tf.while_loop(lambda at: byte(at) > 0, lambda at: [at + 1 + byte(at)], [place])
        return end + 1

    start = 13 + table(byte(10))
    # Extensions: an introducer, a label, and blocks.
    (frame,) = tf.while_loop(lambda at: byte(at) == 0x21, lambda at: [after_blocks(at + 2)], [start])
    end = after_blocks(frame + 11 + table(byte(frame + 9)))
    # Of the screen and the frame, the larger.
    sides = [
        tf.maximum(byte(own) + 256 * byte(own + 1), byte(screen) + 256 * byte(screen + 1))
        for own, screen in ((frame + 7, 8), (frame + 5, 6))
    ]
    height, width = (tf.cast(side, tf.int64) for side in sides)
    return height, width, tf.strings.join([tf.strings.substr(data, 0, end), tf.constant(b";")])


def _magnitude(number):
    """Return the size of a number of 32 bits with a sign: a BMP that is upside down has a negative height."""
    return tf.minimum(number, 2**32 - number)


def _orientation(data) -> tf.Tensor:
    """Return the orientation that the EXIF of a JPEG tells, 1 to 8; 1 where it tells none.

    Source: JEITA CP-3451, "Exchangeable image file format", 4.6: TIFF's header and first directory, in either
    order of bytes, after `"Exif\\0\\0"`.
    """
    start = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, _EXIF_WITHIN), tf.uint8), tf.int32)
    mark = list(b"Exif\0\0")
    # What a file refers to may lie beyond it: there it is 0.
    stored = tf.concat([start, tf.zeros(16, tf.int32)], axis=0)
    last = tf.size(stored) - 1
    windows = tf.stack([stored[place : last - 8 + place] for place in range(len(mark))], axis=1)
    found = tf.reduce_all(windows == mark, axis=1)
    tiff = tf.argmax(tf.cast(found, tf.int32), output_type=tf.int32) + len(mark)

    def number(place, length):
        places = tf.clip_by_value(tf.expand_dims(place, -1) + tf.range(length), 0, last)
        parts = tf.gather(stored, places)
        parts = tf.where(little_endian, parts, tf.reverse(parts, [-1]))
        return tf.reduce_sum(parts * 256 ** tf.range(length), axis=-1)

    little_endian = stored[tf.minimum(tiff, last)] == ord("I")
    directory = tiff + number(tiff + 4, 4)
    tags = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), _MOST_TAGS))
    told = tf.boolean_mask(number(tags + 8, 2), number(tags, 2) == _ORIENTATION)
    orientation = tf.concat([told, [1]], axis=0)[0]
    return tf.where(tf.reduce_any(found) & (orientation >= 1) & (orientation <= 8), orientation, 1)


def _turned(pixels, orientation):
    """Return pixels upright: the orientations from 5 on lie on their side."""

    def is_one_of(*several):
        return tf.reduce_any(orientation == tf.constant(several))

    pixels = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    pixels = tf.cond(is_one_of(2, 3, 6, 7), lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.cond(is_one_of(3, 4, 7, 8), lambda: tf.reverse(pixels, [0]), lambda: pixels)


def resize(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Squash or stretch to `(height, width)` as `image.resize` does: `(H, W, C)` uint8 in and out."""
    # Two steps, because a banner may shrink along one axis and grow along the other.
    shrunk = tf.image.resize(pixels, tf.minimum(tf.shape(pixels)[:2], size), "area")
    return tf.cast(tf.round(tf.image.resize(shrunk, size)), tf.uint8)


def shrink(pixels: tf.Tensor) -> tf.Tensor:
    """Return pixels of at most `LONGEST_SIDE`, in their proportions."""
    size = tf.shape(pixels)[:2]
    factor = tf.minimum(1.0, LONGEST_SIDE / tf.cast(tf.reduce_max(size), tf.float32))
    return resize(pixels, tf.maximum(1, tf.cast(tf.round(factor * tf.cast(size, tf.float32)), tf.int32)))


def heatmap_png(heatmap: tf.Tensor) -> tf.Tensor:
    """Return a grey PNG file of a heatmap `(H, W)` in `[0, 1]`: 255 where it is 1."""
    return tf.io.encode_png(_levels(heatmap)[..., None], compression=1)


def overlay_png(pixels: tf.Tensor, heatmap: tf.Tensor) -> tf.Tensor:
    """Return a PNG file of a photograph `(H, W, C)` uint8 under its heatmap `(h, w)`, as from `overlay`."""
    fitted = tf.image.resize(heatmap[..., None], tf.shape(pixels)[:2])[..., 0]
    palette = colorize(np.arange(256)[None] / 255)[0].astype(np.float32)
    colors = tf.gather(palette, tf.cast(_levels(fitted), tf.int32))
    mixed = _ALPHA * colors + (1 - _ALPHA) * tf.cast(pixels, tf.float32)
    return tf.io.encode_png(tf.cast(tf.round(mixed), tf.uint8), compression=1)


def _levels(heatmap):
    return tf.cast(tf.round(255 * tf.clip_by_value(heatmap, 0, 1)), tf.uint8)
