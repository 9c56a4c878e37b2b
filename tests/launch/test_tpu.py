"""Training on a TPU as far as it goes without one: finding it, refusing what it cannot do, and the loop around it."""

from __future__ import annotations

import json
import re
import socket
import time

import numpy as np
import pytest

import estimator_tl as etl
from estimator_tl.cli.main import main
from estimator_tl.compat import tf
from estimator_tl.config import LaunchSpec
from estimator_tl.errors import LostPeersError, UserError
from estimator_tl.launch.cluster import strategy
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.revival.api import load_v1_estimator
from estimator_tl.tf_internals import tpu
from tests.checkpoints import checkpoint_values
from tests.launched import saved_steps
from tests.runs import HEAD, moved, train

CLUSTER = Cluster({"chief": {0: "a:1"}, "worker": {0: "b:1"}}, "chief", 0, "TF_CONFIG")


@pytest.fixture
def eight_cores(monkeypatch):
    """A TPU that is described and not there."""
    monkeypatch.setattr(tpu, "resolve", lambda *_: tf.distribute.cluster_resolver.TPUClusterResolver("local"))
    monkeypatch.setattr(tpu, "core_count", lambda *_: 8)


@pytest.mark.parametrize("asked", [{"distribution": "tpu"}, {"tpu": "local"}, {"tpu": "mine", "num_tpu_cores": 8}])
def test_a_tpu_divides_the_batch_among_its_cores(asked, eight_cores):
    found = strategy.distribution_of(LaunchSpec(**asked, iterations_per_loop=50), None)
    assert (found.kind, found.replicas, found.steps_per_call) == ("tpu", 8, 50)
    assert found.batch_of_replica(64) == 8
    with pytest.raises(UserError, match="batch_size 20 .* cannot be divided among 8; use e.g. --batch_size=16"):
        found.batch_of_replica(20)


@pytest.mark.parametrize(
    ("asked", "cluster", "message"),
    [
        ({"tpu": "local", "num_tpu_cores": 4}, None, "num_tpu_cores 4, but the TPU has 8"),
        ({"tpu": "local"}, CLUSTER, "used by one process, but TF_CONFIG describes a cluster"),
        (
            {"tpu": "local", "precision": "bfloat16"},
            None,
            "precision bfloat16, but a TPU always multiplies in bfloat16",
        ),
        ({"tpu": "local", "log_norms": 10}, None, "log_norms 10, but the steps of a TPU cannot be inspected"),
        ({"tpu": "local", "profile": "1,2"}, None, "profile 1,2, but a TPU is profiled from TensorBoard"),
        ({"tpu": "local", "cpu_replicas": 2}, None, "cpu_replicas 2, but training is on a TPU"),
        ({"tpu": "local", "num_gpus": 2}, None, "num_gpus 2, but training is on a TPU"),
        ({"tpu": "local", "all_reduce_alg": "nccl"}, None, "all_reduce_alg nccl, but the cores of a TPU"),
        ({"tpu": "local", "distribution": "off"}, None, "tpu is given, but distribution is off"),
        ({"num_tpu_cores": 8}, None, "num_tpu_cores is given, but distribution is auto"),
        ({"tpu_zone": "us-central2-b"}, None, "tpu_zone is given, but distribution is auto"),
    ],
)
def test_what_does_not_fit_a_tpu_is_said_before_training(asked, cluster, message, eight_cores):
    with pytest.raises(UserError, match=message):
        strategy.distribution_of(LaunchSpec(**asked), cluster)


def test_a_machine_without_tpu_ends_at_once(keras_h5, pictures, tmp_path, capsys):
    train(tmp_path / "run", keras_h5, pictures, 4, "--distribution=tpu", "--batch_size=8", code=2)
    error = capsys.readouterr().err
    assert "tpu local, but this machine shows TensorFlow no TPU; run on a TPU VM" in error
    assert not (tmp_path / "run").exists()


def test_a_name_that_nobody_knows_is_one_line():
    with pytest.raises(UserError, match="tpu no-such-tpu cannot be resolved .*--tpu_zone and --gcp_project"):
        tpu.resolve("no-such-tpu", "us-central2-b", "no-such-project")


def test_a_server_without_tpu_is_told_from_one_that_does_not_answer():
    server = tf.distribute.Server.create_local_server()
    resolver = tpu.resolve(server.target, "", "")
    with pytest.raises(UserError, match=r"the server at grpc://localhost:\d+ has no TPU"):
        tpu.core_count(resolver, 30)
    with socket.create_server(("localhost", 0)) as silent:
        resolver = tpu.resolve(f"grpc://localhost:{silent.getsockname()[1]}", "", "")
        started = time.monotonic()
        with pytest.raises(LostPeersError, match="has not answered for 2 s"):
            tpu.core_count(resolver, 2)
        assert time.monotonic() - started < 20


class Context:
    """What TPUEstimator says to an input_fn, here to that of the second of two hosts."""

    num_hosts, num_replicas = 2, 16

    def current_input_fn_deployment(self):
        return "/cpu:0", 1, self.num_hosts, 8


def test_each_host_reads_its_part_in_what_a_tpu_takes(pictures, keras_h5, tmp_path):
    source = etl.inputs.image_folder(str(pictures))
    input_fn = source.input_fn(etl.backbone(keras_h5.handle).input_spec, 2, training=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        mine = tpu.per_host(input_fn)({"context": Context()}, None)
        assert tf.nest.map_structure(lambda spec: (spec.dtype, spec.shape.as_list()), mine.element_spec) == (
            {"image": (tf.float32, [2, 8, 8, 3])},
            (tf.int32, [2]),
        )
        batches = [tf.compat.v1.data.make_one_shot_iterator(data).get_next()[1] for data in (mine, input_fn())]
        whole = [session.run(batches[1]) for _ in range(8)]
        own = [session.run(batches[0]) for _ in range(4)]
    np.testing.assert_array_equal(own, whole[1::2])


@pytest.fixture
def one_core_on_the_cpu(monkeypatch):
    """A TPUEstimator that makes its steps on the CPU, one by one, in place of a TPU's."""
    monkeypatch.setattr(tpu, "resolve", lambda *_: None)
    monkeypatch.setattr(tpu, "core_count", lambda *_: 1)

    def make_estimator(model_fn, model_dir, config, batch_size):
        return load_v1_estimator().tpu.TPUEstimator(
            model_fn, model_dir, config, params={}, use_tpu=False, train_batch_size=batch_size
        )

    monkeypatch.setattr(tpu, "make_estimator", make_estimator)


def test_a_tpus_run_is_saved_and_evaluated_in_lots_of_steps(keras_h5, pictures, tmp_path, one_core_on_the_cpu):
    tuning = "phases(phase(frozen, 4), phase(last_layers(3)))"
    train(
        tmp_path,
        keras_h5,
        pictures,
        10,
        *("--distribution=tpu", "--iterations_per_loop=2", "--save_checkpoints_steps=4", "--validation_fraction=0.25"),
        f"--tuning={tuning}",
    )
    assert saved_steps(tmp_path) == [0, 4, 8, 10]
    evaluated = [json.loads(line)["global_step"] for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert evaluated == [4, 8, 10]
    first, fourth, last = (checkpoint_values(tmp_path / f"model.ckpt-{step}") for step in (0, 4, 10))
    assert moved(first, fourth, keras_h5.values) == frozenset()
    assert moved(fourth, last, keras_h5.values) == keras_h5.partial["last_layers(3)"]
    assert moved(first, fourth, HEAD) == moved(fourth, last, HEAD) == HEAD


def test_checkpoints_between_the_lots_of_a_tpu_are_refused(keras_h5, pictures, tmp_path, capsys, one_core_on_the_cpu):
    flags = ("--distribution=tpu", "--iterations_per_loop=100", "--save_checkpoints_steps=250")
    train(tmp_path / "run", keras_h5, pictures, 1000, *flags, code=2)
    error = capsys.readouterr().err
    assert "save_checkpoints_steps 250 is not a multiple of iterations_per_loop 100" in error
    assert "use e.g. --save_checkpoints_steps=300" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_numbers_that_are_no_longer_finite_are_not_saved(keras_h5, pictures, tmp_path, capsys, one_core_on_the_cpu):
    flags = ("--distribution=tpu", "--iterations_per_loop=2", "--save_checkpoints_steps=2", "--tuning=full")
    train(tmp_path, keras_h5, pictures, 9, *flags, "--optimizer=sgd", "--learning_rate=1e30", code=2)
    error = capsys.readouterr().err
    assert re.search(
        r"error: training failed at step \d, .* variables are NaN or infinite, first conv1/kernel in", error
    )
    assert f"The checkpoint {tmp_path / 'model.ckpt-'}" in error
    for step in saved_steps(tmp_path):
        assert all(np.isfinite(value).all() for value in checkpoint_values(tmp_path / f"model.ckpt-{step}").values())


@pytest.mark.full
def test_only_this_projects_hook_saves(keras_h5, pictures, tmp_path, one_core_on_the_cpu, monkeypatch):
    configs, made = [], tpu.make_estimator
    monkeypatch.setattr(tpu, "make_estimator", lambda *given: configs.append(given[2]) or made(*given))
    train(tmp_path, keras_h5, pictures, 4, "--distribution=tpu", "--iterations_per_loop=1", "--save_checkpoints_secs=9")
    assert [(config.save_checkpoints_secs, config.save_checkpoints_steps) for config in configs] == [(None, None)]
    assert saved_steps(tmp_path) == [0, 4]


def test_the_flags_are_in_the_help(capsys):
    main(["train", "--helpfull"])
    shown = capsys.readouterr().out
    for flag in ("--tpu", "--tpu_zone", "--gcp_project", "--iterations_per_loop", "--num_tpu_cores"):
        assert flag in shown


def test_a_run_config_for_a_program(tmp_path, eight_cores):
    config = etl.run_config(str(tmp_path), tpu="local", iterations_per_loop=25, xla=True, save_summary_steps=7)
    assert isinstance(config, load_v1_estimator().tpu.RunConfig)
    assert (config.tpu_config.iterations_per_loop, config.save_summary_steps) == (25, 7)
    assert config.session_config.isolate_session_state
    assert config.session_config.graph_options.optimizer_options.global_jit_level
