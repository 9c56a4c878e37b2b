"""Checks what a run needs, without starting the run."""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import estimator_tl
from estimator_tl.backbones import Backbone
from estimator_tl.compat import estimator, tf
from estimator_tl.compat.versions import hub_problem, installed_versions
from estimator_tl.config import LaunchSpec, RunSpec
from estimator_tl.errors import UserError
from estimator_tl.files import write_whole
from estimator_tl.inputs import DataSource
from estimator_tl.launch.cluster.description import Cluster
from estimator_tl.launch.cluster.peers import Answer, port_problem, reach_all
from estimator_tl.launch.cluster.strategy import distribution_of
from estimator_tl.launch.run import run_dir, session
from estimator_tl.tuning import VariablePlan
from estimator_tl.tuning.table import summary

_SHARED = ".doctor"
_GIB = 2.0**30
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
      level: ``ok``, ``warn`` or ``fail``.
      text: the line without its level.
    """

    level: Literal["ok", "warn", "fail"]
    text: str

    def __str__(self) -> str:
        return f"{self.level.ljust(4)}  {self.text}"


def bounded(name: str, check: Callable[[], Iterator[Finding]], seconds: float) -> tuple[list[Finding], bool]:
    """Runs a check that may hang, in a daemon thread.

    Args:
      name: the name of the check.
      check: yields findings; an exception becomes a finding too.
      seconds: how long the check may take.

    Returns:
      The findings, and whether the check has ended.
    """
    findings: list[Finding] = []

    def work() -> None:
        try:
            for finding in check():
                findings.append(finding)
        except UserError as error:
            findings.append(Finding("fail", str(error)))
        except Exception as error:
            # This program exists to find what is wrong with a machine, so any error is a finding and not a crash.
            findings.append(Finding("fail", f"{name}: {type(error).__name__}: {' '.join(str(error).split())}"))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not thread.is_alive():
        return findings, True
    return [*findings, Finding("fail", f"{name}: no end after {seconds:g} s; see --check_timeout_secs.")], False


def versions() -> Iterator[Finding]:
    """Yields the versions of Python and of the packages."""
    yield Finding("ok", f"Python {platform.python_version()}, estimator_tl {estimator_tl.__version__}")
    yield Finding("ok", ", ".join(f"{name} {version}" for name, version in installed_versions().items()))
    problem = hub_problem()
    if problem:
        yield Finding("warn", problem)


def devices() -> Iterator[Finding]:
    """Yields the CPUs, the memory and the GPUs."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", f"{cpus} CPUs, {_memory() / _GIB:.1f} GiB memory on {socket.gethostname()}")
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    yield Finding("ok", f"{len(gpus)} GPUs: {', '.join(names)}" if gpus else "no GPU that TensorFlow can use")


def cluster(described: Cluster | None, timeout: float) -> Iterator[Finding]:
    """Yields the cluster, whether this task can listen, and which of its peers can be reached."""
    if described is None:
        yield Finding("ok", "no cluster is described: train runs as one process")
        return
    for line in described.text().splitlines():
        yield Finding("ok", line)
    address = described.address()
    if address:
        problem = port_problem(address)
        if problem:
            yield Finding("fail", f"{described.name} cannot listen on the port of {address}: {problem}")
        else:
            yield Finding("ok", f"{described.name} can listen on the port of {address}")
    levels: dict[Answer, Literal["ok", "warn", "fail"]] = {Answer.REACHED: "ok", Answer.REFUSED: "warn"}
    peers = dict(described.peers())
    reached = reach_all(peers.values(), timeout)
    for name, peer in peers.items():
        yield Finding(levels.get(reached[peer].answer, "fail"), f"{name} at {peer}: {reached[peer].text()}")


def distribution(launch: LaunchSpec, described: Cluster | None, batch_size: int) -> Iterator[Finding]:
    """Yields how training would be distributed; asks a TPU for its cores."""
    plan = distribution_of(launch, described)
    text = f"distribution {plan.kind}"
    if plan.replicas > 1:
        text += f", {plan.replicas} replicas with {plan.batch_of_replica(batch_size)} examples each"
    yield Finding("ok", text)


def folders(model_dir: str, export_dir: str | None, described: Cluster | None) -> Iterator[Finding]:
    """Yields whether folders can be written and, in a cluster, whether its tasks share the model_dir.

    Each task writes a file into the model_dir, from which the others see that it is the same folder.
    """
    for name, folder in (("model_dir", model_dir), ("export_dir", export_dir)):
        if folder:
            run_dir.check_writable(folder)
            yield Finding("ok", f"{name} {folder} can be written")
    if described is None:
        return
    shared = Path(model_dir, _SHARED)
    shared.mkdir(parents=True, exist_ok=True)
    task = f"{described.job}_{described.index}"
    write_whole(shared / task, socket.gethostname())
    paths = [path for path in sorted(shared.glob("[a-z]*_*")) if path.name != task]
    if paths:
        others = ", ".join(f"{path.name.replace('_', ' ')} on {path.read_text()}" for path in paths)
        yield Finding("ok", f"model_dir is shared with {others}, which wrote a file there")
    else:
        yield Finding(
            "warn",
            f"model_dir holds no file of another task yet; run doctor in another task to see if {model_dir} is shared",
        )


def data(dataset: DataSource) -> Iterator[Finding]:
    """Yields the size of the training data and its first example."""
    examples = dataset.examples("train")
    yield Finding(
        "ok",
        f"{len(dataset)} {dataset.what} in {len(dataset.labels)} classes, {len(examples)} of them to train on; "
        f"the first: {examples.items[0][:200]}",
    )
    if dataset.skipped:
        skipped = dataset.skipped
        yield Finding("warn", f"{len(skipped)} unreadable {dataset.what} are skipped, e.g. {skipped[0]}")


def plan(policy: str, variables: VariablePlan) -> Iterator[Finding]:
    """Yields which variables would train."""
    yield Finding("ok", f"tuning {policy}: {summary(variables)} (without the head)")


def one_step(spec: RunSpec, backbone: Backbone, variables: VariablePlan, dataset: DataSource) -> Iterator[Finding]:
    """Trains one step on one batch in a temporary folder, and yields how long it took.

    TF_CONFIG must not be set, as Estimator would wait for the cluster.
    """
    training = spec.training
    batch = dataset.input_fn(backbone.input_spec, training.batch_size, "train", training=True, seed=training.seed)
    tables: list[str] = []
    model_fn = session.build_model_fn(
        spec,
        backbone,
        dataset.labels,
        training.total_steps(len(dataset.examples("train"))),
        variables,
        show_plan=tables.append,
        recalibrate_on=batch if spec.model.batch_norm == "recalibrate" else None,
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="estimator_tl_doctor_") as folder:
        config = session.local_config(folder, training)
        model: Any = estimator.Estimator(model_fn, folder, config, params={})
        model.train(batch, steps=1)
    (line,) = [line for line in tables[0].splitlines() if line.startswith("trainable params")]
    yield Finding("ok", f"one step on a batch of {training.batch_size} in {time.monotonic() - started:.1f} s; {line}")


def _memory() -> float:
    """Returns the memory in bytes that this process may use: of the machine, or the container's limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _CGROUP_LIMITS):
        if path.is_file() and path.read_text().strip().isdigit():
            limits.append(int(path.read_text()))
    return float(min(limits))
