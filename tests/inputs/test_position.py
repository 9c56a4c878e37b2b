"""A run that goes on finds its place in the input, or says that it does not."""

from __future__ import annotations

import types

import numpy as np

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from tests.checkpoints import checkpoint_values
from tests.tiny import random_batches


def make_estimator(source, model_dir, shown=None, **kwargs):
    model_fn = etl.make_model_fn(
        etl.backbone(source.handle),
        etl.heads.classifier(n_classes=3, dropout=0.2),
        etl.tuning.full(),
        backbone_dropout=False,
        show_plan=(shown.append if shown is not None else lambda text: None),
        **kwargs,
    )
    return estimator.Estimator(model_fn, str(model_dir), estimator.RunConfig(tf_random_seed=3), params={})


def shuffled():
    """An input_fn of somebody else, in an order of its own."""
    return random_batches(8)().unbatch().shuffle(16, seed=1).batch(4)


def same(first, second):
    left, right = (checkpoint_values(tf.train.latest_checkpoint(str(path))) for path in (first, second))
    return all(np.allclose(left[name], right[name], rtol=1e-5, atol=1e-7) for name in left)


def test_own_input_goes_on_where_it_was(keras_h5, pictures, tmp_path):
    shown = []
    spec = etl.backbone(keras_h5.handle).image_spec
    input_fn = etl.inputs.image_folder(str(pictures)).input_fn(spec, 7, training=True)
    make_estimator(keras_h5, tmp_path / "whole", shown).train(input_fn, max_steps=6)
    parts = make_estimator(keras_h5, tmp_path / "parts", shown)
    parts.train(input_fn, max_steps=2)
    parts.train(input_fn, max_steps=6)
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert len(shown) == 3
    assert not any("resume:" in text for text in shown)


def test_a_foreign_input_says_that_it_begins_anew(keras_h5, tmp_path):
    shown = []
    make_estimator(keras_h5, tmp_path / "whole").train(shuffled, max_steps=5)
    parts = make_estimator(keras_h5, tmp_path / "parts", shown)
    parts.train(shuffled, max_steps=2)
    parts.train(shuffled, max_steps=5)
    assert not same(tmp_path / "whole", tmp_path / "parts")
    for text in shown:
        assert "this input_fn does not save its position" in text.splitlines()[-1]


def test_the_hook_keeps_the_place_of_a_foreign_input(keras_h5, tmp_path):
    shown = []
    make_estimator(keras_h5, tmp_path / "whole").train(shuffled, max_steps=5)
    for stop in (2, 5):
        parts = make_estimator(keras_h5, tmp_path / "parts", shown)
        parts.train(shuffled, max_steps=stop, hooks=[etl.inputs.checkpoint_hook(parts)])
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert not any("resume:" in text for text in shown)


def test_dropout_of_the_backbone_is_said_to_draw_anew(keras_h5, hub_module, tmp_path):
    shown = []
    for name, source, dropout in (("on", keras_h5, True), ("off", keras_h5, False), ("none", hub_module, None)):
        model_fn = etl.make_model_fn(
            etl.backbone(source.handle),
            etl.heads.classifier(n_classes=3),
            etl.tuning.full(),
            backbone_dropout=dropout,
            show_plan=shown.append,
        )
        estimator.Estimator(model_fn, str(tmp_path / name), params={}).train(random_batches(8), steps=1)
    assert ["is random again" in text for text in shown] == [True, False, False]


def test_the_place_counts_the_batches_of_all_replicas(keras_h5, pictures, tmp_path):
    """At step 2, two replicas have had four batches; two pipelines then share what follows."""
    spec = etl.backbone(keras_h5.handle).image_spec
    make_estimator(keras_h5, tmp_path).train(random_batches(8), steps=2)
    input_fn = etl.inputs.image_folder(str(pictures)).input_fn(spec, 2, training=True)
    config = types.SimpleNamespace(model_dir=str(tmp_path))

    def batches(count, **context):
        context = context and tf.distribute.InputContext(**context)
        dataset = input_fn(config=config if context else None, input_context=context or None)
        return [features["image"] for features, _ in dataset.take(count).as_numpy_iterator()]

    whole = batches(8)
    one = batches(4, num_input_pipelines=1, input_pipeline_id=0, num_replicas_in_sync=2)
    np.testing.assert_array_equal(one, whole[4:])
    for number in (0, 1):
        shared = batches(2, num_input_pipelines=2, input_pipeline_id=number, num_replicas_in_sync=2)
        np.testing.assert_array_equal(shared, whole[4 + number :: 2])
