"""Files of photographs, decoded to the values that they hold, and pixels made of values.

It never imports TensorFlow. `formats` and `_images` call it.
"""

from tf_gradcam._files.decode import StoredImage
from tf_gradcam._files.lock import lock_folder
from tf_gradcam._files.pixels import (
    OwnRange,
    PictureOptions,
    fix_limits,
    make_pixels,
    take_bands,
    to_pixels,
)
from tf_gradcam._files.read import MAX_PIXELS, header_size, read_file, read_stored
from tf_gradcam._files.row_files import JOURNAL, MANIFEST_KEY, find_parts
from tf_gradcam._files.write import unfinished, write_file

__all__ = [
    "JOURNAL",
    "MANIFEST_KEY",
    "MAX_PIXELS",
    "OwnRange",
    "PictureOptions",
    "StoredImage",
    "find_parts",
    "fix_limits",
    "header_size",
    "lock_folder",
    "make_pixels",
    "read_file",
    "read_stored",
    "take_bands",
    "to_pixels",
    "unfinished",
    "write_file",
]
