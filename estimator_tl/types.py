"""Names for TensorFlow's objects in annotations. TensorFlow has no types of its own for checkers, so each is Any."""

from __future__ import annotations

from typing import Any

#: A symbolic or eager `tf.Tensor`, or an op where a train op or update is meant.
Tensor = Any
#: A `tf.Variable` of any kind, those of strategies among them.
Variable = Any
#: A `tf.data.Dataset`.
Dataset = Any
#: A `tf.compat.v1.Session`.
Session = Any
#: A Keras 2 layer.
Layer = Any
#: A Keras 2 model.
KerasModel = Any
#: A `tf.distribute.Strategy`.
Strategy = Any
#: A `tf.estimator.Estimator`.
Estimator = Any
#: A `tf.estimator.RunConfig`.
RunConfig = Any
#: What a SessionRunHook gets before and after a step.
RunContext = Any
#: What a SessionRunHook asked for, after a step.
RunValues = Any
#: A graph as a protocol buffer.
GraphDef = Any
#: A graph with its signatures and collections, as SavedModels hold it.
MetaGraphDef = Any
#: A `tf.estimator.EstimatorSpec`, or a TPUEstimatorSpec.
EstimatorSpec = Any
