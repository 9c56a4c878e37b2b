"""``estimator-tl doctor``."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from estimator_tl.cli import train
from estimator_tl.cli.cluster_flags import cluster_of
from estimator_tl.cli.command import Command, CommandFlags, refuse_arguments
from estimator_tl.config import DataSpec, LaunchSpec, ModelSpec, RunSpec, TrainingSpec
from estimator_tl.errors import UserError

_CHECKS = "Checks"


def define(command: CommandFlags) -> None:
    """Adds the flags of train, so that doctor can check the same flagfile, and the flags of the checks."""
    train.define(command)
    command.number(
        _CHECKS, "peer_timeout_secs", 5.0, "Seconds to wait for all other tasks together.", above=0, at_most=1e6
    )
    command.number(_CHECKS, "check_timeout_secs", 300.0, "Seconds that any other check may take.", above=0, at_most=1e6)


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Checks what a run needs, and prints a line for each finding.

    Raises:
      UserError: a check failed.
    """
    values = command.values
    refuse_arguments("doctor", arguments)
    from estimator_tl.launch import doctor

    failures, hung = [], False
    with _without_tf_config() as environ:
        for name, check in _checks(command, environ):
            timeout = values.check_timeout_secs
            if name == "cluster":
                timeout += values.peer_timeout_secs
            findings, ended = doctor.bounded(name, check, timeout)
            for finding in findings:
                print(finding, flush=True)
            failures += [finding.text for finding in findings if finding.level == "fail"]
            hung = hung or not ended
    if not failures:
        return 0
    error = UserError(f"{len(failures)} check{'s' * (len(failures) > 1)} failed; first: {failures[0]}")
    if hung:
        # A check that hangs could also keep the interpreter from exiting.
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    raise error


def _checks(command: CommandFlags, environ: dict[str, str]) -> Iterator[tuple[str, Callable[[], Iterator[Any]]]]:
    """Yields the names of the checks for the flags, and the checks."""
    from estimator_tl.launch import doctor
    from estimator_tl.launch.run import plan_change, session

    values = command.values
    yield "versions", doctor.versions
    yield "devices", doctor.devices
    cluster = None
    try:
        cluster = cluster_of(values, environ)
    except UserError as error:
        problem = doctor.Finding("fail", str(error))
        yield "cluster", lambda: iter([problem])
    else:
        yield "cluster", lambda: doctor.cluster(cluster, values.peer_timeout_secs)
        yield "distribution", lambda: doctor.distribution(command.spec(LaunchSpec), cluster, values.batch_size)
    if values.model_dir:
        yield "model_dir", lambda: doctor.folders(values.model_dir, values.export_dir, cluster)

    # The checks read the settings, so that an invalid setting becomes a finding. Data and backbone are opened once; if
    # one of them fails to open, the step is skipped, as it would fail for the same reason.
    data = functools.cache(lambda: session.training_data(command.spec(DataSpec)))
    backbone = functools.cache(lambda: session.open_backbone(command.spec(ModelSpec)))
    plan = functools.cache(lambda: plan_change.plan_of(backbone().structure, command.spec(ModelSpec)))
    if values.train_data:
        yield "data", lambda: doctor.data(data())
    if values.backbone:
        yield "backbone", lambda: doctor.plan(values.tuning, plan())
    if data.cache_info().currsize and plan.cache_info().currsize:
        spec = RunSpec(command.spec(ModelSpec), command.spec(DataSpec), command.spec(TrainingSpec))
        yield "one step", lambda: doctor.one_step(spec, backbone(), plan(), data())


@contextlib.contextmanager
def _without_tf_config() -> Iterator[dict[str, str]]:
    """A block without TF_CONFIG, so that Estimator waits for no peers; yields the environment with TF_CONFIG."""
    environ = dict(os.environ)
    os.environ.pop("TF_CONFIG", None)
    try:
        yield environ
    finally:
        if "TF_CONFIG" in environ:
            os.environ["TF_CONFIG"] = environ["TF_CONFIG"]


COMMAND = Command(
    "check what a run needs: versions, devices, cluster, folders, data, one step",
    "estimator-tl doctor --backbone=PATH --train_data=FOLDER --model_dir=FOLDER",
    define,
    run,
)
