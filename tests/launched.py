"""Clusters of processes that run `estimator-tl train` on tiny sources, and what they leave behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from tests.checkpoints import checkpoint_values
from tests.cluster import Cluster

TASKS = {
    "parameter_server": {"chief": 1, "worker": 1, "ps": 1},
    "multi_worker_mirrored": {"chief": 1, "worker": 1},
}
COMMAND = (sys.executable, "-m", "estimator_tl", "train")


def flags_of(model_dir, source, pictures, steps, **changes) -> list[str]:
    """Returns the flags of a training; changes win, and None leaves a flag out."""
    values = {
        "backbone": source.handle,
        "train_data": pictures,
        "model_dir": model_dir,
        "train_steps": steps,
        "batch_size": 8,
        "learning_rate": 0.01,
        "validation_fraction": 0,
        "keep_checkpoint_max": 0,
        "verbosity": "error",
        **changes,
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def slowly(go_on: Path, secs: float) -> dict[str, str]:
    """Returns the flags of a run that makes slow steps until the file `go_on` is there."""
    return {"import_modules": "tests.programs.slow_steps", "learning_rate": f"slowly(0.01, {str(go_on)!r}, {secs})"}


def cluster_of(logs: Path, flags: list[str], tasks: dict[str, int], **options) -> Cluster:
    """Returns a cluster whose tasks train with these flags, not yet started."""
    return Cluster(logs, flags, COMMAND, **options, **tasks)


def train(logs: Path, flags: list[str], tasks: dict[str, int], timeout: float = 180) -> dict[str, str]:
    """Runs a cluster to its end, which each task reaches with 0; returns what they printed."""
    with cluster_of(logs, flags, tasks) as cluster:
        cluster.start()
        cluster.wait_until(
            lambda: all(task.status == 0 for task in cluster.tasks.values()), "the end of all tasks", timeout
        )
        return {task.name: task.text for task in cluster.tasks.values()}


def saved_steps(model_dir) -> list[int]:
    """The global steps of the checkpoints that are there whole, in order."""
    names = (re.fullmatch(r"model\.ckpt-(\d+)\.index", path.name) for path in Path(model_dir).glob("*.index"))
    return sorted(int(name.group(1)) for name in names if name)


def state(model_dir, step: int, late: int = 0) -> dict[str, np.ndarray]:
    """The values of a checkpoint; checks that its step is the one of its name.

    Args:
      model_dir: of the run.
      step: in the checkpoint's name.
      late: how many steps later it may be: on parameter servers other workers go on while it is written.
    """
    values = checkpoint_values(Path(model_dir, f"model.ckpt-{step}"))
    assert step <= values["global_step"] <= step + late
    return values


def equals_source(values, source) -> bool:
    """True where a checkpoint holds the source bit for bit."""
    return all(np.array_equal(values[name], value) for name, value in source.values.items())
