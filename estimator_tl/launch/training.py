"""The command ``train``: turns a RunSpec into a trained and evaluated run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from estimator_tl.compat import estimator, quiet, tf
from estimator_tl.config import RunSpec
from estimator_tl.errors import UserError
from estimator_tl.export import make_exporters
from estimator_tl.heads import naming_bad_labels
from estimator_tl.inputs import DataSource
from estimator_tl.inputs.folders.image_folder import bad_example_error
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.run_config import evaluation_session_config, make_run_config, make_session_config
from estimator_tl.launch.cluster.strategy import Distribution, distribution_of
from estimator_tl.launch.evaluating.evaluation import Evaluator
from estimator_tl.launch.evaluating.in_memory import check_in_memory
from estimator_tl.launch.hooks import NanGuardHook, NormsHook, ProfilerHook, ProgressHook, profile_window, saver_hook
from estimator_tl.launch.job import Job
from estimator_tl.launch.outcome import Outcome
from estimator_tl.launch.run import plan_change, run_dir, session
from estimator_tl.launch.run.disk import remove_debris
from estimator_tl.launch.run.preparation import Prepared, prepare
from estimator_tl.launch.stopping import StopEvaluationHook, StopRequests
from estimator_tl.tf_internals import tpu
from estimator_tl.tf_internals.files.checkpoint_state import correct_state


def train(
    spec: RunSpec,
    model_dir: str,
    flags_text: str = "",
    hooks: Sequence[Any] = (),
    cluster: Cluster | None = None,
) -> Outcome:
    """Starts or continues a run and evaluates it; in a cluster, does the part of this task.

    All settings are checked before the first file is written.

    Args:
      spec: the settings.
      model_dir: the run directory.
      flags_text: the flags behind `spec`, kept as flags.txt.
      hooks: further SessionRunHooks for training.
      cluster: the cluster of this process; None for one process.

    Raises:
      UserError: something is wrong with the settings, the data or the backbone.
      LostPeersError: other tasks did not appear, or have left.
    """
    run_dir.check_name(model_dir)
    return TrainJob(spec, model_dir, cluster, flags_text, hooks).run()


class TrainJob(Job):
    """The job of the command: data, backbone and plan come from the settings."""

    def __init__(
        self, spec: RunSpec, model_dir: str, cluster: Cluster | None, flags_text: str = "", hooks: Sequence[Any] = ()
    ):
        """See `train` for the arguments.

        Raises:
          UserError: the settings do not fit the devices or the cluster.
        """
        launch = spec.launch
        requests = StopRequests(launch.max_run_hours)
        super().__init__(model_dir, cluster, requests, launch.cluster_wait_secs, launch.stall_minutes)
        self._spec, self._flags_text, self._extra_hooks = spec, flags_text, hooks
        self.throttle_secs = spec.evaluation.eval_throttle_secs
        self.distribution = distribution_of(launch, cluster)
        self.distribution.batch_of_replica(spec.training.batch_size)  # raises if it is not divisible
        self._window = profile_window(launch.profile) if launch.profile else None
        check_in_memory(spec.evaluation, cluster is None and self.distribution.in_one_process)
        if cluster and cluster.job == "evaluator" and not (spec.data.eval_data or spec.data.validation_fraction):
            raise UserError("this task is the evaluator, but there is nothing to evaluate on; give --eval_data.")
        if cluster:
            quiet.silence_cluster_warnings()
        self._session_config = make_session_config(launch, cluster, self.distribution)
        if self.distribution.synchronous:
            # With eager execution TensorFlow would need the description of the cluster before its first operation.
            tf.compat.v1.disable_eager_execution()
        self._guard = NanGuardHook(model_dir=model_dir, where=_where(self.distribution, cluster))

    @property
    def settings(self) -> dict[str, Any]:
        return self._spec.to_json()

    @property
    def synchronous(self) -> bool:
        return self.distribution.synchronous

    @property
    def start_step(self) -> int:
        return self._run.start_step

    @property
    def total(self) -> int:
        return self._run.total

    @property
    def train_input(self) -> Callable[..., Any]:
        return tpu.per_host(self._run.train_input) if self.distribution.on_tpu else self._run.train_input

    @property
    def evaluated_every(self) -> int | None:
        if self._spec.launch.save_checkpoints_secs or self.distribution.saves_at_any_step:
            return None
        return self._run.every

    @functools.cached_property
    def _run(self) -> Prepared:
        return prepare(self._spec, self.model_dir, self.distribution, verbose=self._leads)

    @functools.cached_property
    def _config(self) -> Any:
        """The RunConfig of this process, without save_checkpoints_steps, whose default depends on the data."""
        fields = session.config_fields(self._spec.training)
        if self.distribution.owns_saving:  # otherwise TensorFlow would save in addition to this project's hook
            fields["save_checkpoints_steps"] = fields["save_checkpoints_secs"] = None
        return make_run_config(
            self.model_dir,
            self._spec.launch,
            self.cluster,
            self.distribution,
            session_config=self._session_config,
            **fields,
        )

    @property
    def _leads(self) -> bool:
        """Whether this process writes the run directory."""
        return self.cluster is None or self.cluster.is_chief

    def begin(self, owns: bool) -> None:
        if self.cluster is None:
            self._config  # noqa: B018 - checks the devices before data are read
        run = self._run
        if owns and not self.requests.stop:
            _write_beginning(run, self.model_dir, self._flags_text)
        if self._spec.training.deterministic:
            tf.config.experimental.enable_op_determinism()

    def end(self, outcome: Outcome) -> None:
        self._run.record["result"] = dataclasses.asdict(outcome)
        run_dir.write_record(self.model_dir, self._run.record)

    @contextlib.contextmanager
    def naming_errors(self) -> Iterator[None]:
        try:
            with _naming_bad_examples(self._run.data.datasets):
                yield
        except estimator.NanLossDuringTrainingError as error:
            raise UserError(
                "the loss is NaN or infinite: lower --learning_rate. To see which layer, rerun as one process "
                "without a TPU. The last checkpoint is kept."
            ) from error

    def parts(self) -> list[tuple[int | None, int]]:
        plan = self._run.plan
        parts = plan.parts(self._run.start_step, self._run.total)
        return [(phase if len(plan.spans) > 1 else None, end) for phase, end in parts]

    def estimator(self, phase: int | None) -> Any:
        config = self._config
        if not (self.distribution.owns_saving or self._spec.launch.save_checkpoints_secs):
            config = config.replace(save_checkpoints_steps=self._run.every)
        model_fn = self._run.model_fn if phase is None else self._run.model_fn_of_phase(phase)
        if self.distribution.on_tpu:
            return tpu.make_estimator(model_fn, self.model_dir, config, self._spec.training.batch_size)
        return estimator.Estimator(model_fn, self.model_dir, config, params={})

    def evaluator(self) -> Evaluator | None:
        if self._run.eval_input is None:
            return None
        spec, rules, input_spec = self._spec, self._spec.evaluation, self._run.backbone.input_spec
        config = session.local_config(self.model_dir, spec.training, evaluation_session_config(spec.launch))
        return Evaluator(
            estimator.Estimator(self._run.model_fn, self.model_dir, config, params={}),
            self._run.eval_input,
            make_exporters(
                rules.exporters,
                input_spec,
                rules.metric,
                rules.sign > 0,
                rules.exports_to_keep,
                {run_dir.LABELS: os.path.join(self.model_dir, run_dir.LABELS)},
            ),
            rules,
            [StopEvaluationHook(self.requests)],
        )

    def saver(self, listeners: Sequence[Any], folder: str) -> Any:
        secs = self._spec.launch.save_checkpoints_secs
        return saver_hook(
            folder, self._run.every, secs, [self._guard.listener, *listeners], self.distribution.steps_per_call
        )

    def hooks(self) -> list[Any]:
        hooks: list[Any] = [self._guard]
        if self._leads:
            hooks += self._display_hooks()
        if self._leads or self.synchronous:
            hooks += self._norms_hooks()
        return [*hooks, *self._extra_hooks]

    def session_config(self) -> Any:
        return self._session_config

    def _display_hooks(self) -> list[Any]:
        """Returns the hooks that show progress and profiles."""
        batch_size, replicas = self._spec.training.batch_size, self.distribution.replicas
        hooks: list[Any] = [ProgressHook(self._run.total, batch_size, replicas=replicas)]
        if self._window:
            hooks.append(ProfilerHook(*self._window, self.model_dir))
        return hooks

    def _norms_hooks(self) -> list[Any]:
        every = self._spec.launch.log_norms
        if not every:
            return []
        groups = {variable.name: variable.group for variable in self._run.backbone.structure.variables}
        folder = self.model_dir if self._leads else None
        return [NormsHook(every, folder, groups, with_tasks=self.synchronous)]


def _where(distribution: Distribution, cluster: Cluster | None) -> Literal["alone", "cluster", "tpu"]:
    """Returns where training runs, in the terms of the NaN guard."""
    if cluster is not None:
        return "cluster"
    return "tpu" if distribution.on_tpu else "alone"


def _write_beginning(run: Prepared, model_dir: str, flags_text: str) -> None:
    newest = correct_state(model_dir)
    if newest:
        newest.report_damaged()
    remove_debris(model_dir)
    if run.changed_at is not None:
        new = plan_change.adopt_checkpoint(run.model_fn, run.train_input, model_dir)
        slots = f"{len(new)} slot variables begin empty" if new else "no new slot variables"
        print(f"plan changed at step {run.changed_at}: tuning {run.plan.policy} from here on, {slots}", file=sys.stderr)
    run_dir.write(model_dir, run.record, run.data.labels, flags_text)


@contextlib.contextmanager
def _naming_bad_examples(datasets: Sequence[DataSource]) -> Iterator[None]:
    """A block that turns a decoding error of the pipeline, which lacks the file, into an error that names it."""
    try:
        with naming_bad_labels():
            yield
    except tf.errors.InvalidArgumentError:
        for dataset in datasets:
            bad = dataset.unreadable()
            if bad:
                raise bad_example_error(dataset.root, bad) from None
        raise
