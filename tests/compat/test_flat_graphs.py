"""Graphs with the functions that they call written out."""

from __future__ import annotations

import numpy as np
import pytest

from estimator_tl.compat import tf
from estimator_tl.tf_internals.graphs.flat import CONDITIONS, FlatGraph, node_of


def graph_def(build):
    """The GraphDef of what `build` makes of a placeholder, and the name of its result."""
    with tf.Graph().as_default() as graph:
        result = build(tf.compat.v1.placeholder(tf.float32, [2], name="x"))
        return graph.as_graph_def(), result.name


def run(flat, result, value):
    part = flat.subgraph(flat.ancestors([result]))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (fetched,) = tf.import_graph_def(part, {}, [flat.tensor(result)], name="")
        return session.run(fetched, {"x:0": np.asarray(value, np.float32)})


@tf.function
def halved(x):
    return tf.split(x, 2)[1] / 2.0, x


@tf.function
def nested(x):
    half, same = halved(x + 1.0)
    return half, halved(same * 10.0)


def called_by_name(x):
    """As graphs from before PartitionedCall name what they call."""
    from tensorflow.python.framework import function

    @function.Defun(tf.float32)
    def by_name(y):
        return y * 3.0, y - 1.0

    return by_name(x)[1] * 2.0


def looped(x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 2.0), (0, x))[1]


@pytest.mark.parametrize(
    ("build", "value", "expected"),
    [
        (lambda x: nested(x)[0], [1, 2], [1.5]),
        (lambda x: nested(x)[1][0], [1, 2], [15]),
        (lambda x: nested(x)[1][1], [1, 2], [20, 30]),
        (lambda x: halved(x)[1], [1, 2], [1, 2]),
        (called_by_name, [1, 2], [0, 2]),
        (looped, [1, 2], [8, 16]),
    ],
)
def test_a_flat_graph_computes_the_same(build, value, expected):
    definition, result = graph_def(build)
    flat = FlatGraph(definition)
    operations = {node.op for node in flat.nodes.values()}
    assert not any("PartitionedCall" in operation or "by_name" in operation for operation in operations)
    np.testing.assert_array_equal(run(flat, result, value), expected)


def test_conditions_are_written_out_and_settled():
    definition, result = graph_def(
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: tf.cond(x[0] > 1, lambda: x / 2, lambda: x / 4), lambda: -x)
    )
    flat = FlatGraph(definition)
    assert run(flat, result, [2, 0])[0] == 1
    (outer,) = (n for n in flat.ancestors([result]) if n in flat.nodes and flat.nodes[n].op in CONDITIONS)
    inside = {flat.nodes[name].op for name in flat.ancestors([result], inside=True)}
    assert {"RealDiv", "Neg"} <= inside
    flat.settle(outer, 1)
    (inner,) = (n for n in flat.ancestors([result]) if n in flat.nodes and flat.nodes[n].op in CONDITIONS)
    flat.settle(inner, 0)
    np.testing.assert_array_equal(run(flat, result, [8, -9]), [2, -2.25])


def test_the_graph_of_one_function():
    definition, _ = graph_def(lambda x: nested(x)[0])
    name = next(f.signature.name for f in definition.library.function if "nested" in f.signature.name)
    flat, arguments, results = FlatGraph.of_function(definition, name)
    assert [flat.inputs(node_of(argument)) for argument in arguments] == [[]]
    assert [node_of(argument) in flat.ancestors([result]) for argument in arguments for result in results] == [True] * 3
