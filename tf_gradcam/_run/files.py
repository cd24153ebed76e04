"""Mark pictures as written by tf_gradcam, and replace no others: `pictures` writes every picture with it."""

import os
import struct
import zlib

from tf_gradcam._files import write_file

_WRITTEN_BY = b"tf_gradcam"
_PNG_HEADER = 33  # bytes: the signature and the first chunk
_PNG_TEXT = b"tEXtSoftware\x00" + _WRITTEN_BY


def write_picture(path: str | os.PathLike, encoded: bytes) -> None:
    """Write a PNG or JPEG file, as `write_file` does, with a comment that tf_gradcam wrote it."""
    write_file(path, _sign(encoded))


def _sign(encoded: bytes) -> bytes:
    """Return a PNG or JPEG file with a comment that names tf_gradcam."""
    if encoded.startswith(b"\x89PNG"):
        checksum = struct.pack(">I", zlib.crc32(_PNG_TEXT))
        chunk = struct.pack(">I", len(_PNG_TEXT) - 4) + _PNG_TEXT + checksum
        return encoded[:_PNG_HEADER] + chunk + encoded[_PNG_HEADER:]
    start = 2  # The comment comes after the JFIF segment, which must be the first.
    if encoded[2:4] == b"\xff\xe0":
        start += 2 + int.from_bytes(encoded[4:6], "big")
    comment = b"\xff\xfe" + struct.pack(">H", len(_WRITTEN_BY) + 2) + _WRITTEN_BY
    return encoded[:start] + comment + encoded[start:]


def is_own_picture(path: str | os.PathLike) -> bool:
    """Return whether a file is a picture that `write_picture` wrote."""
    if not os.path.isfile(path):  # Reading a pipe would wait for its writer.
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(128)
    except OSError:
        return False
    if head.startswith(b"\x89PNG"):
        return head[_PNG_HEADER + 4 :].startswith(_PNG_TEXT)
    return head.startswith(b"\xff\xd8") and b"\xff\xfe\x00\x0c" + _WRITTEN_BY in head


def may_write(path: str | os.PathLike) -> bool:
    """Return whether a picture may be written: there is no file, or one that `write_picture` wrote."""
    return not os.path.lexists(path) or is_own_picture(path)
