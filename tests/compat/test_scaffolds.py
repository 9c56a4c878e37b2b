"""How pretrained values reach the session: read once a run, in place of random ones and not after them."""

from __future__ import annotations

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from tests.checkpoints import checkpoint_values
from tests.tiny import SIZE, random_batches


def model_fn_of(source, monkeypatch):
    """The model_fn of a source, and a list that gets an entry whenever the source's values are read."""
    backbone = etl.backbone(source.handle)
    reads = []
    values = type(backbone).values
    monkeypatch.setattr(type(backbone), "values", lambda self: reads.append(1) or values(self))
    return etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), etl.tuning.full()), reads


@pytest.mark.parametrize("source", ["keras_h5", "tf1_module", "v1_checkpoint"], indirect=True)
def test_values_are_read_once_a_run(source, tmp_path, monkeypatch):
    model_fn, reads = model_fn_of(source, monkeypatch)
    trained = estimator.Estimator(model_fn, str(tmp_path), params={})
    trained.train(random_batches(SIZE), steps=1)
    for _ in range(2):
        trained.evaluate(random_batches(SIZE), steps=1)
    trained.train(random_batches(SIZE), steps=1)
    assert reads == [1]
    before = checkpoint_values(tmp_path / "model.ckpt-0")
    for name, value in source.values.items():
        np.testing.assert_array_equal(before[name], value)


def test_values_are_read_once_for_all_replicas(keras_h5, tmp_path, monkeypatch):
    model_fn, reads = model_fn_of(keras_h5, monkeypatch)
    config = estimator.RunConfig(
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )
    estimator.Estimator(model_fn, str(tmp_path), config, params={}).train(random_batches(SIZE), steps=1)
    assert reads == [1]


@pytest.mark.parametrize("source", ["keras_h5", "v1_checkpoint"], indirect=True)
def test_random_values_are_not_drawn_to_be_thrown_away(source):
    model_fn = etl.make_model_fn(etl.backbone(source.handle), etl.heads.classifier(n_classes=3))
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.get_or_create_global_step()
        features, labels = tf.compat.v1.data.make_one_shot_iterator(random_batches(SIZE)()).get_next()
        spec = model_fn(features, labels, estimator.ModeKeys.TRAIN)
        spec.scaffold.finalize()
        needed, stack = set(), [spec.scaffold.init_op]
        while stack:
            op = stack.pop()
            if op not in needed:
                needed.add(op)
                stack += [*op.control_inputs, *(tensor.op for tensor in op.inputs)]
        initialized = {v.op.name for v in tf.compat.v1.global_variables() if v.initializer in needed}
        assert {"head/logits/kernel", "head/logits/bias", "global_step"} <= initialized
        assert not initialized & set(source.values)
        assert graph is tf.compat.v1.get_default_graph()
