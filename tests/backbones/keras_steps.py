"""Single steps of Keras sources, for tests that look at what they moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator
from tests.checkpoints import checkpoint_values
from tests.tiny import random_batches


def in_full(*names):
    return [pytest.param(name, marks=pytest.mark.full) for name in names]


def one_step(backbone, tuning, model_dir, batch_norm="inference", **config):
    """Trains one step; returns the values before it and the backbone's variables that moved."""
    model_fn = etl.make_model_fn(
        backbone,
        etl.heads.classifier(n_classes=3),
        etl.tuning.registry.make(tuning),
        etl.optimizers.sgd(0.1),
        batch_norm=batch_norm,
        show_plan=lambda text: None,
    )
    spec = backbone.image_spec
    batches = random_batches(spec.height)

    def grey_or_rgb():
        return batches().map(lambda x, y: ({"image": x["image"][..., : spec.channels]}, y))

    run_config = estimator.RunConfig(tf_random_seed=1, **config)
    estimator.Estimator(model_fn, str(model_dir), run_config, params={}).train(grey_or_rgb, steps=1)
    first, last = (checkpoint_values(Path(model_dir) / f"model.ckpt-{step}") for step in (0, 1))
    names = [variable.name for variable in backbone.structure.variables]
    return {name: first[name] for name in names}, {n for n in names if not np.array_equal(first[n], last[n])}


def assert_same(values, expected):
    assert set(values) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)
