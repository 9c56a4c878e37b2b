"""Stand-in for `tensorflow.python.distribute.estimator_training`, which TensorFlow removed in 2.16.

It connects RunConfig and Estimator to the distribute coordinator, which
TensorFlow still has. The coordinator starts the server of this task, waits for
the other tasks, and calls one function per task with a strategy for the cluster.
There are three ways to run, decided once, when the RunConfig is created:

- *not coordinated*: one process, or a cluster without `train_distribute` or
  with a `master`. Estimator's executor runs it (also with classic parameter
  servers).
- *independent worker*: TF_CONFIG has a cluster and the RunConfig a
  `train_distribute`: every process runs the same program and finds its task in
  TF_CONFIG.
- *standalone client*: `experimental_distribute.remote_cluster` names servers
  that are already running; this process drives all of them.

Sources: the docstrings of `tf.distribute.experimental_run_coordinator`'s module
`distribute_coordinator`, of `tf.estimator.RunConfig` and of
`tf.contrib.distribute.DistributeConfig` (TensorFlow 1.15 and 2.15).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from tensorflow.python.distribute import distribute_coordinator as coordinator
from tensorflow.python.distribute import distribute_coordinator_context as coordinator_context
from tensorflow.python.distribute import multi_worker_util
from tensorflow.python.platform import tf_logging as logging
from tensorflow.python.training import server_lib

_CHIEF, _WORKER, _PS, _EVALUATOR = "chief", "worker", "ps", "evaluator"
_MODES = (coordinator.CoordinatorMode.STANDALONE_CLIENT, coordinator.CoordinatorMode.INDEPENDENT_WORKER)


def init_run_config(config: Any, tf_config: dict[str, Any]) -> None:
    """Decides how a RunConfig with a strategy runs, and fills its cluster fields.

    Args:
      config: the new RunConfig; changed in place.
      tf_config: the decoded TF_CONFIG, or {}.

    Raises:
      ValueError: two settings name a strategy or a cluster.
    """
    distribute = config._experimental_distribute
    for field in ("train_distribute", "eval_distribute"):
        _take_strategy(config, distribute, field)
    cluster = server_lib.ClusterSpec(tf_config.get("cluster", {}))
    config._init_distributed_setting_from_environment_var({})

    remote = distribute.remote_cluster if distribute else None
    if config._train_distribute and remote:
        if cluster:
            raise ValueError(
                "Cannot set both a cluster in TF_CONFIG and `experimental_distribute.remote_cluster`; "
                "unset TF_CONFIG in the process that drives the remote cluster."
            )
        config._distribute_coordinator_mode = coordinator.CoordinatorMode.STANDALONE_CLIENT
        config._cluster_spec = remote
    elif config._train_distribute and cluster and "master" not in cluster.jobs:
        config._distribute_coordinator_mode = coordinator.CoordinatorMode.INDEPENDENT_WORKER
        # The coordinator provides the fields of the task after it has started the server.
        config._cluster_spec = cluster
    else:
        config._distribute_coordinator_mode = None
        config._init_distributed_setting_from_environment_var(tf_config)
        config._maybe_overwrite_session_config_for_distributed_training()
    logging.info("RunConfig: distribute coordinator mode %s.", config._distribute_coordinator_mode)


def _take_strategy(config: Any, distribute: Any, field: str) -> None:
    """Moves a strategy from `experimental_distribute` to the field of the RunConfig."""
    strategy = getattr(distribute, field, None)
    if not strategy:
        return
    if getattr(config, f"_{field}"):
        raise ValueError(f"Either `{field}` or `experimental_distribute.{field}` can be set, not both; drop one.")
    setattr(config, f"_{field}", strategy)


def should_run_distribute_coordinator(config: Any) -> bool:
    """True if the coordinator runs `train_and_evaluate`, instead of Estimator's executor."""
    mode = getattr(config, "_distribute_coordinator_mode", None)
    if mode is None:
        return False
    if mode not in _MODES:
        logging.warning("Unexpected distribute coordinator mode %r: running without the coordinator.", mode)
        return False
    if not config.cluster_spec:
        logging.warning("Distribute coordinator mode %s needs a cluster: running `train_and_evaluate` locally.", mode)
        return False
    return True


def train_and_evaluate(estimator: Any, train_spec: Any, eval_spec: Any, executor_cls: Any) -> None:
    """Runs the part of this process in `train_and_evaluate`; a standalone client runs the parts of all tasks.

    Args:
      estimator: an Estimator whose config has a coordinator mode.
      train_spec: the TrainSpec.
      eval_spec: the EvalSpec.
      executor_cls: Estimator's executor class; the evaluator task runs its continuous evaluation.

    Raises:
      ValueError: the config has no coordinator mode.
    """
    config = estimator.config
    mode = config._distribute_coordinator_mode
    if not mode:
        raise ValueError("The RunConfig has no distribute coordinator mode; make it with `train_distribute`.")
    standalone = mode == coordinator.CoordinatorMode.STANDALONE_CLIENT

    def train(strategy: Any) -> None:
        local = _estimator_of_this_task(estimator, "train", strategy)
        # A standalone client runs all workers in one process, where a hook works with the chief's graph only.
        hooks = [] if standalone and not local.config.is_chief else list(train_spec.hooks)
        local.train(train_spec.input_fn, hooks=hooks, max_steps=train_spec.max_steps)

    def evaluate(strategy: Any) -> None:
        local = _estimator_of_this_task(estimator, "eval", strategy)
        executor_cls(local, train_spec, eval_spec)._start_continuous_evaluation()

    coordinator.run_distribute_coordinator(
        train,
        config.train_distribute,
        evaluate,
        config.eval_distribute,
        mode=mode,
        cluster_spec=config.cluster_spec if standalone else None,  # an independent worker takes it from TF_CONFIG
        session_config=config.session_config,
    )


def estimator_train(estimator: Any, train_distributed_fn: Callable[..., Any], hooks: Sequence[Any]) -> Any:
    """Runs `Estimator.train` of a standalone client on its remote cluster.

    Args:
      estimator: an Estimator whose config has a coordinator mode and `train_distribute`.
      train_distributed_fn: called once, with (estimator of the client, strategy, hooks).
      hooks: session hooks.

    Raises:
      ValueError: the mode, the cluster or the strategy cannot train this way.
    """

    def train(strategy: Any) -> Any:
        local = _estimator_of_this_task(estimator, "train", strategy)
        train_distributed_fn(local, strategy, hooks)
        return local

    return _run_as_client(estimator, "Estimator.train", estimator.config.train_distribute, train)


def estimator_evaluate(estimator: Any, evaluate_distributed_fn: Callable[..., Any], hooks: Sequence[Any]) -> Any:
    """Runs `Estimator.evaluate` of a standalone client on its remote cluster.

    Args:
      estimator: an Estimator whose config has a coordinator mode and `eval_distribute`.
      evaluate_distributed_fn: called once, with (estimator of the client, strategy, hooks); its metrics are returned.
      hooks: session hooks.

    Raises:
      ValueError: the mode, the cluster or the strategy cannot evaluate this way.
    """

    def evaluate(strategy: Any) -> Any:
        local = _estimator_of_this_task(estimator, "eval", strategy)
        return evaluate_distributed_fn(local, strategy, hooks)

    return _run_as_client(estimator, "Estimator.evaluate", estimator.config.eval_distribute, evaluate)


def _run_as_client(estimator: Any, method: str, strategy: Any, task: Callable[[Any], Any]) -> Any:
    """Runs `task` on the remote cluster; one client drives one graph (in-graph replication)."""
    config = estimator.config
    cluster = multi_worker_util.normalize_cluster_spec(config.cluster_spec)
    if _EVALUATOR in cluster.jobs:
        raise ValueError(f"`{method}` does not support an 'evaluator' job in the cluster; use `train_and_evaluate`.")
    if config._distribute_coordinator_mode != coordinator.CoordinatorMode.STANDALONE_CLIENT:
        raise ValueError(
            f"`{method}` with a cluster supports only the STANDALONE_CLIENT mode "
            "(`experimental_distribute.remote_cluster`); with TF_CONFIG, use `train_and_evaluate`."
        )
    if strategy.extended.experimental_between_graph:
        raise ValueError(
            f"`{method}` is not supported for {type(strategy).__name__} in STANDALONE_CLIENT mode, which has one "
            "graph per worker; use `train_and_evaluate`, or MirroredStrategy."
        )
    return coordinator.run_distribute_coordinator(
        task,
        strategy,
        mode=config._distribute_coordinator_mode,
        cluster_spec=cluster,
        session_config=config.session_config,
    )


def _estimator_of_this_task(estimator: Any, role: str, strategy: Any) -> Any:
    """Returns a copy of the estimator for the task that the coordinator is running in this thread.

    Args:
      estimator: the Estimator of the user; not changed, because a standalone client runs several tasks in one process.
      role: "train" or "eval".
      strategy: the coordinator's strategy for the task.
    """
    try:
        local = copy.deepcopy(estimator)
    except ValueError as error:
        if "eager mode" not in str(error):
            raise
        raise ValueError(
            f"{error} With Estimator, call tf.compat.v1.disable_eager_execution() at the beginning of the program."
        ) from error
    setattr(local._config, f"_{role}_distribute", strategy)
    setattr(local, f"_{role}_distribution", strategy)
    _take_task(local._config, coordinator_context.get_current_worker_context())
    local._config._distribute_coordinator_mode = None  # the copy must not enter the coordinator again
    logging.info("Updated config: %s", vars(local._config))
    return local


def _take_task(config: Any, context: Any) -> None:
    """Fills the cluster fields of the RunConfig from the coordinator's context for this task."""
    config._service = None
    config._task_type = context.task_type
    config._task_id = context.task_id
    config._master = config._evaluation_master = context.master_target
    config._is_chief = context.is_chief
    cluster = context.cluster_spec
    if not cluster:
        config._cluster_spec = cluster
        config._num_ps_replicas, config._num_worker_replicas, config._global_id_in_cluster = 0, 1, 0
    elif context.task_type == _EVALUATOR:  # an evaluator only reads checkpoints and does not see the other tasks
        config._cluster_spec = server_lib.ClusterSpec({})
        config._num_ps_replicas, config._num_worker_replicas, config._global_id_in_cluster = 0, 0, None
    else:
        tasks = {job: cluster.num_tasks(job) for job in cluster.jobs}
        config._cluster_spec = cluster
        config._num_ps_replicas = tasks.get(_PS, 0)
        config._num_worker_replicas = tasks.get(_WORKER, 0) + tasks.get(_CHIEF, 0)
        config._global_id_in_cluster = _global_id(tasks, context.task_type, context.task_id)


def _global_id(tasks: dict[str, int], task_type: str | None, task_id: int) -> int:
    """Numbers the tasks of a cluster: the chief, then the other jobs by name, parameter servers last."""
    if not task_type:
        return 0
    order = sorted(tasks, key=lambda job: (job != _CHIEF, job == _PS, job))
    return sum(tasks[job] for job in order[: order.index(task_type)]) + task_id
