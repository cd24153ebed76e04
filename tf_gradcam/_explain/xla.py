"""A traced function compiled by XLA, once for each shape, with TensorFlow's checks. Explainers call it."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_gradcam._model import declared_specs, is_built

_MOST_OF_SCORE = 0.02  # as a share of the largest score
# The mean over the pixels: on a GPU, TF32 alone moves single pixels of a gradient at the image by 0.2.
_MOST_OF_HEATMAP = 0.05


class XlaFunction:
    """A function of tensors, compiled by XLA once for each shape of its arguments.

    XLA leaves out every check of a graph. So the first call with a shape runs the function without XLA as
    well. This raises the errors that shapes and a kind of target can have, shows whether an error is XLA's,
    and whether both give the same answer.

    Attributes:
        structured_outputs: the symbolic outputs, as a `ConcreteFunction` has them.
    """

    def __init__(
        self, plain: Callable[..., Any], signature: Sequence[tf.TensorSpec], inputs: int, subject: str
    ):
        """Compile a function.

        Args:
            plain: the function of a trace.
            signature: its arguments.
            inputs: how many of them, from the first, are inputs of the model.
            subject: what it explains, for errors.
        """
        self.structured_outputs: Any = plain.structured_outputs  # type: ignore[attr-defined]
        self._plain = plain
        self._subject = subject
        function = tf.function(lambda *tensors: plain(*tensors), autograph=False, jit_compile=True)
        self._compiled = function.get_concrete_function(*signature)
        # For an index out of range, such as a token of an embedding, XLA takes the nearest row.
        dtypes = [spec.dtype for spec in signature[:inputs]]
        self._indices = [i for i, dtype in enumerate(dtypes) if dtype in (tf.int32, tf.int64)]
        self._known: dict = {}  # Compiled shapes -> ranges of the indices that have been checked.

    def __call__(self, *tensors) -> Any:
        """Return the outputs for these tensors.

        Raises:
            ValueError: if XLA can't compile the function.
            tf.errors.OpError: as the function without XLA does.
        """
        if not tf.executing_eagerly():  # A caller's graph, which has no values yet.
            return self._compiled(*tensors)
        shapes = tuple([tuple(tensor.shape) for tensor in tensors])
        known, ranges = self._known.get(shapes), self._ranges(tensors)
        if known is not None and all(map(_is_within, ranges, known)):
            return self._compiled(*tensors)
        expected = self._plain(*tensors)
        try:
            found = self._compiled(*tensors)
        except tf.errors.ResourceExhaustedError:
            raise
        except tf.errors.OpError as error:
            raise self._refusal(str(error)) from error
        self._warn_if_different(expected, found)
        self._known[shapes] = ranges if known is None else list(map(_joined, ranges, known))
        return found

    def _ranges(self, tensors) -> list[tuple[int, int]]:
        """Return the smallest and the largest of each input of indices."""
        return [(np.min(tensors[i]), np.max(tensors[i])) for i in self._indices]

    def _refusal(self, error) -> ValueError:
        operations = sorted(set(re.findall(r"No registered '(\w+)'", error)))
        if operations:
            reason = f"operations that XLA can't compile: {', '.join(operations)}"
        elif "compile-time constant" in error:
            reason = "a shape that depends on the values of the images, which XLA can't compile"
        else:
            reason = f"an error of XLA, {error.partition(chr(10))[0]:.200}"
        return ValueError(
            f"`jit_compile` must be False for {self._subject}. Received: jit_compile=True, and {reason}."
        )

    def _warn_if_different(self, expected, found) -> None:
        """Warn if XLA's scores or heatmaps are not TensorFlow's, unless random numbers are drawn."""
        of_score = _largest_difference(expected.score, found.score)
        has_heatmap = getattr(expected, "heatmap", None) is not None and _same(expected.target, found.target)
        of_heatmap = _mean_difference(expected.heatmap, found.heatmap) if has_heatmap else 0.0
        if (of_score <= _MOST_OF_SCORE and of_heatmap <= _MOST_OF_HEATMAP) or self._is_inexact():
            return
        warnings.warn(
            f"XLA computes {self._subject} otherwise than TensorFlow does: the score differs by "
            f"{of_score:.0%} of the largest, the heatmap by {of_heatmap:.2f} in the mean. Leave jit_compile "
            "out, or find the layer that XLA computes otherwise, such as a resizing by an odd factor.",
            stacklevel=2,
        )

    def _is_inexact(self) -> bool:
        """Return whether the function draws random numbers, XLA's being others, or computes in 16 bits."""
        graph = self._compiled.graph.as_graph_def()
        functions = [function.node_def for function in graph.library.function]
        nodes = [node for each in [graph.node, *functions] for node in each]
        short = tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum
        return any("Random" in node.op or node.attr["T"].type in short for node in nodes)


def check_jit_compile(jit_compile: Any, model: keras.Model, preprocess: Callable | None) -> bool:
    """Return `jit_compile`; raise an error if it is no `bool`, or asks for what XLA can't check."""
    if not isinstance(jit_compile, bool):
        raise TypeError(f"`jit_compile` must be True or False. Received: jit_compile={jit_compile!r:.80}")
    specs = keras.tree.flatten(declared_specs(model)) if is_built(model) else []
    if jit_compile and preprocess is not None and any(spec and spec.dtype.is_integer for spec in specs):
        raise ValueError(
            "`jit_compile` must be False for a `preprocess` before a model that takes whole numbers: XLA "
            f"can't check that they are in range. Received: jit_compile=True, and model {model.name!r}. Give "
            "it what it takes, without a `preprocess`."
        )
    return jit_compile


def _is_within(inner, outer) -> bool:
    return bool(outer[0] <= inner[0] and inner[1] <= outer[1])


def _joined(first, second) -> tuple[int, int]:
    return min(first[0], second[0]), max(first[1], second[1])


def _same(first, second) -> bool:
    return first is None or bool(np.array_equal(first, second))


def _largest_difference(expected, found) -> float:
    """Return the largest difference of finite scores, as a share of the largest."""
    expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    finite = np.isfinite(expected) & np.isfinite(found)
    differences, sizes = np.abs(expected - found)[finite], np.abs(expected)[finite]
    return float(differences.max(initial=0) / sizes.max(initial=1e-3))


def _mean_difference(expected, found) -> float:
    """Return the mean difference of heatmaps where they are finite."""
    differences = np.abs(np.asarray(expected, np.float64) - np.asarray(found, np.float64))
    finite = np.isfinite(differences)
    return float(differences[finite].mean()) if finite.any() else 0.0
