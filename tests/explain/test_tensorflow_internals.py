"""A canary for each private name of TensorFlow: where one fails, a new version has changed it."""

import numpy as np
import tensorflow as tf

from tf_gradcam._explain.tensorflow_internals import call_flat, optimized_graph, variables_to_constants


def test_variables_become_constants_and_the_inputs_come_in_their_order():
    factor, shift = tf.Variable([2.0, 3.0]), tf.Variable(10.0)
    inner = tf.function(lambda x: factor * x, autograph=False)
    concrete = tf.function(lambda x, y: (inner(x) + shift, y), autograph=False).get_concrete_function(
        tf.TensorSpec([2]), tf.TensorSpec([])
    )
    folded = variables_to_constants(concrete, inline=False)
    assert folded.captured_inputs == []
    factor.assign([0.0, 0.0])
    found = call_flat(folded, [tf.constant([1.0, 2.0]), tf.constant(5.0)])
    np.testing.assert_array_equal(found[0], [12, 16])
    assert found[1].numpy() == 5
    again = tf.function(lambda x: folded(x, tf.constant(1.0))[0], autograph=False)
    inlined = variables_to_constants(again.get_concrete_function(tf.TensorSpec([2])), inline=True)
    kinds = {operation.type for operation in inlined.graph.get_operations()}
    assert not kinds & {"PartitionedCall", "StatefulPartitionedCall", "ReadVariableOp"}


def test_constants_are_computed_and_what_nothing_needs_is_left_out():
    def answer(x):
        tf.tanh(x)
        return x * tf.reduce_sum(tf.constant([2.0, 3.0]) + 1.0), tf.cond(x > 0, lambda: x, lambda: -x)

    concrete = tf.function(answer, autograph=False).get_concrete_function(tf.TensorSpec([]))
    found = optimized_graph(concrete)
    kinds = [node.op for node in found.node]
    assert "Sum" not in kinds
    assert "Tanh" not in kinds
    assert "Mul" in kinds
    assert found.library == concrete.graph.as_graph_def().library
    assert {tensor.op.name for tensor in [*concrete.inputs, *concrete.outputs]} <= {
        node.name for node in found.node
    }
