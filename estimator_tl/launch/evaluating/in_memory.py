"""Evaluation of what a training session holds, without a checkpoint.

A checkpoint's evaluation builds a graph, begins a session and reads all variables from a file, each time; here that
is done once. The numbers are the same.
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

_READ_BYTES = 64 << 20


class InMemoryEvaluation:
    """The graph for evaluation beside that for training, and its session."""

    def __init__(self, evaluator: Evaluator, requests: StopRequests, held: Mapping[str, Any]):
        """Builds the graph.

        Args:
          evaluator: with an Estimator of this process alone, and an input_fn that gives a `tf.data.Dataset`.
          requests: a signal among them ends an evaluation.
          held: the variables of training by name, from `variables_of`.

        Raises:
          UserError: the model_fn or the input_fn cannot be evaluated so.
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
                    raise UserError("the input_fn of an evaluation in memory is used again; let it return a Dataset.")
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
            _check_spec(spec, sorted(set(self._variables) - set(held)))
            tables = v1.tables_initializer()
        self._session = v1.Session(graph=graph, config=config.session_config)
        self._session.run(tables)

    def measure(self, training: Any, held: Mapping[str, Any], step: int) -> dict[str, Any] | None:
        """Returns the metrics of the values that a training session has; None where a signal came.

        Args:
          training: the session.
          held: its variables by name, from `variables_of`.
          step: its global step, which is returned among them.

        Raises:
          UserError: the input_fn gives no batch.
        """
        self._take(training, held)
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

    def _take(self, training: Any, held: Mapping[str, Any]) -> None:
        """Copies the values of the training session's variables, in parts, as all at once would be held twice."""
        part: dict[str, Any] = {}
        size = 0
        for name in self._variables:
            part[name] = held[name]
            size += held[name].shape.num_elements() * held[name].dtype.size
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
    """Returns what a session gives the values of a graph's variables for, by their names; the graph is not yet final.

    Of a strategy's variables it is the value that a checkpoint would hold, such as the mean of what replicas count.
    """
    held = {variable.op.name: variable for variable in graph.get_collection("variables")}
    return {name: variable.read_value() if has_copies(variable) else variable for name, variable in held.items()}


def _check_spec(spec: Any, missing: Sequence[str]) -> None:
    """Refuses what would make other numbers of an evaluation than those of a checkpoint.

    Raises:
      UserError: the spec restores in a way of its own, or has variables that training has not.
    """
    use = "leave eval_every_steps and eval_every_secs out, and checkpoints are evaluated."
    if spec.scaffold is not None and (spec.scaffold.saver or spec.scaffold.local_init_op) is not None:
        raise UserError(f"the model_fn evaluates with a Saver or local_init_op of its own; {use}")
    if any(not isinstance(hook, (AnyBatchHook, ImageRangeHook)) for hook in spec.evaluation_hooks or ()):
        raise UserError(f"the model_fn has evaluation_hooks, for which there is no session in memory; {use}")
    if missing:
        raise UserError(f"the graph for evaluation has variables that training has not, e.g. {missing[0]}; {use}")


def _value_and_update(metric: Any) -> Sequence[Any]:
    """Returns the value and the update op of a metric: a Keras 2 metric, or a pair of them."""
    return (metric.result(), tf.group(*metric.updates)) if hasattr(metric, "result") else metric


def check_in_memory(rules: EvaluationSpec, in_one_process: bool) -> None:
    """Refuses evaluation in memory where others train as well, and go on meanwhile or would have to wait.

    Raises:
      UserError: it is asked for there.
    """
    if rules.in_memory and not in_one_process:
        raise UserError(
            "eval_every_steps and eval_every_secs evaluate what one process trains, not a cluster or a TPU; leave them "
            "out, and checkpoints are evaluated (--save_checkpoints_steps, --save_checkpoints_secs)."
        )


class InMemoryHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Evaluates a training session at the multiples of a number of steps, or every so many seconds, and at its end."""

    def __init__(self, evaluator: Evaluator, requests: StopRequests, total: int):
        """Prepares the hook.

        Args:
          evaluator: takes the metrics; its rules say when, and when training ends.
          requests: told of that end.
          total: the global step where training ends.
        """
        self._evaluator, self._requests, self._total = evaluator, requests, total
        self._evaluation: InMemoryEvaluation | None = None
        self._began, self._evaluated = time.monotonic(), False
        self._global_step: Any = None
        self._held: dict[str, Any] = {}
        self._step = 0

    def begin(self) -> None:
        self._global_step = tf.compat.v1.train.get_global_step()
        self._held = variables_of(tf.compat.v1.get_default_graph())

    def after_create_session(self, session: Any, coord: Any) -> None:
        self._step = int(session.run(self._global_step))

    def after_run(self, run_context: Any, run_values: Any) -> None:
        # Read anew: a call need not be a step, as where gradients are accumulated.
        before, self._step = self._step, int(run_context.session.run(self._global_step))
        waited, rules = time.monotonic() - self._began, self._evaluator.rules
        every = rules.eval_every_steps
        by_steps = every is not None and self._step // every > before // every
        by_secs = rules.eval_every_secs is not None and waited >= rules.eval_every_secs
        due = (by_steps or by_secs) and (waited >= rules.eval_throttle_secs or not self._evaluated)
        if not (due or self._step >= self._total > before) or self._step == before or self._requests.stop:
            return
        self._began, self._evaluated = time.monotonic(), True
        if self._evaluation is None:  # its graph is built where it is first used
            self._evaluation = InMemoryEvaluation(self._evaluator, self._requests, self._held)
        metrics = self._evaluation.measure(run_context.session, self._held, self._step)
        reason = self._evaluator.take(metrics) if metrics else None
        if reason:
            self._requests.ask(reason, resumes=False)
