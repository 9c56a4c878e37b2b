"""Evaluation of the variables of a training session, without a checkpoint.

To evaluate a checkpoint, Estimator builds a graph, begins a session and reads all variables from a file each time. Here
the graph and the session are made once. The metrics are the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from estimator_tl.backbones.input.hooks import AnyBatchHook, ImageRangeHook, check_any_batch
from estimator_tl.compat import estimator, tf
from estimator_tl.config import EvaluationSpec
from estimator_tl.errors import UserError
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.stopping import StopRequests
from estimator_tl.tf_internals.estimators import call_input_fn
from estimator_tl.tf_internals.files.checkpoints import assign
from estimator_tl.tf_internals.graphs.replicas import has_copies
from estimator_tl.types import RunContext, RunValues, Session, Variable

_READ_BYTES = 64 << 20


class InMemoryEvaluation:
    """A graph for evaluation with its session, next to the graph for training."""

    def __init__(self, evaluator: Evaluator, requests: StopRequests, variables: Mapping[str, Variable]):
        """Builds the graph.

        Args:
          evaluator: has an Estimator that runs in this process, and an input_fn that gives a `tf.data.Dataset`.
          requests: the stop requests; a signal among them ends an evaluation.
          variables: the tensor to fetch for each variable of training, by name, from `variables_of`.

        Raises:
          UserError: the model_fn or the input_fn cannot be evaluated in memory.
        """
        self._evaluator, self._requests = evaluator, requests
        model = evaluator.estimator
        v1 = tf.compat.v1
        config = model.config
        with tf.Graph().as_default() as graph:
            v1.set_random_seed(config.tf_random_seed)
            v1.train.create_global_step()
            with tf.device("/cpu:0"):
                data = call_input_fn(model, evaluator.input_fn, estimator.ModeKeys.EVAL)
                if not isinstance(data, tf.data.Dataset):
                    raise UserError(
                        "the input_fn of an evaluation in memory is used repeatedly; let it return a Dataset."
                    )
                iterator = v1.data.make_initializable_iterator(data)
                features, labels = iterator.get_next()
            spec = model.model_fn(features, labels, estimator.ModeKeys.EVAL, config)
            metrics = {name: _value_and_update(metric) for name, metric in spec.eval_metric_ops.items()}
            metrics.setdefault("loss", v1.metrics.mean(spec.loss))
            self._values = {name: value for name, (value, _) in metrics.items()}
            self._updates = [update for _, update in metrics.values()]
            self._begin = [v1.local_variables_initializer(), iterator.initializer]
            self._variables = {variable.op.name: variable for variable in v1.global_variables()}
            for metric in spec.eval_metric_ops.values():
                for variable in getattr(metric, "variables", ()):
                    self._variables.pop(variable.op.name, None)
            _check_spec(spec, sorted(set(self._variables) - set(variables)))
            tables = v1.tables_initializer()
        self._session = v1.Session(graph=graph, config=config.session_config)
        self._session.run(tables)

    def measure(self, training: Any, variables: Mapping[str, Variable], step: int) -> dict[str, Any] | None:
        """Evaluates the current values of a training session.

        Args:
          training: the training session.
          variables: the tensor to fetch for each of its variables, by name, from `variables_of`.
          step: its global step.

        Returns:
          The metrics, with ``global_step``; None if a signal arrived.

        Raises:
          UserError: the input_fn gives no batch.
        """
        self._copy_values(training, variables)
        self._session.run(self._begin)
        batches = 0
        steps = self._evaluator.rules.eval_steps
        while steps is None or batches < steps:
            try:
                self._session.run(self._updates)
            except tf.errors.OutOfRangeError:
                break
            batches += 1
            if self._requests.stop and self._requests.stop.resumes:
                return None
        check_any_batch(batches > 0)
        metrics = {**self._session.run(self._values), "global_step": np.int64(step)}
        self._write(metrics)
        return metrics

    def _copy_values(self, training: Any, variables: Mapping[str, Variable]) -> None:
        """Copies the variables of the training session in parts, so that only a part is in memory as arrays."""
        part: dict[str, Any] = {}
        size = 0
        for name in self._variables:
            part[name] = variables[name]
            size += variables[name].shape.num_elements() * variables[name].dtype.size
            if size >= _READ_BYTES:
                assign(self._session, self._variables, training.run(part))
                part, size = {}, 0
        if part:
            assign(self._session, self._variables, training.run(part))

    def _write(self, metrics: Mapping[str, Any]) -> None:
        folder = self._evaluator.estimator.eval_dir(self._evaluator.name)
        values = [
            tf.compat.v1.Summary.Value(tag=name, simple_value=float(value))
            for name, value in metrics.items()
            if name != "global_step"
        ]
        writer = tf.compat.v1.summary.FileWriterCache.get(folder)
        writer.add_summary(tf.compat.v1.Summary(value=values), int(metrics["global_step"]))
        writer.flush()


def variables_of(graph: Any) -> dict[str, Any]:
    """Returns the tensor to fetch for each variable, by name; the graph must not be finalized yet.

    For variables of a strategy the tensor has the value that a checkpoint would hold, e.g. the mean over replicas.
    """
    variables = {variable.op.name: variable for variable in graph.get_collection("variables")}
    return {name: variable.read_value() if has_copies(variable) else variable for name, variable in variables.items()}


def _check_spec(spec: Any, missing: Sequence[str]) -> None:
    """Refuses a spec whose metrics in memory would differ from the metrics of a checkpoint.

    Raises:
      UserError: the spec has its own Saver, local_init_op or hooks, or variables that training lacks.
    """
    remedy = "leave out eval_every_steps and eval_every_secs to evaluate checkpoints."
    if spec.scaffold is not None and (spec.scaffold.saver or spec.scaffold.local_init_op) is not None:
        raise UserError(f"the model_fn evaluates with its own Saver or local_init_op; {remedy}")
    if any(not isinstance(hook, (AnyBatchHook, ImageRangeHook)) for hook in spec.evaluation_hooks or ()):
        raise UserError(f"the model_fn has evaluation_hooks, which an evaluation in memory cannot run; {remedy}")
    if missing:
        raise UserError(f"the graph for evaluation has variables that training lacks, e.g. {missing[0]}; {remedy}")


def _value_and_update(metric: Any) -> Sequence[Any]:
    """Returns the value and the update op of a metric, which is a Keras 2 metric or already this pair."""
    if hasattr(metric, "result"):
        return metric.result(), tf.group(*metric.updates)
    pair: Sequence[Any] = metric
    return pair


def check_in_memory(rules: EvaluationSpec, in_one_process: bool) -> None:
    """Refuses evaluation in memory in a cluster or on a TPU, where other tasks would train on or have to wait.

    Raises:
      UserError: the rules ask for evaluation in memory, and training is not in one process.
    """
    if rules.in_memory and not in_one_process:
        raise UserError(
            "eval_every_steps and eval_every_secs work in one process only, not in a cluster or on a TPU; leave them "
            "out to evaluate checkpoints (--save_checkpoints_steps, --save_checkpoints_secs)."
        )


class InMemoryHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Evaluates a training session every N steps or seconds, and at the end of training."""

    def __init__(self, evaluator: Evaluator, requests: StopRequests, total: int):
        """Prepares the hook.

        Args:
          evaluator: stores the metrics; its rules decide when to evaluate and when training stops.
          requests: gets a request when the rules stop training.
          total: the global step where training ends.
        """
        self._evaluator, self._requests, self._total = evaluator, requests, total
        self._evaluation: InMemoryEvaluation | None = None
        self._last_start, self._has_evaluated = time.monotonic(), False
        self._global_step: Any = None
        self._variables: dict[str, Any] = {}
        self._step = 0

    def begin(self) -> None:
        self._global_step = tf.compat.v1.train.get_global_step()
        self._variables = variables_of(tf.compat.v1.get_default_graph())

    def after_create_session(self, session: Session, coord: Any) -> None:
        self._step = int(session.run(self._global_step))

    def after_run(self, run_context: RunContext, run_values: RunValues) -> None:
        # The step is read and not counted: a call may be less than a step, e.g. if gradients are accumulated.
        previous, self._step = self._step, int(run_context.session.run(self._global_step))
        elapsed, rules = time.monotonic() - self._last_start, self._evaluator.rules
        every = rules.eval_every_steps
        by_steps = every is not None and self._step // every > previous // every
        by_secs = rules.eval_every_secs is not None and elapsed >= rules.eval_every_secs
        due = (by_steps or by_secs) and (elapsed >= rules.eval_throttle_secs or not self._has_evaluated)
        if not (due or self._step >= self._total > previous) or self._step == previous or self._requests.stop:
            return
        self._last_start, self._has_evaluated = time.monotonic(), True
        if self._evaluation is None:  # builds its graph at the first evaluation
            self._evaluation = InMemoryEvaluation(self._evaluator, self._requests, self._variables)
        metrics = self._evaluation.measure(run_context.session, self._variables, self._step)
        if metrics:
            reason = self._evaluator.take(metrics)
            if reason:
                self._requests.ask(reason, resumes=False)
