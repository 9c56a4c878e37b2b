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
    """Adds the flags of train, so that the same flagfile can be looked at, and those of the checks."""
    train.define(command)
    command.number(
        _CHECKS, "peer_timeout_secs", 5.0, "how long to wait for the other tasks, all at once.", above=0, at_most=1e6
    )
    command.number(_CHECKS, "check_timeout_secs", 300.0, "how long any other check may take.", above=0, at_most=1e6)


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Looks at what a run needs and prints a line for each thing.

    Raises:
      UserError: something would not work.
    """
    values = command.values
    refuse_arguments("doctor", arguments)
    from estimator_tl.launch import doctor

    failed, hung = [], False
    with _no_cluster_for_estimator() as environ:
        for what, check in _checks(command, environ):
            allowed = values.check_timeout_secs + (values.peer_timeout_secs if what == "cluster" else 0)
            findings, ended = doctor.bounded(what, check, allowed)
            for finding in findings:
                print(finding, flush=True)
            failed += [finding.text for finding in findings if finding.level == "fail"]
            hung = hung or not ended
    if not failed:
        return 0
    error = UserError(f"{len(failed)} check{'s' * (len(failed) > 1)} failed; first: {failed[0]}")
    if hung:
        # Whatever does not end could keep the interpreter from its end, too.
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    raise error


def _checks(command: CommandFlags, environ: dict[str, str]) -> Iterator[tuple[str, Callable[[], Iterator[Any]]]]:
    """Yields the checks that the flags ask for, with their names."""
    from estimator_tl.launch import doctor
    from estimator_tl.launch.run import plan_change, session

    values = command.values
    yield "versions", doctor.versions
    yield "devices", doctor.devices
    described, wrong = None, None
    try:
        described = cluster_of(values, environ)
    except UserError as error:
        wrong = doctor.Finding("fail", str(error))
    yield "cluster", lambda: iter([wrong]) if wrong else doctor.cluster(described, values.peer_timeout_secs)
    if not wrong:
        yield "distribution", lambda: doctor.distribution(command.spec(LaunchSpec), described, values.batch_size)
    if values.model_dir:
        yield "model_dir", lambda: doctor.folders(values.model_dir, values.export_dir, described)

    # The settings are read inside of the checks, as what is wrong with them is a finding like others. Data and backbone
    # are opened once; where one of them cannot be, the step would only fail for the same reason.
    listed = functools.cache(lambda: session.training_data(command.spec(DataSpec)))
    source = functools.cache(lambda: session.open_backbone(command.spec(ModelSpec)))
    plan = functools.cache(lambda: plan_change.plan_of(source().structure, command.spec(ModelSpec)))
    if values.train_data:
        yield "data", lambda: doctor.data(listed())
    if values.backbone:
        yield "backbone", lambda: doctor.plan(values.tuning, plan())
    if listed.cache_info().currsize and plan.cache_info().currsize:
        spec = RunSpec(command.spec(ModelSpec), command.spec(DataSpec), command.spec(TrainingSpec))
        yield "one step", lambda: doctor.one_step(spec, source(), plan(), listed())


@contextlib.contextmanager
def _no_cluster_for_estimator() -> Iterator[dict[str, str]]:
    """Takes TF_CONFIG away, with which Estimator would wait for peers; yields the environment with it."""
    environ = dict(os.environ)
    os.environ.pop("TF_CONFIG", None)
    try:
        yield environ
    finally:
        if "TF_CONFIG" in environ:
            os.environ["TF_CONFIG"] = environ["TF_CONFIG"]


COMMAND = Command(
    "look at what a run needs: versions, devices, cluster, folders, data, one step",
    "estimator-tl doctor --backbone=PATH --train_data=FOLDER --model_dir=FOLDER",
    define,
    run,
)
