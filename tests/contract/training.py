"""A few steps of training, compared with the source."""

from __future__ import annotations

import numpy as np

import estimator_tl as etl
from estimator_tl.compat import estimator
from tests.checkpoints import checkpoint_values
from tests.tiny import random_batches


def make_estimator(source, tuning, model_dir, batch_norm="inference", **kwargs):
    model_fn = etl.make_model_fn(
        backbone=etl.backbone(source.handle),
        tuning=etl.tuning.registry.make(tuning),
        head=etl.heads.classifier(n_classes=3),
        optimizer=etl.optimizers.sgd(0.1),
        batch_norm=batch_norm,
        show_plan=lambda text: None,
        **kwargs,
    )
    config = estimator.RunConfig(tf_random_seed=1, save_checkpoints_steps=2, log_step_count_steps=1000)
    return estimator.Estimator(model_fn, str(model_dir), config, params={})


def train_and_compare(source, tuning, model_dir, **kwargs):
    """Trains two steps; returns (backbone variables that moved, head variables that moved)."""
    make_estimator(source, tuning, model_dir, **kwargs).train(random_batches(source.size), steps=2)
    first, last = checkpoint_values(model_dir / "model.ckpt-0"), checkpoint_values(model_dir / "model.ckpt-2")
    for name, value in source.values.items():
        np.testing.assert_array_equal(first[name], value, err_msg=f"step 0 of {name} is not the source")
    moved = {name for name in first if not np.array_equal(first[name], last[name])} - {"global_step"}
    return {n for n in moved if n in source.values}, {n for n in moved if n.startswith("head/")}


HEAD = {"head/logits/kernel", "head/logits/bias"}
