"""Read a PyTorch checkpoint with NumPy alone: `read_checkpoint`. `efficientnet_lite0` calls it.

The format is the one from before PyTorch 1.6: five pickles, then the raw bytes of every storage.
"""

import collections
import io
import pickle
import struct
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of every such file
_Storage = collections.namedtuple("_Storage", "key dtype size")
_Tensor = collections.namedtuple("_Tensor", "storage offset shape strides")
# What a pickle may name, and what stands for it here.
_ALLOWED_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
    # The last two arguments, requires_grad and hooks, have no meaning outside PyTorch.
    ("torch._utils", "_rebuild_tensor_v2"): lambda *args: _Tensor(*args[:4]),
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows four harmless names and refuses all others."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED_NAMES:
            raise ValueError(
                "A checkpoint may name only "
                f"{', '.join(map('.'.join, _ALLOWED_NAMES))}. Received: {module}.{name}. "
                "Do not trust this file."
            )
        return _ALLOWED_NAMES[module, name]

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) == 6 and pid[0] == "storage"):
            raise ValueError(f"A checkpoint may refer only to storages. Received: {pid!r}.")
        _, dtype, key, _, size, _ = pid
        return _Storage(key, dtype, size)


def read_checkpoint(data: bytes) -> dict[str, np.ndarray]:
    """Read the tensors of a checkpoint.

    Args:
        data: the content of the file.

    Returns:
        Read-only arrays, float32 or int64, by the names of the tensors.

    Raises:
        ValueError: if the file is damaged, or holds anything but tensors.
    """
    try:
        return _parse_checkpoint(io.BytesIO(data))
    except (EOFError, pickle.UnpicklingError, struct.error) as error:
        raise ValueError(
            "The checkpoint must be a complete file in PyTorch's format from before 1.6. "
            f"Received: {len(data)} bytes, truncated or damaged: {error}."
        ) from error


def _parse_checkpoint(file) -> dict[str, np.ndarray]:
    magic, version, system, tensors, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, version, system["little_endian"]) != (MAGIC, 1001, True):
        raise pickle.UnpicklingError("its first three pickles are not PyTorch's")
    declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if sorted(keys) != sorted(declared):
        raise pickle.UnpicklingError("its list of storages does not match its tensors")
    buffers = {key: _read_storage(file, declared[key]) for key in keys}
    if file.read(1):
        raise pickle.UnpicklingError("bytes follow its last storage")
    return {name: _as_array(tensor, buffers[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storage(file, storage) -> bytes:
    (size,) = struct.unpack("<q", file.read(8))
    expected = storage.size * np.dtype(storage.dtype).itemsize
    data = file.read(expected)
    if size != storage.size:
        raise pickle.UnpicklingError(f"storage {storage.key} has size {size}, not {storage.size}")
    if len(data) != expected:
        raise EOFError(f"storage {storage.key} has {len(data)} of its {expected} bytes")
    return data


def _as_array(tensor, buffer) -> np.ndarray:
    dtype = np.dtype(tensor.storage.dtype)
    offset, *strides = (dtype.itemsize * step for step in (tensor.offset, *tensor.strides))
    try:
        return np.ndarray(tensor.shape, dtype, buffer, offset, strides)
    except ValueError as error:  # NumPy checks that no stride leads out of the buffer.
        raise pickle.UnpicklingError(f"{tensor} reaches beyond its storage") from error
