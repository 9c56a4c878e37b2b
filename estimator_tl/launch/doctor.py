"""What has to be right before a run begins, looked at without beginning it."""

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
from estimator_tl.launch.cluster.peers import Answer, reach_all, taken
from estimator_tl.launch.cluster.strategy import distribution_of
from estimator_tl.launch.run import run_dir, session
from estimator_tl.tuning import VariablePlan
from estimator_tl.tuning.table import summary

_MARKS = ".doctor"
_GIB = 2.0**30
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
      level: ``ok``, ``warn`` or ``fail``.
      text: what was found.
    """

    level: Literal["ok", "warn", "fail"]
    text: str

    def __str__(self) -> str:
        return f"{self.level.ljust(4)}  {self.text}"


def bounded(what: str, check: Callable[[], Iterator[Finding]], seconds: float) -> tuple[list[Finding], bool]:
    """Runs a check that may hang, in a thread that nobody waits for.

    Args:
      what: the check in words.
      check: yields findings; what it raises is one, too.
      seconds: how long it may take.

    Returns:
      The findings, and whether the check has ended.
    """
    found: list[Finding] = []

    def work() -> None:
        try:
            for finding in check():
                found.append(finding)
        except UserError as error:
            found.append(Finding("fail", str(error)))
        except Exception as error:
            # Whatever is wrong with a machine is what this program is for, so it is a finding and no crash.
            found.append(Finding("fail", f"{what}: {type(error).__name__}: {' '.join(str(error).split())}"))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not thread.is_alive():
        return found, True
    return [*found, Finding("fail", f"{what}: no end after {seconds:g} s; see --check_timeout_secs.")], False


def versions() -> Iterator[Finding]:
    """Yields which Python and packages run here."""
    yield Finding("ok", f"Python {platform.python_version()}, estimator_tl {estimator_tl.__version__}")
    yield Finding("ok", ", ".join(f"{name} {version}" for name, version in installed_versions().items()))
    problem = hub_problem()
    if problem:
        yield Finding("warn", problem)


def devices() -> Iterator[Finding]:
    """Yields what there is to compute on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", f"{cpus} CPUs, {_memory() / _GIB:.1f} GiB memory on {socket.gethostname()}")
    found = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in found]
    yield Finding("ok", f"{len(found)} GPUs: {', '.join(names)}" if found else "no GPU that TensorFlow can use")


def cluster(described: Cluster | None, timeout: float) -> Iterator[Finding]:
    """Yields the cluster, whether this task can listen, and which of its peers can be reached."""
    if described is None:
        yield Finding("ok", "no cluster is described: train runs as one process")
        return
    for line in described.text().splitlines():
        yield Finding("ok", line)
    address = described.address()
    if address:
        why = taken(address)
        if why:
            yield Finding("fail", f"{described.name} cannot listen on the port of {address}: {why}")
        else:
            yield Finding("ok", f"{described.name} can listen on the port of {address}")
    levels: dict[Answer, Literal["ok", "warn", "fail"]] = {Answer.REACHED: "ok", Answer.REFUSED: "warn"}
    peers = dict(described.peers())
    reached = reach_all(peers.values(), timeout)
    for name, peer in peers.items():
        yield Finding(levels.get(reached[peer].answer, "fail"), f"{name} at {peer}: {reached[peer].text()}")


def distribution(launch: LaunchSpec, described: Cluster | None, batch_size: int) -> Iterator[Finding]:
    """Yields how training would be distributed; asks a TPU for its cores."""
    found = distribution_of(launch, described)
    parts = f", {found.replicas} replicas with {found.batch_of_replica(batch_size)} examples each" * (
        found.replicas > 1
    )
    yield Finding("ok", f"distribution {found.kind}{parts}")


def folders(model_dir: str, export_dir: str | None, described: Cluster | None) -> Iterator[Finding]:
    """Yields whether folders can be written and, in a cluster, whether its tasks share the model_dir.

    Each task leaves a mark in the model_dir, by which the others see that it is the same folder.
    """
    for name, folder in (("model_dir", model_dir), ("export_dir", export_dir)):
        if folder:
            run_dir.check_writable(folder)
            yield Finding("ok", f"{name} {folder} can be written")
    if described is None:
        return
    marks = Path(model_dir, _MARKS)
    marks.mkdir(parents=True, exist_ok=True)
    own = f"{described.job}_{described.index}"
    write_whole(marks / own, socket.gethostname())
    others = {
        path.name.replace("_", " "): path.read_text() for path in sorted(marks.glob("[a-z]*_*")) if path.name != own
    }
    if others:
        listed = ", ".join(f"{name} on {host}" for name, host in others.items())
        yield Finding("ok", f"model_dir is shared with {listed}, which left a mark there")
    else:
        yield Finding(
            "warn",
            f"model_dir holds no mark of another task yet; run doctor on another one to see that {model_dir} is shared",
        )


def data(source: DataSource) -> Iterator[Finding]:
    """Yields what there is to train on."""
    examples = source.examples("train")
    yield Finding(
        "ok",
        f"{len(source)} {source.what} in {len(source.labels)} classes, {len(examples)} of them to train on; "
        f"the first: {examples.items[0][:200]}",
    )
    if source.skipped:
        yield Finding("warn", f"{len(source.skipped)} unreadable {source.what} are skipped, e.g. {source.skipped[0]}")


def plan(policy: str, variables: VariablePlan) -> Iterator[Finding]:
    """Yields what would train."""
    yield Finding("ok", f"tuning {policy}: {summary(variables)} (without the head)")


def one_step(spec: RunSpec, source: Backbone, variables: VariablePlan, listed: DataSource) -> Iterator[Finding]:
    """Makes one step of training on one batch, in a folder that is removed, and yields how long it took.

    TF_CONFIG must not be set, as Estimator would wait for the cluster.
    """
    training = spec.training
    batch = listed.input_fn(source.input_spec, training.batch_size, "train", training=True, seed=training.seed)
    shown: list[str] = []
    model_fn = session.build_model_fn(
        spec,
        source,
        listed.labels,
        training.total_steps(len(listed.examples("train"))),
        variables,
        show_plan=shown.append,
        recalibrate_on=batch if spec.model.batch_norm == "recalibrate" else None,
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="estimator_tl_doctor_") as folder:
        config = session.local_config(folder, training)
        trained: Any = estimator.Estimator(model_fn, folder, config, params={})
        trained.train(batch, steps=1)
    (line,) = [line for line in shown[0].splitlines() if line.startswith("trainable params")]
    yield Finding("ok", f"one step on a batch of {training.batch_size} in {time.monotonic() - started:.1f} s; {line}")


def _memory() -> float:
    """Returns the bytes that this process may have: those of the machine, or the container's limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _CGROUP_LIMITS):
        if path.is_file() and path.read_text().strip().isdigit():
            limits.append(int(path.read_text()))
    return float(min(limits))
