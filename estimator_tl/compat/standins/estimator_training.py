"""Stands in for `tensorflow.python.distribute.estimator_training`, gone from TensorFlow 2.16 on.

It joined RunConfig and Estimator to distribution strategies. Here: what one
process needs (no strategy, or a strategy over local devices). A cluster of
processes under a strategy is refused with what to do.
"""

from __future__ import annotations

from typing import Any

_CLUSTER = (
    "a distribution strategy over several processes (TF_CONFIG with a cluster) is not available in "
    "estimator_tl on this TensorFlow yet; run it on TensorFlow 2.15, or in one process."
)


def init_run_config(config: Any, tf_config: dict[str, Any]) -> None:
    """Fills the fields of `config` that depend on where it runs, for one process.

    Args:
      config: the RunConfig being made.
      tf_config: the decoded TF_CONFIG.

    Raises:
      ValueError: a strategy is given twice.
      NotImplementedError: TF_CONFIG describes a cluster.
    """
    from estimator_tl.compat.versions import load_tensorflow

    tf = load_tensorflow()
    both = config._experimental_distribute
    for field in ("train_distribute", "eval_distribute"):
        nested = getattr(both, field, None)
        if nested is None:
            continue
        if getattr(config, f"_{field}"):
            raise ValueError(f"`{field}` and `experimental_distribute.{field}` are both given; give one of them.")
        setattr(config, f"_{field}", nested)
    if tf_config.get("cluster"):
        raise NotImplementedError(_CLUSTER)
    config._distribute_coordinator_mode = None
    config._cluster_spec = tf.train.ClusterSpec({})
    config._task_type = "worker"
    config._task_id = 0
    config._master = ""
    config._evaluation_master = ""
    config._is_chief = True
    config._num_ps_replicas = 0
    config._num_worker_replicas = 1
    config._global_id_in_cluster = 0
    config._service = None


def should_run_distribute_coordinator(config: Any) -> bool:
    """False: every run here is a single process."""
    return False


def train_and_evaluate(*args: Any, **kwargs: Any) -> None:
    """Refused, see the module's text."""
    raise NotImplementedError(_CLUSTER)


estimator_train = train_and_evaluate
estimator_evaluate = train_and_evaluate
