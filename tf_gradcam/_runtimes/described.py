"""A target as text: a file notes the one that it explains, and `loaded` compares the one that is asked for.

Both call `describe_target`, which never imports TensorFlow.
"""

import dataclasses
import hashlib
import re
from typing import Any

import numpy as np

from tf_gradcam._arrays import array_or_empty

_SHORT = 16  # numbers that are written in full
_CUT_SHORT = "..."  # what NumPy writes for most numbers of a large array
# In the text of a target: a number of NumPy or TensorFlow, and a class.
_NUMBER = re.compile(
    r"(?:np\.u?int\d+\(|array\(|<tf\.Tensor: shape=\(\), dtype=u?int\d+, numpy=)"
    r"(-?\d+)(?:, dtype=u?int\d+)?[)>]"
)
_CLASS = re.compile(r"Class\(index=(-?\d+|None)\)")


def describe_target(target: Any) -> str:
    """Return a text that is the same for equal targets, and another for others.

    Arrays, tensors and lists of numbers are told by shape, dtype and a SHA-256 of their values, few whole
    numbers in full. A function is told by its dotted name, which another may have: see `has_function`.
    """
    if hasattr(target, "__qualname__"):
        return f"{target.__module__}.{target.__qualname__}"
    if isinstance(target, list | tuple) and not hasattr(target, "_fields"):
        array = array_or_empty(target)
        return _describe_array(array) if array.size > _SHORT else _describe_parts(target)
    if isinstance(target, tuple | dict) or _is_record(target):
        return _describe_parts(target)
    if isinstance(target, np.generic | np.ndarray) or hasattr(target, "numpy"):
        return _describe_array(np.asarray(target))
    return repr(target)


def has_function(target: Any) -> bool:
    """Return whether a target is or holds a function, or an object that only says its address."""
    if isinstance(target, list | tuple | dict) or _is_record(target):
        return any(map(has_function, _parts(target).values()))
    if isinstance(target, np.generic | np.ndarray) or hasattr(target, "numpy"):
        return False
    return hasattr(target, "__qualname__") or " at 0x" in repr(target)


def is_described(own: str, target: Any, plain: Any) -> bool:
    """Return whether a text, as a file notes it, describes a target.

    Args:
        own: the text; older files have the target's `repr`.
        target: the target.
        plain: the same with plain numbers for its classes.
    """
    if has_function(target) or _CUT_SHORT in own:
        return False
    with_plain_classes = _CLASS.sub(r"\1", _NUMBER.sub(r"\1", own))
    return own in (describe_target(target), repr(target)) or with_plain_classes in (
        describe_target(plain),
        repr(plain),
    )


def _is_record(value) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _parts(value) -> dict[Any, Any]:
    """Return the parts of a sequence, a dict, a named tuple or an instance of a dataclass, by name."""
    if isinstance(value, dict):
        return value
    if _is_record(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
    return dict(zip(getattr(value, "_fields", range(len(value))), value, strict=True))


def _describe_parts(value) -> str:
    parts = {name: describe_target(part) for name, part in _parts(value).items()}
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {part}' for name, part in parts.items())}}}"
    if _is_record(value) or hasattr(value, "_fields"):
        return f"{type(value).__qualname__}({', '.join(f'{name}={part}' for name, part in parts.items())})"
    text = ", ".join(parts.values())
    return f"[{text}]" if isinstance(value, list) else f"({text}{',' * (len(parts) == 1)})"


def _describe_array(array) -> str:
    if array.ndim == 0 or (array.size <= _SHORT and array.dtype.kind in "iub"):
        return repr(array.tolist())
    if array.dtype.hasobject:
        return repr(array)
    checksum = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"array(shape={array.shape}, dtype={array.dtype}, sha256={checksum})"
