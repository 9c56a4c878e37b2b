"""The command ``train``: from a RunSpec to a trained and evaluated run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from estimator_tl.compat import quiet, tf
from estimator_tl.config import RunSpec
from estimator_tl.errors import STOPPED_EXIT_CODE, UserError
from estimator_tl.heads import naming_bad_labels
from estimator_tl.inputs import DataSource, latest_step
from estimator_tl.inputs.folders.image_folder import bad_example_error
from estimator_tl.launch.cluster import rendezvous, tasks
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.run_config import make_run_config, make_session_config
from estimator_tl.launch.cluster.strategy import Distribution, distribution_of
from estimator_tl.launch.evaluating.in_memory import check_in_memory
from estimator_tl.launch.hooks import profile_window
from estimator_tl.launch.run import plan_change, run_dir
from estimator_tl.launch.run.disk import disk_errors, remove_debris
from estimator_tl.launch.run.ownership import owning
from estimator_tl.launch.run.preparation import Prepared, prepare
from estimator_tl.launch.stopping import Stop, StopRequests, stopping_at_signals
from estimator_tl.launch.work import Work
from estimator_tl.tf_internals.files.checkpoint_state import correct_state


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call of `train` did.

    Attributes:
      metrics: of the last evaluation; empty where this process made none.
      global_step: the step reached.
      steps: how many of them the run has made since this call began.
      seconds: what they took, with evaluations.
      stop: why training ended before its last step; None where it did not.
    """

    metrics: dict[str, float]
    global_step: int
    steps: int
    seconds: float
    stop: Stop | None = None

    @property
    def exit_code(self) -> int:
        """What tells a scheduler whether the process is to be started again."""
        return STOPPED_EXIT_CODE if self.stop and self.stop.resumes else 0


def train(
    spec: RunSpec,
    model_dir: str,
    flags_text: str = "",
    hooks: Sequence[Any] = (),
    cluster: Cluster | None = None,
) -> Outcome:
    """Trains a run, or continues it, and evaluates it; or does the part of this task of a cluster.

    Everything that can be wrong with the settings is found before the first file is written.

    Args:
      spec: the settings.
      model_dir: the run directory.
      flags_text: the flags that made `spec`, kept as flags.txt.
      hooks: further SessionRunHooks for training.
      cluster: that this process belongs to; None for one process.

    Raises:
      UserError: something is wrong with the settings, the data or the source.
      LostPeersError: other tasks did not come, or are gone.
    """
    run_dir.check_name(model_dir)
    requests = StopRequests(spec.launch.max_run_hours)
    distribution = distribution_of(spec.launch, cluster)
    _check_launch(spec, model_dir, distribution, cluster)
    if distribution.kind == "multi_worker_mirrored":
        # With eager execution TensorFlow would have to know of the other tasks before it does anything at all.
        tf.compat.v1.disable_eager_execution()
    follower = _follower(spec, model_dir, cluster)
    with stopping_at_signals(requests):
        if cluster and cluster.job != "evaluator":
            rendezvous.wait_for_names(cluster, spec.launch.cluster_wait_secs, requests.pending)
        if follower:
            if not follower.join(requests.pending):
                return Outcome({}, latest_step(model_dir), 0, 0.0, requests.stop)
            if cluster and cluster.job == "ps":
                return _serve(spec, model_dir, cluster, distribution, requests, follower)
        with contextlib.nullcontext() if follower else owning(model_dir), disk_errors(model_dir, not follower):
            run = prepare(spec, model_dir, distribution, tells=follower is None)
            if requests.stop:
                return Outcome({}, run.before, 0, 0.0, requests.stop)
            if not follower:
                _write_beginning(run, model_dir, flags_text)
            if spec.training.deterministic:
                tf.config.experimental.enable_op_determinism()
            started = time.monotonic()
            with _naming_bad_examples([run.data, *([run.evaluation[0]] if run.evaluation else [])]):
                metrics = Work(spec, run, model_dir, distribution, cluster, requests, list(hooks)).do(follower)
            reached = latest_step(model_dir)
            outcome = Outcome(metrics, reached, reached - run.before, time.monotonic() - started, why_early(requests))
            if not follower:
                run.record["result"] = dataclasses.asdict(outcome)
                run_dir.write_record(model_dir, run.record)
    return outcome


def _follower(spec: RunSpec, model_dir: str, cluster: Cluster | None) -> rendezvous.Follower | None:
    if cluster is None or cluster.is_chief:
        return None
    return rendezvous.Follower(model_dir, cluster, spec.to_json(), spec.launch.cluster_wait_secs)


def _check_launch(spec: RunSpec, model_dir: str, distribution: Distribution, cluster: Cluster | None) -> None:
    distribution.batch_of_replica(spec.training.batch_size)
    if spec.launch.profile:
        profile_window(spec.launch.profile)
    check_in_memory(spec.evaluation, cluster is None and distribution.kind in ("off", "mirrored"))
    if cluster and cluster.job == "evaluator" and not (spec.data.eval_data or spec.data.validation_fraction):
        raise UserError("this task is the evaluator, but there is nothing to evaluate on; give --eval_data.")
    if cluster:
        quiet.silence_cluster_warnings()
        make_session_config(spec.launch, cluster, distribution)  # raises
    else:
        make_run_config(model_dir, spec.launch, None, distribution)  # raises, for the devices as well


def _write_beginning(run: Prepared, model_dir: str, flags_text: str) -> None:
    newest = correct_state(model_dir)
    if newest:
        newest.tell()
    remove_debris(model_dir)
    if run.changed_at is not None:
        new = plan_change.adopt_checkpoint(run.model_fn(), run.train_input, model_dir)
        listed = f"{len(new)} slot variables begin empty" if new else "no new slot variables"
        print(
            f"plan changed at step {run.changed_at}: tuning {run.plan.policy} from here on, {listed}", file=sys.stderr
        )
    run_dir.write(model_dir, run.record, run.data.labels, flags_text)


def _serve(
    spec: RunSpec,
    model_dir: str,
    cluster: Cluster,
    distribution: Distribution,
    requests: StopRequests,
    follower: rendezvous.Follower,
) -> Outcome:
    """Does the part of a parameter server, which needs neither data nor model."""
    config = make_run_config(model_dir, spec.launch, cluster, distribution)
    started = time.monotonic()
    tasks.run_server(cluster, follower, requests, config.session_config)
    return Outcome({}, latest_step(model_dir), 0, time.monotonic() - started, why_early(requests))


def why_early(requests: StopRequests) -> Stop | None:
    """Returns why training ended early; that the chief has finished is no such reason."""
    return requests.stop if requests.stop and requests.stop.reason else None


@contextlib.contextmanager
def _naming_bad_examples(folders: Sequence[DataSource]) -> Iterator[None]:
    """Turns the pipeline's decoding error, which does not know the file, into one that names it."""
    try:
        with naming_bad_labels():
            yield
    except tf.errors.InvalidArgumentError:
        for folder in folders:
            bad = folder.unreadable()
            if bad:
                raise bad_example_error(folder.root, bad) from None
        raise
