"""From settings to RunConfig: the session's config, checkpoints, TF_CONFIG."""

from __future__ import annotations

import json
import os

import pytest

from estimator_tl.compat import estimator, tf
from estimator_tl.config import EvaluationSpec, LaunchSpec, TrainingSpec
from estimator_tl.errors import UserError
from estimator_tl.launch.cluster.description import Cluster, from_tf_config
from estimator_tl.launch.cluster.run_config import (
    described,
    evaluation_session_config,
    make_run_config,
    make_session_config,
    run_config,
)
from estimator_tl.launch.cluster.strategy import Distribution, distribution_of
from estimator_tl.launch.programs import ProgramJob
from estimator_tl.launch.run import session

OFF = Distribution("off")
SERVERS = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}


@pytest.fixture
def tf_config(monkeypatch):
    """Sets TF_CONFIG for a test; what the code under test does to it is undone."""
    monkeypatch.delenv("TF_CONFIG", raising=False)

    def describe(cluster, job, index=0):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": job, "index": index}}))

    return describe


def session_config(**asked):
    return make_session_config(LaunchSpec(**asked), None, OFF)


def used_by_estimator(config):
    return estimator.Estimator(lambda features: None, "/somewhere", config).config.session_config


def test_nothing_asked_for_is_estimators_own_session_config(tf_config):
    assert session_config(save_checkpoints_secs=5, stall_minutes=1, cluster_wait_secs=7) is None
    assert used_by_estimator(run_config(cluster_wait_secs=7)) == used_by_estimator(estimator.RunConfig())


def test_an_own_session_config_begins_with_what_estimator_has(tf_config):
    expected = used_by_estimator(estimator.RunConfig())
    expected.inter_op_parallelism_threads = 3
    expected.gpu_options.allow_growth = False
    assert session_config(inter_op_threads=3) == expected


def test_threads_and_memory():
    made = session_config(inter_op_threads=3, intra_op_threads=5, gpu_memory_fraction=0.25, gpu_allow_growth=True)
    assert (made.inter_op_parallelism_threads, made.intra_op_parallelism_threads) == (3, 5)
    assert made.gpu_options.per_process_gpu_memory_fraction == 0.25
    assert made.gpu_options.allow_growth
    assert session_config(num_gpus=0).device_count == {"GPU": 0}


def test_xla():
    level = tf.compat.v1.OptimizerOptions.ON_1
    assert session_config(xla=True).graph_options.optimizer_options.global_jit_level == level
    assert session_config(intra_op_threads=1).graph_options.optimizer_options.global_jit_level == 0


def test_precision():
    rewrite = session_config(precision="bfloat16").graph_options.rewrite_options
    assert rewrite.auto_mixed_precision_onednn_bfloat16 == rewrite.ON
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    for precision, expected in (("tf32", True), ("float32", False)):
        session_config(precision=precision)
        assert enabled() is expected
        session_config()  # leaves it as it is
        assert enabled() is expected
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        session_config(precision="float16")


def test_a_config_in_text_form_wins(tmp_path):
    text = "intra_op_parallelism_threads: 9 graph_options { place_pruned_graph: true }"
    path = tmp_path / "session.pbtxt"
    path.write_text(text)
    for given in (text, str(path)):
        made = session_config(session_config=given, intra_op_threads=2, inter_op_threads=4)
        assert (made.intra_op_parallelism_threads, made.inter_op_parallelism_threads) == (9, 4)
        assert made.graph_options.place_pruned_graph
        assert made.allow_soft_placement


def test_a_config_that_is_none(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for given in ("threads: 1", "/nowhere.pbtxt", "log_device_placement: maybe", str(tmp_path / "binary")):
        with pytest.raises(UserError, match="session_config is not a ConfigProto in text form"):
            session_config(session_config=given)


def test_replicas_on_the_cpu_have_their_devices():
    replicas = Distribution("mirrored", ("/cpu:0", "/cpu:1", "/cpu:2"), 3)
    launch = LaunchSpec(cpu_replicas=3)
    assert make_session_config(launch, None, replicas).device_count == {"CPU": 3}
    made = make_run_config(None, launch, None, replicas)
    assert made.train_distribute.num_replicas_in_sync == 3
    fewer = LaunchSpec(cpu_replicas=3, session_config='device_count { key: "CPU" value: 2 }')
    with pytest.raises(UserError, match="needs CPU:2, but the number of CPUs in the session is 2"):
        make_run_config(None, fewer, None, replicas)


@pytest.mark.parametrize(
    ("job", "index", "filters"),
    [
        ("chief", 0, ["/job:ps", "/job:chief/task:0"]),
        ("worker", 1, ["/job:ps", "/job:worker/task:1"]),
        ("ps", 0, ["/job:ps"]),
        ("evaluator", 0, ["/job:ps"]),
    ],
)
def test_a_worker_sees_the_servers_and_itself(job, index, filters, tf_config):
    """What TensorFlow sees of other workers would make a session wait for them."""
    tasks = {name: dict(enumerate(addresses)) for name, addresses in SERVERS.items()}
    cluster = Cluster(tasks, job, index, "TF_CONFIG")
    launch = LaunchSpec()
    made = make_session_config(launch, cluster, distribution_of(launch, cluster))
    assert list(made.device_filters) == filters
    assert made.experimental.share_cluster_devices_in_session
    chosen = make_session_config(
        LaunchSpec(device_filters=("/job:ps/task:0",)), cluster, distribution_of(launch, cluster)
    )
    assert list(chosen.device_filters) == ["/job:ps/task:0"]


def test_checkpoint_fields(tf_config):
    settings = {
        "keep_checkpoint_every_n_hours": 3,
        "log_step_count_steps": 11,
        "session_creation_timeout_secs": 77,
        "keep_checkpoint_max": 2,
    }
    made = run_config("/somewhere", save_checkpoints_secs=30, **settings)
    assert {name: getattr(made, name) for name in settings} == settings
    assert (made.model_dir, made.save_checkpoints_secs, made.save_checkpoints_steps) == ("/somewhere", 30, None)
    usual, own = estimator.RunConfig(), run_config(save_checkpoints_steps=4)
    assert (own.save_checkpoints_secs, own.save_checkpoints_steps) == (None, 4)
    for name in ("keep_checkpoint_every_n_hours", "log_step_count_steps", "session_creation_timeout_secs"):
        assert getattr(own, name) == getattr(usual, name)


def test_seconds_between_checkpoints_win_over_the_launchers_steps(tf_config):
    fields = session.config_fields(TrainingSpec(save_summary_steps=7), save_checkpoints_steps=5)
    made = make_run_config(None, LaunchSpec(save_checkpoints_secs=30), None, OFF, **fields)
    assert (made.save_checkpoints_secs, made.save_checkpoints_steps, made.log_step_count_steps) == (30, None, 7)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_gpu": 1}, "no setting 'num_gpu'; did you mean 'num_gpus'"),
        ({"keep_checkpoints_max": 1}, "did you mean 'keep_checkpoint_max'"),
        ({"precision": "float8"}, "unknown precision"),
        ({"distribution": "multi_worker_mirrored"}, "needs a cluster"),
        ({"cpu_replicas": 0}, "cpu_replicas 0 must be at least 1"),
        ({"gpu_memory_fraction": 1.5}, "at most 1"),
        ({"stall_minutes": -1}, "stall_minutes -1"),
        ({"log_norms": -1}, "log_norms -1 must be at least 0"),
    ],
)
def test_settings_that_are_wrong(asked, message, tf_config):
    with pytest.raises(UserError) as refused:
        run_config(**asked)
    assert message in str(refused.value)


def test_a_session_config_as_an_object_is_taken_as_it_is(tf_config):
    own = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=6)
    assert run_config(session_config=own, xla=True).session_config == own
    assert run_config(session_config="inter_op_parallelism_threads: 6").session_config.inter_op_parallelism_threads == 6


@pytest.mark.parametrize(
    ("cluster", "job", "expected"),
    [
        ({"master": ["a:1"], "ps": ["d:1"]}, "master", ("chief", 0)),
        ({"worker": ["a:1", "b:1"], "ps": ["d:1"]}, "worker", ("chief", 0)),
        (SERVERS, "chief", ("chief", 0)),
    ],
)
def test_tf_config_is_read_and_normalized(cluster, job, expected, tf_config):
    tf_config(cluster, job)
    made = run_config()
    assert (made.task_type, made.task_id, made.is_chief) == (*expected, True)
    assert made.num_ps_replicas == 1
    described_now = json.loads(os.environ["TF_CONFIG"])
    assert described_now["task"] == {"type": "chief", "index": 0}
    assert "master" not in described_now["cluster"]
    assert (
        from_tf_config(os.environ["TF_CONFIG"]).tasks
        == from_tf_config(json.dumps({"cluster": cluster, "task": {"type": job, "index": 0}})).tasks
    )


def test_tf_config_does_not_leak_into_work_of_one_process(tf_config):
    tf_config(SERVERS, "worker", 1)
    before = os.environ["TF_CONFIG"]
    config = session.local_config("/somewhere", TrainingSpec())
    assert (config.num_ps_replicas, config.num_worker_replicas, config.is_chief, config.master) == (0, 1, True, "")
    assert os.environ["TF_CONFIG"] == before


def test_an_evaluation_has_the_resources_of_its_process_and_the_numbers_of_an_export():
    assert evaluation_session_config(LaunchSpec(xla=True, device_filters=["/job:ps"])) is None
    found = evaluation_session_config(
        LaunchSpec(intra_op_threads=3, gpu_memory_fraction=0.5, xla=True, session_config="device_filters: '/job:ps'")
    )
    assert found.intra_op_parallelism_threads == 3
    assert found.gpu_options.per_process_gpu_memory_fraction == 0.5
    assert found.graph_options.optimizer_options.global_jit_level == 0
    assert list(found.device_filters) == []


def test_device_filters_are_those_of_the_session():
    """RunConfig has no argument for them."""
    made = run_config(device_filters=["/job:ps", "/job:worker/task:1"])
    assert list(made.session_config.device_filters) == ["/job:ps", "/job:worker/task:1"]
    with pytest.raises(UserError, match="device_filters: 'nonsense' names no device; e.g. /job:ps"):
        run_config(device_filters=["/job:ps", "nonsense"])


def test_a_program_evaluates_with_its_own_session_config(tf_config, tmp_path):
    tf_config(SERVERS, "chief")
    config = run_config(str(tmp_path), intra_op_threads=3)
    assert list(config.session_config.device_filters) == ["/job:ps", "/job:chief/task:0"]
    model = estimator.Estimator(lambda features: None, config=config)
    spec = estimator.EvalSpec(lambda: None)
    job = ProgramJob(model, None, spec, EvaluationSpec(), LaunchSpec())
    found = job.evaluator().estimator.config.session_config
    assert found.intra_op_parallelism_threads == 3
    assert list(found.device_filters) == []
    assert not found.experimental.share_cluster_devices_in_session


def test_tf_config_stays_where_no_distribution_uses_it(tf_config):
    tf_config({"chief": ["a:1"]}, "chief")
    before = os.environ["TF_CONFIG"]
    assert run_config().train_distribute is None
    assert os.environ["TF_CONFIG"] == before
    make_run_config(None, LaunchSpec(), None, OFF)
    assert os.environ["TF_CONFIG"] == before


def test_tf_config_comes_back_after_an_error(tf_config):
    tf_config(SERVERS, "chief")
    before = os.environ["TF_CONFIG"]
    seen = []

    def fail():
        with described(None):
            seen.append("TF_CONFIG" in os.environ)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False]
    assert os.environ["TF_CONFIG"] == before


def test_no_tf_config_stays_none(tf_config):
    with described(from_tf_config(json.dumps({"cluster": SERVERS, "task": {"type": "ps", "index": 0}}))):
        assert json.loads(os.environ["TF_CONFIG"])["task"]["type"] == "ps"
    assert "TF_CONFIG" not in os.environ


def test_an_evaluator_stays_one_beside_a_chief_alone(tf_config):
    """A program's own `train_and_evaluate` asks the RunConfig what to do."""
    tf_config({"chief": ["a:1"]}, "evaluator")
    before = os.environ["TF_CONFIG"]
    assert run_config().task_type == "evaluator"
    assert os.environ["TF_CONFIG"] == before


def test_no_strategy_of_ones_own(tf_config):
    assert run_config(train_distribute=None, inter_op_threads=2).session_config.inter_op_parallelism_threads == 2


def test_a_strategy_of_ones_own_says_all_by_itself(tf_config):
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    own = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
    assert run_config(train_distribute=strategy, session_config=own).train_distribute is strategy
    with pytest.raises(UserError, match="xla has no effect beside your own train_distribute"):
        run_config(train_distribute=strategy, session_config=own, xla=True)
