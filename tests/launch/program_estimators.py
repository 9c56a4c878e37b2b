"""Estimators of programs."""

from __future__ import annotations

import estimator_tl as etl
from estimator_tl.compat import estimator
from tests.tiny import random_batches


def model_fn_of(source, tuning="frozen"):
    backbone = etl.backbone(source.handle)
    policy = etl.tuning.registry.make(tuning)
    return etl.make_model_fn(backbone, etl.heads.classifier(n_classes=3), policy, show_plan=lambda text: None)


def once():
    return random_batches(8)().take(2)


def made(source, model_dir, max_steps, exporters=(), **config):
    config = etl.run_config(str(model_dir), tf_random_seed=1, keep_checkpoint_max=0, **config)
    return (
        estimator.Estimator(model_fn_of(source), config=config, params={}),
        estimator.TrainSpec(random_batches(8), max_steps=max_steps),
        estimator.EvalSpec(once, steps=None, exporters=list(exporters)),
    )
