"""Known traps of checkpoints, exporters, hooks and clusters, each with the care that avoids it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.compat import estimator, tf
from estimator_tl.errors import UserError
from estimator_tl.export import BestExporter, image_receiver_fn
from tests.checkpoints import checkpoint_values
from tests.cluster import Cluster
from tests.runs import HEAD, moved, states, train
from tests.tiny import random_batches


def make_estimator(source, model_dir, tuning="frozen", config=None, **kwargs):
    model_fn = etl.make_model_fn(
        etl.backbone(source.handle),
        etl.heads.classifier(n_classes=3),
        etl.tuning.registry.make(tuning),
        show_plan=lambda text: None,
        **kwargs,
    )
    return estimator.Estimator(model_fn, str(model_dir), config, params={})


def mirrored():
    return estimator.RunConfig(
        tf_random_seed=1,
        train_distribute=tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]),
        session_config=tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True),
    )


@pytest.mark.parametrize("source", ["hub_module", "keras_h5"], indirect=True)
def test_pretrained_weights_reach_the_session_under_mirrored_too(source, tmp_path):
    make_estimator(source, tmp_path, "full", mirrored()).train(random_batches(8), steps=1)
    zero = checkpoint_values(tmp_path / "model.ckpt-0")
    for name, value in source.values.items():
        np.testing.assert_array_equal(zero[name], value, err_msg=name)


def test_a_checkpoint_of_objects_is_refused_as_a_warm_start(keras_h5, tmp_path):
    variables = {name.replace("/", "_"): tf.Variable(value) for name, value in keras_h5.values.items()}
    path = tf.train.Checkpoint(**variables).write(str(tmp_path / "objects"))
    with pytest.raises(UserError, match=r"written by tf\.train\.Checkpoint or Keras"):
        make_estimator(keras_h5, tmp_path / "run", warm_start_from=path)


@pytest.mark.parametrize("source", [pytest.param("hub_module", marks=pytest.mark.full), "keras_h5"], indirect=True)
def test_checkpoints_of_mirrored_runs_serve_without_it(source, tmp_path):
    """They are evaluated, gone on with and warm-started from on one device."""
    make_estimator(source, tmp_path / "run", "full", mirrored()).train(random_batches(8), steps=2)
    two = checkpoint_values(tmp_path / "run" / "model.ckpt-2")
    single = make_estimator(source, tmp_path / "run", "full")
    assert single.evaluate(random_batches(8), steps=1)["global_step"] == 2
    make_estimator(source, tmp_path / "warm", warm_start_from=str(tmp_path / "run")).train(random_batches(8), steps=1)
    warm = checkpoint_values(tmp_path / "warm" / "model.ckpt-0")
    for name in (*source.values, *HEAD):
        np.testing.assert_array_equal(warm[name], two[name], err_msg=name)
    single.train(random_batches(8), steps=1)
    three = checkpoint_values(tmp_path / "run" / "model.ckpt-3")
    assert moved(two, three, source.values) == source.trainable


def test_early_stopping_may_join_a_run_later(keras_h5, tmp_path):
    model = make_estimator(keras_h5, tmp_path)
    model.train(random_batches(8), steps=2)
    stop = estimator.experimental.make_early_stopping_hook(model, lambda: True, run_every_secs=None, run_every_steps=1)
    model.train(random_batches(8), steps=50, hooks=[stop])
    reached = int(model.get_variable_value("global_step"))
    assert 3 <= reached < 52
    without = make_estimator(keras_h5, tmp_path)
    without.train(random_batches(8), steps=3)
    assert int(without.get_variable_value("global_step")) == reached + 3


def test_growing_without_the_launcher_is_one_clear_error(keras_h5, tmp_path):
    make_estimator(keras_h5, tmp_path).train(random_batches(8), steps=2)
    for tuning in ("frozen", "full"):
        model = make_estimator(keras_h5, tmp_path, tuning)
        if tuning == "frozen":
            model.train(random_batches(8), steps=1)
            continue
        with pytest.raises(UserError, match="lacks 12 variables of this graph .bn1/beta/Adam.*--allow_plan_change"):
            model.train(random_batches(8), steps=1)


def test_the_best_export_survives_a_restart(keras_h5, tmp_path):
    spec = etl.backbone(keras_h5.handle).image_spec
    model = make_estimator(keras_h5, tmp_path / "run")
    model.train(random_batches(8), steps=1)
    checkpoint = tf.train.latest_checkpoint(str(tmp_path / "run"))

    def exported(accuracy, step, **settings):
        """What a new exporter, as after a restart, does with an evaluation."""
        exporter = BestExporter(image_receiver_fn(spec), **settings)
        result = {"accuracy": accuracy, "average_loss": 1 - accuracy, "global_step": step}
        return exporter.export(model, str(tmp_path / exporter.name), checkpoint, result, False) is not None

    assert [exported(a, s) for s, a in enumerate([0.5, 0.4, 0.7, 0.7, float("nan")])] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert json.loads((tmp_path / "best" / "best.json").read_text()) == {"accuracy": 0.7, "global_step": 2}
    assert len([path for path in (tmp_path / "best").iterdir() if path.is_dir()]) == 2
    lowest = {"metric": "average_loss", "name": "lowest"}
    assert [exported(a, s, **lowest) for s, a in enumerate([0.5, 0.4, 0.7])] == [True, False, True]
    with pytest.raises(UserError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        exported(0.5, 0, metric="acuracy")


def test_in_train_and_evaluate(keras_h5, tmp_path):
    spec = etl.backbone(keras_h5.handle).image_spec
    config = estimator.RunConfig(save_checkpoints_steps=1)
    for stop in (2, 4):
        estimator.train_and_evaluate(
            make_estimator(keras_h5, tmp_path, config=config),
            estimator.TrainSpec(random_batches(8), max_steps=stop),
            estimator.EvalSpec(
                random_batches(8),
                steps=2,
                start_delay_secs=0,
                throttle_secs=0,
                exporters=[BestExporter(image_receiver_fn(spec), metric="average_loss")],
            ),
        )
    best = json.loads((tmp_path / "export" / "best" / "best.json").read_text())
    losses = []
    for event_file in sorted((tmp_path / "eval").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(event_file)):
            losses += [value.simple_value for value in event.summary.value if value.tag == "average_loss"]
    assert len(losses) >= 4
    assert best["average_loss"] == pytest.approx(min(losses))


def test_one_process_does_not_pass_for_a_cluster(keras_h5, pictures, tmp_path, monkeypatch, capsys):
    """Its graphs, one a phase, would start the server a second time."""
    cluster = {"chief": ["localhost:1"], "ps": ["localhost:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}}))
    train(tmp_path / "run", keras_h5, pictures, 2, "--distribution=off", code=2)
    assert "distribution off is for one process, but TF_CONFIG describes a cluster" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", ["keras_h5", pytest.param("tf1_module", marks=pytest.mark.full)], indirect=True)
def test_one_graph_serves_all_phases_on_a_cluster(source, tmp_path):
    spec, part = next(iter(source.partial.items()))
    tuning = f"phases(phase(frozen, 2), phase({spec}, 4), full)"
    command = (sys.executable, "-m", "tests.programs.phased_cluster")
    arguments = [source.handle, tuning, str(tmp_path / "run"), "6"]
    with Cluster(tmp_path / "logs", arguments, command, chief=1, ps=1) as cluster:
        cluster.start("ps")
        cluster.start("chief")
        cluster.finish()
    found = states(tmp_path / "run", 6)
    top, everything = HEAD | part, HEAD | source.trainable
    steps = [moved(before, after, {*source.values, *HEAD}) for before, after in zip(found, found[1:])]
    assert steps == [HEAD] * 2 + [top] * 2 + [everything] * 2
