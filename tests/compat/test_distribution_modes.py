"""Estimator under distribution strategies: which way a RunConfig runs, and what each task is told.

The same tests run where TensorFlow has `estimator_training` itself and where
this project stands in for it.
"""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from estimator_tl.compat import estimator, tf
from estimator_tl.compat.versions import has_native_estimator
from tests import linear
from tests.cluster import free_ports

_ = estimator.RunConfig  # brings the stand-ins into place
from tensorflow.python.distribute import estimator_training  # noqa: E402
from tensorflow.python.distribute.distribute_config import DistributeConfig  # noqa: E402

STANDALONE, INDEPENDENT = "standalone_client", "independent_worker"
CLUSTER = {"chief": ["c:1"], "worker": ["w:1", "w:2"], "ps": ["p:1"]}


def mirrored(*devices):
    return tf.distribute.MirroredStrategy(devices or ["/cpu:0"])


@pytest.fixture
def tf_config(monkeypatch):
    def put(**content):
        monkeypatch.setenv("TF_CONFIG", json.dumps(content))

    monkeypatch.delenv("TF_CONFIG", raising=False)
    return put


def test_one_process_runs_without_the_coordinator(tf_config):
    config = estimator.RunConfig(train_distribute=mirrored(), eval_distribute=mirrored())
    assert config._distribute_coordinator_mode is None
    assert not estimator_training.should_run_distribute_coordinator(config)
    assert (config.task_type, config.task_id, config.is_chief, config.master) == ("worker", 0, True, "")
    assert (config.num_worker_replicas, config.num_ps_replicas, config.global_id_in_cluster) == (1, 0, 0)


def test_a_cluster_with_a_train_strategy_is_an_independent_worker(tf_config):
    tf_config(cluster=CLUSTER, task={"type": "worker", "index": 1})
    config = estimator.RunConfig(train_distribute=mirrored())
    assert config._distribute_coordinator_mode == INDEPENDENT
    assert estimator_training.should_run_distribute_coordinator(config)
    assert config.cluster_spec.as_dict() == CLUSTER


def test_a_cluster_without_a_task_is_accepted_with_a_strategy(tf_config):
    tf_config(cluster={"chief": ["c:1"]})
    config = estimator.RunConfig(experimental_distribute=DistributeConfig(train_distribute=mirrored()))
    assert config._distribute_coordinator_mode == INDEPENDENT


def test_a_cluster_with_only_an_eval_strategy_is_run_by_estimator(tf_config):
    tf_config(cluster=CLUSTER, task={"type": "worker", "index": 1})
    config = estimator.RunConfig(eval_distribute=mirrored())
    assert config._distribute_coordinator_mode is None
    assert not estimator_training.should_run_distribute_coordinator(config)
    assert (config.task_type, config.task_id, config.is_chief) == ("worker", 1, False)
    assert (config.num_worker_replicas, config.num_ps_replicas, config.global_id_in_cluster) == (3, 1, 2)
    assert config.master == "grpc://w:2"


def test_a_master_is_run_by_estimator(tf_config):
    tf_config(cluster={"master": ["m:1"], "worker": ["w:1"]}, task={"type": "master", "index": 0})
    config = estimator.RunConfig(train_distribute=mirrored())
    assert config._distribute_coordinator_mode is None
    assert (config.task_type, config.is_chief, config.num_worker_replicas) == ("master", True, 2)


def test_no_strategy_never_meets_the_coordinator(tf_config):
    tf_config(cluster=CLUSTER, task={"type": "chief", "index": 0})
    config = estimator.RunConfig()
    assert not hasattr(config, "_distribute_coordinator_mode")
    assert not estimator_training.should_run_distribute_coordinator(config)


def test_a_remote_cluster_makes_a_standalone_client(tf_config):
    remote = DistributeConfig(remote_cluster={"chief": ["c:1"]})
    config = estimator.RunConfig(train_distribute=mirrored(), experimental_distribute=remote)
    assert config._distribute_coordinator_mode == STANDALONE
    assert estimator_training.should_run_distribute_coordinator(config)


def test_a_remote_cluster_and_tf_config_contradict(tf_config):
    tf_config(cluster=CLUSTER, task={"type": "chief", "index": 0})
    both = DistributeConfig(train_distribute=mirrored(), remote_cluster=CLUSTER)
    with pytest.raises(ValueError, match="TF_CONFIG"):
        estimator.RunConfig(experimental_distribute=both)


@pytest.mark.parametrize("field", ["train_distribute", "eval_distribute"])
def test_a_strategy_given_twice_is_refused(field, tf_config):
    with pytest.raises(ValueError, match=f"experimental_distribute.{field}"):
        estimator.RunConfig(**{field: mirrored()}, experimental_distribute=DistributeConfig(**{field: mirrored()}))


@pytest.mark.parametrize("field", ["train_distribute", "eval_distribute"])
def test_a_strategy_in_experimental_distribute_counts(field, tf_config):
    strategy = mirrored()
    config = estimator.RunConfig(experimental_distribute=DistributeConfig(**{field: strategy}))
    assert getattr(config, field) is strategy


def test_an_unknown_mode_or_a_missing_cluster_is_run_locally(tf_config):
    config = estimator.RunConfig(train_distribute=mirrored())
    config._distribute_coordinator_mode = "somehow"
    assert not estimator_training.should_run_distribute_coordinator(config)
    config._distribute_coordinator_mode = STANDALONE
    assert not estimator_training.should_run_distribute_coordinator(config)


def test_train_and_evaluate_needs_a_mode(tf_config):
    model = estimator.Estimator(linear.model_fn, config=estimator.RunConfig(train_distribute=mirrored()))
    with pytest.raises(ValueError, match="mode"):
        estimator_training.train_and_evaluate(model, None, None, None)


@pytest.mark.parametrize("method", ["train", "evaluate"])
def test_train_alone_needs_a_standalone_client(method, tf_config, tmp_path):
    tf_config(cluster=CLUSTER, task={"type": "chief", "index": 0})
    config = estimator.RunConfig(train_distribute=mirrored(), eval_distribute=mirrored())
    model = estimator.Estimator(linear.model_fn, str(tmp_path), config=config)
    with pytest.raises(ValueError, match="STANDALONE_CLIENT"):
        getattr(model, method)(linear.input_fn, steps=1)


@pytest.mark.parametrize("method", ["train", "evaluate"])
def test_train_alone_knows_no_evaluator(method, tf_config, tmp_path):
    remote = DistributeConfig(remote_cluster={"chief": ["c:1"], "evaluator": ["e:1"]})
    config = estimator.RunConfig(
        train_distribute=mirrored(), eval_distribute=mirrored(), experimental_distribute=remote
    )
    model = estimator.Estimator(linear.model_fn, str(tmp_path), config=config)
    with pytest.raises(ValueError, match="evaluator"):
        getattr(model, method)(linear.input_fn, steps=1)


@pytest.mark.parametrize("method", ["train", "evaluate"])
def test_train_alone_refuses_a_graph_per_worker(method, tf_config, tmp_path):
    several = tf.compat.v1.distribute.experimental.ParameterServerStrategy()
    config = estimator.RunConfig(
        train_distribute=several,
        eval_distribute=several,
        experimental_distribute=DistributeConfig(remote_cluster={"worker": ["w:1"], "ps": ["p:1"]}),
    )
    model = estimator.Estimator(linear.model_fn, str(tmp_path), config=config)
    with pytest.raises(ValueError, match="is not supported for ParameterServerStrategy"):
        getattr(model, method)(linear.input_fn, steps=1)


class Recorder:
    """In the place of an Estimator: notes what each task's RunConfig says when it is asked to train or evaluate."""

    seen: dict = {}  # noqa: RUF012
    lock = threading.Lock()

    def __init__(self, config):
        self._config = config

    @property
    def config(self):
        return self._config

    def note(self, what, hooks=None):
        c = self._config
        with self.lock:
            self.seen[what, c.task_type, c.task_id] = {
                "is_chief": c.is_chief,
                "global_id": c.global_id_in_cluster,
                "workers": c.num_worker_replicas,
                "ps": c.num_ps_replicas,
                "jobs": sorted(c.cluster_spec.jobs),
                "master": c.master,
                "mode": c._distribute_coordinator_mode,
                "hooks": hooks,
                "strategy's place": (c.train_distribute.extended._task_type, c.train_distribute.extended._task_id),
            }

    def train(self, input_fn, max_steps, hooks):
        self.note("train", hooks=[str(hook) for hook in hooks])
        assert max_steps == 9


class Executor:
    def __init__(self, model, train_spec, eval_spec):
        self._model = model

    def _start_continuous_evaluation(self):
        self._model.note("evaluate")


def test_what_each_task_of_a_standalone_client_is_told(tf_config):
    cluster = {**CLUSTER, "evaluator": ["e:1"]}
    several = tf.compat.v1.distribute.experimental.ParameterServerStrategy()
    config = estimator.RunConfig(
        train_distribute=several, experimental_distribute=DistributeConfig(remote_cluster=cluster)
    )
    hook = tf.compat.v1.train.SessionRunHook()
    train_spec = estimator.TrainSpec(linear.input_fn, max_steps=9, hooks=[hook])
    Recorder.seen.clear()
    estimator_training.train_and_evaluate(Recorder(config), train_spec, None, Executor)

    training = {"workers": 3, "ps": 1, "jobs": ["chief", "evaluator", "ps", "worker"], "mode": None}
    # Numbered chief first, parameter servers last, the others by name: the evaluator is 1.
    expected = {
        ("train", "chief", 0): {**training, "is_chief": True, "global_id": 0, "master": "grpc://c:1"},
        ("train", "worker", 0): {**training, "is_chief": False, "global_id": 2, "master": "grpc://w:1"},
        ("train", "worker", 1): {**training, "is_chief": False, "global_id": 3, "master": "grpc://w:2"},
    }
    for key, fields in expected.items():
        hooks = [str(hook)] if key[1] == "chief" else []  # one process: a hook knows one graph
        assert Recorder.seen.pop(key) == {**fields, "hooks": hooks, "strategy's place": key[1:]}
    evaluator = Recorder.seen.pop(("evaluate", "evaluator", 0))
    assert (evaluator["workers"], evaluator["ps"], evaluator["jobs"]) == (0, 0, [])
    assert (evaluator["global_id"], evaluator["mode"], evaluator["is_chief"]) == (None, None, True)
    assert not Recorder.seen


def test_the_users_estimator_is_left_as_it_was(tf_config):
    several = tf.compat.v1.distribute.experimental.ParameterServerStrategy()
    remote = DistributeConfig(remote_cluster=CLUSTER)
    config = estimator.RunConfig(train_distribute=several, experimental_distribute=remote)
    before = {name: value for name, value in vars(config).items() if name != "_session_config"}
    estimator_training.train_and_evaluate(
        Recorder(config), estimator.TrainSpec(linear.input_fn, max_steps=9), None, Executor
    )
    assert {name: value for name, value in vars(config).items() if name != "_session_config"} == before
    assert config.train_distribute is several


@pytest.mark.skipif(has_native_estimator(), reason="on TensorFlow 2.15 the strategy's own message says it")
def test_a_strategy_that_cannot_be_copied_says_what_to_call(tf_config):
    class Uncopied(Recorder):
        def __deepcopy__(self, memo):
            raise ValueError("MultiWorkerMirroredStrategy cannot be deep copied in eager mode.")

    several = tf.compat.v1.distribute.experimental.ParameterServerStrategy()
    remote = DistributeConfig(remote_cluster=CLUSTER)
    config = estimator.RunConfig(train_distribute=several, experimental_distribute=remote)
    with pytest.raises(ValueError, match="disable_eager_execution"):
        estimator_training.train_and_evaluate(
            Uncopied(config), estimator.TrainSpec(linear.input_fn, max_steps=9), None, Executor
        )


@pytest.fixture(scope="module")
def servers():
    """Two TensorFlow servers of one worker job in this process."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    kept = [tf.distribute.Server(cluster, job_name="worker", task_index=index) for index in range(2)]
    yield cluster
    del kept


def test_a_standalone_client_trains_on_both_workers(servers, tf_config, tmp_path):
    """Mirrored over two servers, 8 examples each, equals gradient descent on all 16."""
    config = estimator.RunConfig(
        train_distribute=tf.distribute.MirroredStrategy(cross_device_ops=tf.distribute.ReductionToOneDevice()),
        eval_distribute=tf.distribute.MirroredStrategy(cross_device_ops=tf.distribute.ReductionToOneDevice()),
        experimental_distribute=DistributeConfig(remote_cluster=servers),
    )
    devices = set()

    def model_fn(features, labels, mode):
        devices.add(features["x"].device)
        return linear.model_fn(features, labels, mode)

    model = estimator.Estimator(model_fn, str(tmp_path), config=config)

    def input_fn(input_context):
        dataset = tf.data.Dataset.from_tensor_slices(({"x": linear.X}, linear.Y))
        dataset = dataset.shard(input_context.num_input_pipelines, input_context.input_pipeline_id)
        return dataset.repeat().batch(8, drop_remainder=True)

    model.train(input_fn, max_steps=6)
    expected = linear.kernel_after(6)
    np.testing.assert_allclose(model.get_variable_value("kernel"), expected, rtol=1e-5)
    assert any("task:0" in device for device in devices), devices
    assert any("task:1" in device for device in devices), devices
    metrics = model.evaluate(linear.eval_input_fn)
    assert metrics["global_step"] == 6
    np.testing.assert_allclose(metrics["loss"], linear.eval_loss(expected), rtol=1e-5)


def test_mirrored_on_two_devices_equals_one_process(tf_config, tmp_path):
    session_config = tf.compat.v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True)
    config = estimator.RunConfig(
        train_distribute=mirrored("/cpu:0", "/cpu:1"),
        eval_distribute=mirrored("/cpu:0", "/cpu:1"),
        session_config=session_config,
    )
    model = estimator.Estimator(linear.model_fn, str(tmp_path), config=config)
    metrics, _ = estimator.train_and_evaluate(
        model,
        estimator.TrainSpec(lambda: linear.input_fn(8), max_steps=6),
        estimator.EvalSpec(linear.eval_input_fn, steps=None),
    )
    expected = linear.kernel_after(6)
    np.testing.assert_allclose(model.get_variable_value("kernel"), expected, rtol=1e-5)
    assert metrics["global_step"] == 6
    np.testing.assert_allclose(metrics["loss"], linear.eval_loss(expected), rtol=1e-5)
