"""Functions that are traced once and called by any graph."""

from __future__ import annotations

from estimator_tl.compat import tf
from estimator_tl.tf_internals.graphs.functions import traced


def test_a_traced_function_has_no_device_of_its_first_graph():
    """On parameter servers that graph places everything on its task, which an evaluation in the same process lacks."""
    with tf.Graph().as_default() as graph, graph.device(lambda op: "/job:chief/task:0"):
        function = traced(lambda value: tf.cast(value, tf.float32) / 2, tf.TensorSpec([], tf.int32))
    nodes = function.graph.as_graph_def().node
    assert {node.op for node in nodes} >= {"Cast", "RealDiv"}
    assert [node.name for node in nodes if "job" in node.device] == []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        assert session.run(function(tf.constant(3))) == 1.5
