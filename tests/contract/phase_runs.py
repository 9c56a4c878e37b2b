"""Runs through phases, step by step."""

from __future__ import annotations

import numpy as np

from estimator_tl.compat import estimator
from tests.checkpoints import checkpoint_values
from tests.tiny import random_batches

RATE = 0.01


HEAD = frozenset({"head/logits/kernel", "head/logits/bias"})


def one_batch(source):
    return lambda: random_batches(source.size)().take(1).repeat()


def train(model_fn, source, model_dir, *stops, **config):
    """Trains to each of the steps in turn, with a checkpoint of every step."""
    run_config = estimator.RunConfig(
        tf_random_seed=1, save_checkpoints_steps=1, keep_checkpoint_max=0, log_step_count_steps=1000, **config
    )
    for stop in stops:
        model = estimator.Estimator(model_fn, str(model_dir), run_config, params={})
        model.train(one_batch(source), max_steps=stop)
    return [checkpoint_values(model_dir / f"model.ckpt-{step}") for step in range(stops[-1] + 1)]


def moved_by_step(states, names):
    """For each step, the variables of `names` that it changed."""
    return [
        frozenset(name for name in names if not np.array_equal(before[name], after[name]))
        for before, after in zip(states, states[1:])
    ]


def three_phases(source):
    spec, top = next(iter(source.partial.items()))
    tuning = f"phases(phase(frozen, until=2), phase({spec}, until=4), full)"
    return tuning, [HEAD, HEAD, HEAD | top, HEAD | top, HEAD | source.trainable, HEAD | source.trainable]
