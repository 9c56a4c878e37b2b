"""A TPU that is described and not there: graphs for it can be built, and all but its own ops can run."""

from __future__ import annotations

from collections import Counter

import numpy as np

from estimator_tl.compat import tf
from estimator_tl.revival.api import load_v1_estimator

CORES = 8


def describe(monkeypatch, cores=CORES):
    """Has TensorFlow believe in a TPU on this machine."""
    from tensorflow.python.tpu import tpu_system_metadata

    kind = tpu_system_metadata.TPUSystemMetadata
    monkeypatch.setattr(
        tpu_system_metadata, "_query_tpu_system_metadata", lambda *_, **__: kind(cores, 1, cores, None, [])
    )


def estimator_for(model_fn, model_dir, batch_size=4 * CORES):
    """A TPUEstimator for the described TPU."""
    api = load_v1_estimator().tpu
    settings = api.TPUConfig(iterations_per_loop=10, per_host_input_for_training=api.InputPipelineConfig.PER_HOST_V2)
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver("local")
    config = api.RunConfig(model_dir=str(model_dir), cluster=resolver, tpu_config=settings)
    made = api.TPUEstimator(model_fn, config=config, params={}, use_tpu=True, train_batch_size=batch_size,
                            eval_batch_size=batch_size)  # fmt: skip
    made._rendezvous.update(dict.fromkeys(("train", "eval")))
    return made


def build(made, input_fn, mode="train"):
    """The spec of a mode, in the current graph."""
    tf.compat.v1.train.get_or_create_global_step()
    return made._call_model_fn(made._call_input_fn(input_fn, mode), None, mode, made.config)


def ops_inside(graph):
    """How many ops of each type there are in the graph's functions, the TPU's loop among them."""
    return Counter(node.op for function in graph.as_graph_def().library.function for node in function.node_def)


def session():
    """A session that looks at no op but those that it runs, as those of TPUs have no kernels here."""
    options = tf.compat.v1.GraphOptions(place_pruned_graph=True)
    return tf.compat.v1.Session(config=tf.compat.v1.ConfigProto(graph_options=options))


def batches(size, depth=3):
    """An input_fn of TPUEstimator with random pictures, always the same."""

    def input_fn(params):
        rng = np.random.RandomState(0)
        pictures = rng.rand(64, size, size, 3).astype(np.float32)
        data = tf.data.Dataset.from_tensor_slices(({"image": pictures}, rng.randint(0, depth, 64)))
        return data.repeat().batch(params["batch_size"], drop_remainder=True)

    return input_fn
