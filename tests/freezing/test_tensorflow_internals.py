"""A canary for each private name of TensorFlow: where one fails, a new version has changed it."""

import numpy as np
import tensorflow as tf

from tf_gradcam._freezing.tensorflow_internals import (
    call_flat,
    cleaned_graph,
    fused_graph,
    has_onednn,
    inlined_graph,
    is_known,
    is_stateful,
    may_record,
    simplified_graph,
    variables_to_constants,
)


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


def graph_of(function, *specs):
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    return inlined_graph(concrete)


def test_functions_are_inlined_and_loops_are_not():
    inner = tf.function(lambda x: tf.exp(x), autograph=False)
    graph = graph_of(lambda x: tf.while_loop(lambda y: y < 3.0, inner, [inner(x)]), tf.TensorSpec([]))
    kinds = [node.op for node in graph.node]
    assert "Exp" in kinds
    assert "StatelessWhile" in kinds
    assert not any("PartitionedCall" in kind for kind in kinds)


def test_grappler_simplifies_without_fusing_and_fuses_what_looks_constant():
    kernel = tf.ones([1, 1, 3, 2])

    def convolution(x):
        return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), tf.ones(2) + 1))

    graph = graph_of(convolution, tf.TensorSpec([1, 4, 4, 3], name="x"))
    for node in graph.node:
        node.device = "/job:localhost/replica:0/task:0/device:CPU:0"
    simple = simplified_graph(graph, ["x", "Identity"])
    kinds = {node.op for node in simple.node}
    assert {"Conv2D", "BiasAdd", "Relu"} <= kinds
    assert "AddV2" not in kinds
    fused = [node for node in fused_graph(simple, ["x", "Identity"]).node if node.op == "_FusedConv2D"]
    assert [list(node.attr["fused_ops"].list.s) for node in fused] == [[b"BiasAdd", b"Relu"]]


def test_operations_say_whether_they_are_known_and_have_a_state():
    assert is_known("Conv2D")
    assert not is_known("__inference_call_1")
    assert is_stateful("RandomUniform")
    assert is_stateful("Assert")
    assert not is_stateful("Conv2D")


def test_an_open_tape_is_known():
    assert not may_record()
    with tf.GradientTape() as tape:
        assert may_record()
        with tape.stop_recording():
            assert not may_record()
    assert not may_record()


def test_onednn_has_the_operations_that_keep_a_filter():
    assert isinstance(has_onednn(), bool)
    if has_onednn():
        names = ("Conv2D", "FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
        assert all(is_known(f"_MklNative{name}") for name in names)


def test_a_graph_is_cleaned_of_what_nothing_needs_and_its_constants_are_computed():
    def answer(x):
        tf.tanh(x)
        return x * tf.reduce_sum(tf.constant([2.0, 3.0]) + 1.0), tf.cond(x > 0, lambda: x, lambda: -x)

    concrete = tf.function(answer, autograph=False).get_concrete_function(tf.TensorSpec([]))
    definition = concrete.graph.as_graph_def()
    kept = [tensor.op.name for tensor in [*concrete.inputs, *concrete.outputs]]
    found = cleaned_graph(definition, kept)
    kinds = [node.op for node in found.node]
    assert "Sum" not in kinds
    assert "Tanh" not in kinds
    assert "Mul" in kinds
    assert found.library == definition.library
    assert set(kept) <= {node.name for node in found.node}
