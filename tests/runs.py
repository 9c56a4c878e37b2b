"""Runs of the command line on tiny sources, for tests that look at their checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from tests.checkpoints import checkpoint_values

HEAD = frozenset({"head/logits/kernel", "head/logits/bias"})


def train(model_dir, source, pictures, steps, *flags, code=0):
    """Runs `train` with a checkpoint of every step; further flags win."""
    common = {
        "backbone": source.handle,
        "train_data": pictures,
        "model_dir": model_dir,
        "train_steps": steps,
        "batch_size": 7,
        "save_checkpoints_steps": 1,
        "keep_checkpoint_max": 0,
        "learning_rate": 0.01,
        "validation_fraction": 0,
    }
    assert main(["train", *(f"--{name}={value}" for name, value in common.items()), *flags]) == code


def save_checkpoint(model_dir, step, relative=True):
    """Saves a checkpoint of a step alone into a folder, as an Estimator does; returns its prefix."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            "global_step": tf.Variable(np.int64(step)),
            "kernel": tf.Variable(np.arange(50, dtype=np.float32) + step),
            "words": tf.Variable(["some text"] * 20),
        }
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables, sharded=True, save_relative_paths=relative)
        state = tf.train.get_checkpoint_state(str(model_dir))
        saver.recover_last_checkpoints(state.all_model_checkpoint_paths if state else [])
        return str(saver.save(session, str(Path(model_dir, "model.ckpt")), global_step=step))


def states(model_dir, last):
    """The values of each step's checkpoint, from step 0."""
    return [checkpoint_values(Path(model_dir, f"model.ckpt-{step}")) for step in range(last + 1)]


def moved(before, after, names):
    """Those of `names` that differ between two checkpoints."""
    return frozenset(name for name in names if not np.array_equal(before[name], after[name]))


def files(folder):
    """All files below a folder, with their content's hash."""
    return {str(p.relative_to(folder)): hash(p.read_bytes()) for p in Path(folder).rglob("*") if p.is_file()}


def written(folder, prefix="norms/"):
    """The scalars of a folder's event files whose tags begin so: {(tag, step): value}."""
    return {
        (value.tag, event.step): value.simple_value
        for path in sorted(Path(folder).glob("events*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag.startswith(prefix)
    }
