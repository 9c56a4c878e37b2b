"""Every kind of source, under every kind of policy, under every way to train here: exactly what moves, step by step.

A representative part runs in `make test`, the whole in `make test-full`.
"""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.revival.api import load_v1_estimator
from tests.checkpoints import checkpoint_values
from tests.contract.cells import SOURCES, STEPS, tuning_and_moves
from tests.runs import HEAD, moved
from tests.tiny import random_batches

POLICIES = ("frozen", "partial", "full", "phases", "gradual")
STRATEGIES = ("none", "mirrored", "tpu_estimator")
IN_MAKE_TEST = {  # the cells that other tests of this folder do not run anyway
    ("keras_h5", "frozen", "mirrored"),
    ("hub_module", "phases", "tpu_estimator"),
    ("keras_zip", "partial", "tpu_estimator"),
    ("hub_module", "gradual", "mirrored"),
    ("text_module", "phases", "none"),
    ("text_module", "full", "mirrored"),
    ("v1_checkpoint", "phases", "mirrored"),
    ("v1_checkpoint", "partial", "tpu_estimator"),
    ("tf1_module", "phases", "none"),
    ("tf1_references", "full", "mirrored"),
}


def train(source, tuning, strategy, model_dir):
    model_fn = etl.make_model_fn(
        etl.backbone(source.handle),
        etl.heads.classifier(n_classes=3),
        etl.tuning.registry.make(tuning),
        show_plan=lambda text: None,
    )
    every_step = {"save_checkpoints_steps": 1, "keep_checkpoint_max": 0, "tf_random_seed": 1}
    if strategy == "tpu_estimator":
        tpu = load_v1_estimator().tpu
        config = tpu.RunConfig(model_dir=str(model_dir), **every_step)
        model = tpu.TPUEstimator(model_fn, config=config, use_tpu=False, train_batch_size=4)
        model.train(lambda params: random_batches(source.size)(), max_steps=STEPS)
        return
    distributed = {
        "train_distribute": tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        "session_config": tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    }
    config = estimator.RunConfig(**every_step, **(distributed if strategy == "mirrored" else {}))
    model = estimator.Estimator(model_fn, str(model_dir), config, params={})
    model.train(random_batches(source.size), max_steps=STEPS)


CELLS = [
    pytest.param(*cell, id="-".join(cell), marks=() if cell in IN_MAKE_TEST else pytest.mark.full)
    for cell in itertools.product(SOURCES, POLICIES, STRATEGIES)
    if cell[:2] not in (("text_module", "partial"), ("text_module", "gradual"))
]


@pytest.mark.parametrize(("name", "policy", "strategy"), CELLS)
def test_exactly_what_the_plan_says_moves(name, policy, strategy, request, tmp_path):
    source = request.getfixturevalue(name)
    tuning, expected = tuning_and_moves(source, policy)
    train(source, tuning, strategy, tmp_path)
    states = [checkpoint_values(tmp_path / f"model.ckpt-{step}") for step in range(STEPS + 1)]
    for variable, value in source.values.items():
        np.testing.assert_array_equal(states[0][variable], value, err_msg=f"step 0 of {variable}")
    steps = list(zip(states, states[1:]))
    assert [moved(*step, source.values) for step in steps] == expected
    assert [moved(*step, HEAD) for step in steps] == [HEAD] * STEPS
    shutil.rmtree(tmp_path)  # of a large source a gigabyte
