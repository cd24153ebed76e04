"""TensorFlow's `TensorProto`, of a gRPC response, as arrays. `serving.answers` calls it."""

import math
from typing import Any

import numpy as np

from tf_gradcam.serving._arrays import MOST_VALUES, object_array

# By the number in `TensorProto.dtype`: NumPy's dtype, the field of the values, and the dtype in which this
# field stores their bits.
_STRING, _BFLOAT16 = 7, 14
_DTYPES = {
    1: ("float32", "float_val", "float32"),
    2: ("float64", "double_val", "float64"),
    3: ("int32", "int_val", "int32"),
    4: ("uint8", "int_val", "uint8"),
    5: ("int16", "int_val", "int16"),
    6: ("int8", "int_val", "int8"),
    8: ("complex64", "scomplex_val", "float32"),
    9: ("int64", "int64_val", "int64"),
    10: ("bool", "bool_val", "bool"),
    _BFLOAT16: ("uint16", "half_val", "uint16"),  # NumPy has no bfloat16
    17: ("uint16", "int_val", "uint16"),
    18: ("complex128", "dcomplex_val", "float64"),
    19: ("float16", "half_val", "uint16"),
    22: ("uint32", "uint32_val", "uint32"),
    23: ("uint64", "uint64_val", "uint64"),
}


def array_from_proto(name: str, tensor: Any) -> np.ndarray:
    """Return an output as an array: of numbers in its own dtype (bfloat16 as float32), or of `bytes`.

    Args:
        name: the name of the output, for errors.
        tensor: a `TensorProto`, of any compiled stubs: only its fields are read.

    Raises:
        ValueError: if its values do not fill its shape, or it has a dtype that is not known here.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    count = math.prod(shape)
    try:
        if tensor.tensor_shape.unknown_rank:
            raise ValueError("its shape is not known")
        if tensor.dtype == _STRING:
            values = _strings(tensor, count)
        else:
            values = _numbers(tensor)
            if len(values) == 1 < count <= MOST_VALUES:  # a single value is repeated, without taking memory
                return np.broadcast_to(values, shape)
        if len(values) != count:
            raise ValueError(f"it has {len(values)} values, which do not fill the shape {shape}")
        return values.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"Output {name!r} of `response` can't be read: {error}") from error


def _numbers(tensor) -> np.ndarray:
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"its dtype number, {tensor.dtype}, is not one of {sorted([_STRING, *_DTYPES])}")
    dtype, field, stored_dtype = _DTYPES[tensor.dtype]
    # From a list, because from a proto's field NumPy takes values that overflow the dtype.
    content = tensor.tensor_content or np.array(list(getattr(tensor, field)), dtype=stored_dtype).tobytes()
    values = np.frombuffer(content, dtype)
    if tensor.dtype == _BFLOAT16:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _strings(tensor, count) -> np.ndarray:
    if not tensor.tensor_content:
        return object_array(tensor.string_val, (len(tensor.string_val),))
    # With --enable_serialization_as_tensor_content: the lengths of all strings, then all strings.
    content, start, lengths = tensor.tensor_content, 0, []
    for _ in range(count):
        length, start = _read_varint(content, start)
        lengths.append(length)
    strings = []
    for length in lengths:
        strings.append(content[start : start + length])
        start += length
    if start != len(content):
        raise ValueError(f"its strings need {start} bytes, and it has {len(content)}")
    return object_array(strings, (len(strings),))


def _read_varint(content, start) -> tuple[int, int]:
    """Return a number stored in groups of seven bits, the lowest first, and the position after it."""
    number = 0
    for position, byte in enumerate(content[start : start + 5]):
        number |= (byte & 127) << 7 * position
        if byte < 128:
            return number, start + position + 1
    raise ValueError("the lengths of its strings are missing")
